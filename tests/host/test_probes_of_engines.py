"""What engines find out about us before they call anything: each probe as the engine makes it, and
what it must say while BF16, indexers and Mega MoE do not exist here."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable

import pytest

import deep_gemm
from tests.fake_engines import SCENARIOS


def has(*names: str) -> bool:
    return all(callable(getattr(deep_gemm, name, None)) for name in names)


def imports(*names: str) -> bool:
    """`from deep_gemm import ..`, with the names that may come with a module."""
    for name in names:
        module, _, attribute = name.rpartition(".")
        found = importlib.import_module(f"deep_gemm.{module}" if module else "deep_gemm")
        if not hasattr(found, attribute):
            return False
    return True


VLLM = """
    fp8_gemm_nt m_grouped_fp8_gemm_nt_contiguous m_grouped_fp8_fp4_gemm_nt_contiguous
    m_grouped_fp8_gemm_nt_masked transform_sf_into_required_layout get_mn_major_tma_aligned_tensor
    get_mn_major_tma_aligned_packed_ue8m0_tensor get_mk_alignment_for_contiguous_layout
    get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor get_num_sms set_num_sms
    get_theoretical_mk_alignment_for_contiguous_layout set_mk_alignment_for_contiguous_layout
"""
RTP_LLM = """
    fp8_gemm_nt m_grouped_fp8_gemm_nt_contiguous m_grouped_fp8_gemm_nt_masked bf16_gemm_nt
    m_grouped_bf16_gemm_nt_contiguous m_grouped_bf16_gemm_nt_masked fp8_fp4_gemm_nt
    m_grouped_fp8_fp4_gemm_nt_contiguous m_grouped_fp8_fp4_gemm_nt_masked
    fp8_fp4_paged_mqa_logits per_token_cast_to_fp4 cast_back_from_fp4 transpose_packed_fp4
"""
TRANSFORMERS = """
    fp8_fp4_gemm_nt m_grouped_fp8_fp4_gemm_nt_contiguous m_grouped_fp8_fp4_gemm_nn_contiguous
    m_grouped_bf16_gemm_nt_contiguous m_grouped_bf16_gemm_nn_contiguous
    transform_sf_into_required_layout transform_weights_for_mega_moe get_symm_buffer_for_mega_moe
    get_mk_alignment_for_contiguous_layout fp8_fp4_mega_moe
"""


def vllm_may_use_it(block: int = 128) -> bool:
    """Only for models whose blocks are as long as the alignment, compared as lists of ints."""
    alignment = deep_gemm.get_mk_alignment_for_contiguous_layout()
    return [alignment, alignment] == [block, block]


def vllm_takes_two_arguments() -> bool:
    """What the alignment takes, by a TypeError."""
    try:
        deep_gemm.get_theoretical_mk_alignment_for_contiguous_layout(64, 8)
    except TypeError:
        return False
    return True


# Each probe, and what it must say.
PROBES: dict[str, tuple[Callable[[], bool], bool]] = {
    "vLLM: GEMMs and layouts": (lambda: has(*VLLM.split()), True),
    "vLLM: blocks of 128": (vllm_may_use_it, True),
    "vLLM: blocks of 64": (lambda: vllm_may_use_it(64), False),
    "vLLM: alignment for so many groups": (vllm_takes_two_arguments, True),
    "vLLM: sparse indexers": (lambda: has("fp8_fp4_sparse_mqa_logits"), False),
    "vLLM: hyperconnections in one kernel": (lambda: has("mega_mhc"), False),
    "vLLM: a gate in one kernel": (lambda: has("bf16_mega_gate"), False),
    "vLLM: cuBLASLt": (lambda: has("cublaslt_gemm_nt"), False),
    "vLLM 0.10: new names": (
        lambda: has(
            "fp8_gemm_nt", "m_grouped_fp8_gemm_nt_contiguous", "fp8_m_grouped_gemm_nt_masked"
        ),
        True,
    ),
    "SGLang: layouts": (
        lambda: imports(
            "utils.layout.get_mn_major_tma_aligned_tensor",
            "utils.layout.get_mn_major_tma_aligned_packed_ue8m0_tensor",
            "utils.align",
            "utils.get_tma_aligned_size",
            "utils.per_block_cast_to_fp8",
        ),
        True,
    ),
    "SGLang: compiling without launching": (
        lambda: has("get_compile_mode") and has("set_compile_mode"),
        False,
    ),
    "SGLang: Mega MoE": (lambda: has("fp8_fp4_mega_moe"), False),
    "lmdeploy": (
        lambda: imports("ceil_div", "get_m_alignment_for_contiguous_layout", "fp8_gemm_nt"),
        True,
    ),
    "lightllm": (lambda: imports("jit_kernels.utils.set_num_sms", "ceil_div"), True),
    "rtp-llm: everything, when it is imported": (lambda: has(*RTP_LLM.split()), False),
    "rtp-llm: its FP8 GEMMs": (lambda: has(*RTP_LLM.split()[:3]), True),
    "transformers: everything, when it is loaded": (lambda: has(*TRANSFORMERS.split()), False),
    "Megatron-LM: batch-invariant BF16": (
        lambda: (
            hasattr(deep_gemm, "m_grouped_bf16_gemm_nt_contiguous")
            and hasattr(deep_gemm, "k_grouped_bf16_gemm_tn_contiguous")
            and hasattr(deep_gemm, "bf16_gemm_nn")
        ),
        False,
    ),
    "slime: BF16": (lambda: has("bf16_gemm_nn", "m_grouped_bf16_gemm_nt_contiguous"), False),
    "slime: its fork's batch invariance": (lambda: has("set_batch_invariant"), True),
    "FlashInfer: Mega MoE": (lambda: imports("get_symm_buffer_for_mega_moe"), False),
    "torchao: forwards": (
        lambda: (
            has("m_grouped_fp8_gemm_nt_contiguous") or has("m_grouped_fp8_fp4_gemm_nt_contiguous")
        ),
        True,
    ),
    "torchao, prime-rl: backwards on SM90": (lambda: has("k_grouped_fp8_gemm_nt_contiguous"), True),
    "prime-rl: backwards on SM100": (lambda: has("k_grouped_fp8_gemm_tn_contiguous"), True),
    "prime-rl: a version": (lambda: isinstance(deep_gemm.__version__, str), True),
}


@pytest.mark.parametrize("probe", PROBES)
def test_probe(probe: str) -> None:
    ask, answer = PROBES[probe]
    assert ask() is answer


def test_signatures_can_be_read_where_engines_read_them() -> None:
    """TensorRT-LLM asks the cast's: a builtin would raise ValueError."""
    parameters = inspect.signature(deep_gemm.per_token_cast_to_fp8).parameters
    assert {"use_ue8m0", "use_packed_ue8m0"} <= set(parameters)


def test_every_consumer_of_fp8_gemms_has_a_scenario() -> None:
    consumers = {
        *("vLLM 0.33", "vLLM 0.20", "vLLM 0.14", "vLLM 0.10", "vLLM 0.9"),
        *("SGLang 0.5.23", "SGLang 0.5.3", "SGLang 0.4.9"),
        *("TensorRT-LLM", "lmdeploy", "rtp-llm", "lightllm", "transformers"),
        *("torchao", "prime-rl", "verl"),
    }
    assert consumers <= {scenario.engine for scenario in SCENARIOS}
    names = [str(scenario) for scenario in SCENARIOS]
    assert len(names) == len(set(names))
