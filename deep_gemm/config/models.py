"""Public models, as sizes, and the FP8 products that serving them needs.

Sizes are fields of a model's config.json. What is computed of them is what serving engines run in
FP8 with scale factors per 128 x 128 of the weights: projections whose input is the same are fused
(q_a with kv_a, q with k and v, gate with up). Router, embedding and output head are not in FP8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from deep_gemm.config.mqa_problem import MqaProblem
from deep_gemm.errors import ArgumentError


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Attention with low-rank queries, keys and values.

    Attributes:
        heads: `num_attention_heads`.
        q_rank, kv_rank: `q_lora_rank`, `kv_lora_rank`.
        nope, rope, v: `qk_nope_head_dim`, `qk_rope_head_dim`, `v_head_dim`.
        index_heads, index_dim: `index_n_heads`, `index_head_dim` of sparse attention; 0 without.
    """

    heads: int
    q_rank: int = 1536
    kv_rank: int = 512
    nope: int = 128
    rope: int = 64
    v: int = 128
    index_heads: int = 0
    index_dim: int = 0

    def projections(self, hidden: int, tp: int) -> Iterator[tuple[int, int]]:
        """(n, k) of every projection on one of `tp` devices that share the heads."""
        heads, kv_a = self.heads // tp, self.kv_rank + self.rope
        yield self.q_rank + kv_a, hidden
        yield self.q_rank, hidden
        yield kv_a, hidden
        yield heads * (self.nope + self.rope), self.q_rank
        yield heads * (self.nope + self.v), self.kv_rank
        yield hidden, heads * self.v
        if self.index_heads:
            yield self.index_heads * self.index_dim, self.q_rank
            yield self.index_dim, hidden


@dataclass(frozen=True, slots=True)
class GroupedQueryAttention:
    """Attention whose query heads share heads of keys and values.

    Attributes:
        heads, kv_heads: `num_attention_heads`, `num_key_value_heads`.
        dim: `head_dim`.
    """

    heads: int
    kv_heads: int
    dim: int = 128

    def projections(self, hidden: int, tp: int) -> Iterator[tuple[int, int]]:
        """(n, k) of every projection on one of `tp` devices, which have a kv head each at least."""
        heads = self.heads // tp
        yield (heads + 2 * max(1, self.kv_heads // tp)) * self.dim, hidden
        yield hidden, heads * self.dim


@dataclass(frozen=True, slots=True)
class Model:
    """The sizes of one model.

    Attributes:
        hidden: `hidden_size`.
        attention: its heads.
        experts: `n_routed_experts`, `num_experts` or `num_local_experts`.
        expert_width: `moe_intermediate_size`; MiniMax has it as `intermediate_size`.
        top_k: `num_experts_per_tok`.
        shared_width: width of the shared experts together, 0 without.
        dense_width: `intermediate_size` of layers without experts, 0 without.
        source: where the sizes were read.
    """

    hidden: int
    attention: LatentAttention | GroupedQueryAttention
    experts: int
    expert_width: int
    top_k: int
    shared_width: int
    dense_width: int
    source: str


MODELS = {
    "deepseek-v3": Model(
        *(7168, LatentAttention(128), 256, 2048, 8, 2048, 18432),
        source="defaults of DeepseekV3Config in huggingface/transformers; R1 and V3.1 are the same",
    ),
    "deepseek-v3.2": Model(
        *(7168, LatentAttention(128, index_heads=64, index_dim=128), 256, 2048, 8, 2048, 18432),
        source="defaults of DeepseekV32Config in huggingface/transformers",
    ),
    "kimi-k2": Model(
        *(7168, LatentAttention(64), 384, 2048, 8, 2048, 18432),
        source="its config.json as quoted in public articles and tests, all of which agree",
    ),
    "qwen3-235b-a22b": Model(
        *(4096, GroupedQueryAttention(64, 4), 128, 1536, 8, 0, 0),
        source="qwen3_235b_a22b.yaml of Ascend/MindSpeed-RL; every layer has experts",
    ),
    "qwen3-30b-a3b": Model(
        *(2048, GroupedQueryAttention(32, 4), 128, 768, 8, 0, 0),
        source="defaults of Qwen3MoeConfig in huggingface/transformers; head_dim from memory",
    ),
    "glm-4.5": Model(
        *(5120, GroupedQueryAttention(96, 8), 160, 1536, 8, 1536, 12288),
        source="docs of NVIDIA Megatron Bridge; head_dim from memory; 4.6 and 4.7 are taken to "
        "have the same sizes",
    ),
    "glm-4.5-air": Model(
        *(4096, GroupedQueryAttention(96, 8), 128, 1408, 8, 1408, 10944),
        source="its Glm4MoeConfig as printed in a public training log",
    ),
    "minimax-m2": Model(
        *(3072, GroupedQueryAttention(48, 8), 256, 1536, 8, 0, 0),
        source="defaults of MiniMaxM2Config in huggingface/transformers",
    ),
}

ALIASES = {"deepseek-r1": "deepseek-v3", "deepseek-v3.1": "deepseek-v3", "glm-4.6": "glm-4.5"}


def model_of(name: str) -> Model:
    """The model of a name, in upper or lower case.

    Raises:
        ArgumentError: there is none.
    """
    key = name.lower()
    model = MODELS.get(ALIASES.get(key, key))
    if model is None:
        known = ", ".join(sorted([*MODELS, *ALIASES]))
        raise ArgumentError(f"model: must be one of {known}, got {name!r}")
    return model


def dense_shapes(model: Model, tp: Iterable[int]) -> list[tuple[int, int]]:
    """(n, k) of every single product, for each number of devices that share the weights."""
    shapes: list[tuple[int, int]] = []
    for parts in tp:
        shapes += model.attention.projections(model.hidden, parts)
        for width in (model.dense_width, model.shared_width):
            if width:
                shapes += _mlp(model.hidden, width // parts)
    return sorted({shape for shape in shapes if _has_kernel(*shape)})


def mqa_problems(model: Model) -> list[MqaProblem]:
    """The MQA logits of the model's indexer: for prefill, and for decoding one token of a sequence
    or two, where the next one is guessed. Engines have pages of 64 keys, and FP32 logits."""
    attention = model.attention
    if not isinstance(attention, LatentAttention) or not attention.index_heads:
        return []
    sizes = attention.index_heads, attention.index_dim
    return [MqaProblem(*sizes), *(MqaProblem(*sizes, 64, next_n) for next_n in (1, 2))]


def expert_shapes(model: Model, tp: Iterable[int], ep: Iterable[int]) -> list[tuple[int, int, int]]:
    """(experts, n, k) of every product of experts.

    Args:
        model: whose experts.
        tp: numbers of devices that each have a part of every expert.
        ep: numbers of devices that each have some experts whole; those that do not divide the
            experts are left out.
    """
    shapes = [
        (model.experts, *shape)
        for parts in tp
        for shape in _mlp(model.hidden, model.expert_width // parts)
    ]
    for parts in ep:
        if model.experts % parts == 0:
            whole = _mlp(model.hidden, model.expert_width)
            shapes += [(model.experts // parts, *shape) for shape in whole]
    return sorted({shape for shape in shapes if _has_kernel(*shape[1:])})


def _mlp(hidden: int, width: int) -> list[tuple[int, int]]:
    return [(2 * width, hidden), (hidden, width)]


def _has_kernel(n: int, k: int) -> bool:
    # Rows that TMA cannot address, such as those of a width cut into too many parts, are refused.
    return n > 0 and k > 0 and n % 8 == 0 and k % 16 == 0
