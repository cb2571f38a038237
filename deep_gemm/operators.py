"""The library as PyTorch operators, `torch.ops.deep_gemm.*`: what a traced call becomes.

`torch.compile` cannot look into a launch, so while it traces, the functions of this library record
one of these instead; outside of it they do not come by here, because the dispatcher takes some
microseconds. An operator runs the same function, later.

Schemas are flat: an operand is two tensors. What is written is marked, so that a compiler knows the
order of things. Outputs are given, but for casts with classic names and MQA logits, which return
new tensors. Inductor may lay intermediate tensors out anew, which the tag forbids it for ours.
docs/torch_compile.md has the whole story.

The schemas are there from `import deep_gemm` on, as a saved program needs them; what they run is
imported when it is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from deep_gemm.utils.math import ceil_div

Pair = tuple[torch.Tensor, torch.Tensor]
Ints = Sequence[int] | None

# A fragment, since a process may import the package anew, and nothing can be defined twice: the
# operators of the first import then stay.
LIBRARY: Any = torch.library.Library("deep_gemm", "FRAGMENT")  # type: ignore[no-untyped-call]

# The exact strides first: a fixed order alone lets a compiler drop the padding of columns.
TAGS = tuple(
    getattr(torch.Tag, name)
    for name in ("needs_exact_strides", "needs_fixed_stride_order")
    if hasattr(torch.Tag, name)
)[:1]

OPERANDS = "Tensor a, Tensor sfa, Tensor b, Tensor sfb, Tensor(d!) d"
RECIPES = "int[]? recipe, int[]? recipe_a, int[]? recipe_b"
CAST = "Tensor(data!) data, Tensor(sf!) sf"

Function = Callable[..., Any]


def _operator(schema: str, fake: Function = lambda *_: None) -> Callable[[Function], Function]:
    """Registers a function as the operator of a schema.

    Args:
        schema: of the operator, without the library's name.
        fake: what it returns, as tensors without memory; nothing if it only writes.
    """

    def register(function: Function) -> Function:
        name, _, _ = schema.partition("(")
        if hasattr(torch.ops.deep_gemm, name):
            return function
        LIBRARY.define(schema, tags=TAGS)
        # For every device: the functions themselves refuse those that they can't use.
        LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        # Not register_fake, which reads source files to say where it was called: 0.3 ms each.
        LIBRARY.impl(name, fake, "Meta")
        return function

    return register


def _tuple(sizes: Ints) -> tuple[Any, ...] | None:
    return None if sizes is None else tuple(sizes)


@_operator(
    f"fp8_gemm_nt({OPERANDS}, Tensor? c, bool accumulates, {RECIPES}, int[] head_splits) -> ()"
)
def _fp8_gemm_nt(
    a: torch.Tensor,
    sfa: torch.Tensor,
    b: torch.Tensor,
    sfb: torch.Tensor,
    d: torch.Tensor,
    c: torch.Tensor | None,
    accumulates: bool,
    recipe: Ints,
    recipe_a: Ints,
    recipe_b: Ints,
    head_splits: Sequence[int],
) -> None:
    from deep_gemm.gemm import run_gemm

    left, mid, right = head_splits
    recipes = _tuple(recipe), _tuple(recipe_a), _tuple(recipe_b)
    run_gemm((a, sfa), (b, sfb), d, d if accumulates else c, recipes, (left, mid, right))


@_operator(
    f"m_grouped_fp8_gemm_nt({OPERANDS}, Tensor layout, int layout_kind, bool clears_padding, "
    f"SymInt? expected_m, {RECIPES}) -> ()"
)
def _m_grouped_fp8_gemm_nt(
    a: torch.Tensor,
    sfa: torch.Tensor,
    b: torch.Tensor,
    sfb: torch.Tensor,
    d: torch.Tensor,
    layout: torch.Tensor,
    layout_kind: int,
    clears_padding: bool,
    expected_m: int | None,
    recipe: Ints,
    recipe_a: Ints,
    recipe_b: Ints,
) -> None:
    from deep_gemm.grouped_gemm import run_m_grouped
    from deep_gemm.kernels.arguments import GroupedLayout

    recipes = _tuple(recipe), _tuple(recipe_a), _tuple(recipe_b)
    options = GroupedLayout(layout_kind), clears_padding, expected_m, recipes
    run_m_grouped((a, sfa), (b, sfb), d, layout, options)


@_operator(
    f"k_grouped_fp8_gemm({OPERANDS}, Tensor ks, SymInt[]? ks_cpu, Tensor? c, bool accumulates, "
    "int[] recipe, bool is_tn, bool has_ends) -> ()"
)
def _k_grouped_fp8_gemm(
    a: torch.Tensor,
    sfa: torch.Tensor,
    b: torch.Tensor,
    sfb: torch.Tensor,
    d: torch.Tensor,
    ks: torch.Tensor,
    ks_cpu: Ints,
    c: torch.Tensor | None,
    accumulates: bool,
    recipe: Sequence[int],
    is_tn: bool,
    has_ends: bool,
) -> None:
    from deep_gemm.k_grouped_gemm import run_k_grouped

    options = (_tuple(recipe), None, None), is_tn, has_ends
    run_k_grouped((a, sfa), (b, sfb), d, ks, ks_cpu, d if accumulates else c, *options)


@_operator(
    f"quantize_per_token(Tensor x, Tensor? up, {CAST}, bool use_ue8m0, bool use_packed_ue8m0, "
    "int gran_k, bool mn_major, Tensor? masked_m, Tensor? grouped_layout, bool use_psum_layout, "
    "float? clamp) -> ()"
)
def _quantize_per_token(
    x: torch.Tensor,
    up: torch.Tensor | None,
    data: torch.Tensor,
    sf: torch.Tensor,
    use_ue8m0: bool,
    use_packed_ue8m0: bool,
    gran_k: int,
    mn_major: bool,
    masked_m: torch.Tensor | None,
    grouped_layout: torch.Tensor | None,
    use_psum_layout: bool,
    clamp: float | None,
) -> None:
    from deep_gemm.casting import Scaling, Selection, cast_per_token

    scaling = Scaling(use_ue8m0, use_packed_ue8m0, gran_k, mn_major)
    selection = Selection(masked_m, grouped_layout, use_psum_layout)
    cast_per_token(x, scaling, selection, up, clamp, (data, sf))


@_operator(
    f"quantize_blocks(Tensor x, {CAST}, bool use_ue8m0, bool per_channel, bool mn_major) -> ()"
)
def _quantize_blocks(
    x: torch.Tensor,
    data: torch.Tensor,
    sf: torch.Tensor,
    use_ue8m0: bool,
    per_channel: bool,
    mn_major: bool,
) -> None:
    from deep_gemm.casting import cast_blocks

    cast_blocks(x, use_ue8m0, per_channel, mn_major, (data, sf))


def _fake_cast(x: torch.Tensor, rows: int, columns: int, dtype: torch.dtype) -> Pair:
    data = x.new_empty(x.shape, dtype=torch.float8_e4m3fn)
    return data, x.new_empty((rows, columns), dtype=dtype)


def _fake_per_token(x: torch.Tensor, use_ue8m0: bool, gran_k: int, packed: bool) -> Pair:
    m, n = x.shape
    words = ceil_div(n, gran_k * 4 if packed else gran_k)
    return _fake_cast(x, m, words, torch.int32 if packed else torch.float32)


def _fake_per_channel(x: torch.Tensor, use_ue8m0: bool, gran_k: int) -> Pair:
    m, n = x.shape
    return _fake_cast(x, m // gran_k, n, torch.float32)


def _fake_per_block(x: torch.Tensor, use_ue8m0: bool, gran_k: int) -> Pair:
    m, n = x.shape
    return _fake_cast(x, ceil_div(m, gran_k), ceil_div(n, gran_k), torch.float32)


def _fake_per_custom_dims(x: torch.Tensor, dims: Sequence[int], use_ue8m0: bool) -> Pair:
    kept = sorted({dim % x.dim() for dim in dims})
    sizes = [x.shape[dim] for dim in kept if x.shape[dim] != 1]
    data = x.new_empty(x.shape, dtype=torch.float8_e4m3fn)
    return data, x.new_empty(sizes, dtype=torch.float32)


def _cast(name: str) -> Function:
    """A cast with a classic name, which returns new tensors."""

    def cast(*arguments: object) -> Pair:
        from deep_gemm import quantize

        pair: Pair = getattr(quantize, name)(*arguments)
        return pair

    return cast


for _name, _parameters, _fake in (
    ("per_token_cast_to_fp8", "bool use_ue8m0, int gran_k, bool use_packed_ue8m0", _fake_per_token),
    ("per_channel_cast_to_fp8", "bool use_ue8m0, int gran_k", _fake_per_channel),
    ("per_block_cast_to_fp8", "bool use_ue8m0, int gran_k", _fake_per_block),
    ("per_custom_dims_cast_to_fp8", "int[] dims, bool use_ue8m0", _fake_per_custom_dims),
):
    _operator(f"{_name}(Tensor x, {_parameters}) -> (Tensor, Tensor)", _fake)(_cast(_name))


LOGITS = "bool cleans, ScalarType dtype) -> Tensor"


def _fake_mqa_logits(q: torch.Tensor, keys: torch.Tensor, *others: Any) -> torch.Tensor:
    from deep_gemm.mqa_logits import new_logits

    *_, width, _, dtype = others
    return new_logits(q.shape[0], keys.shape[0] if width is None else width, dtype, q.device)


@_operator(
    "mqa_logits(Tensor q, Tensor keys, Tensor key_sf, Tensor weights, Tensor key_starts, "
    f"Tensor key_ends, SymInt? width, {LOGITS}",
    _fake_mqa_logits,
)
def _mqa_logits(*arguments: Any) -> torch.Tensor:
    from deep_gemm.mqa_logits import run_matrix_logits

    *inputs, width, cleans, dtype = arguments
    return run_matrix_logits(tuple(inputs), width, cleans, dtype)


def _fake_paged_mqa_logits(q: torch.Tensor, *others: Any) -> torch.Tensor:
    from deep_gemm.mqa_logits import new_logits

    *_, width, _, dtype = others
    return new_logits(q.shape[0] * q.shape[1], width, dtype, q.device)


@_operator(
    "paged_mqa_logits(Tensor q, Tensor kv_cache, Tensor weights, Tensor context_lens, "
    f"Tensor block_table, Tensor schedule_meta, SymInt width, {LOGITS}",
    _fake_paged_mqa_logits,
)
def _paged_mqa_logits(*arguments: Any) -> torch.Tensor:
    from deep_gemm.mqa_logits import run_paged_logits

    *inputs, width, cleans, dtype = arguments
    return run_paged_logits(tuple(inputs), width, cleans, dtype)


def _fake_metadata(context_lens: torch.Tensor, block_kv: int, num_sms: int) -> torch.Tensor:
    return context_lens.new_empty((num_sms + 1, 2))


@_operator(
    "get_paged_mqa_logits_metadata(Tensor context_lens, int block_kv, int num_sms) -> Tensor",
    _fake_metadata,
)
def _metadata(context_lens: torch.Tensor, block_kv: int, num_sms: int) -> torch.Tensor:
    from deep_gemm.mqa_logits import get_paged_mqa_logits_metadata

    return get_paged_mqa_logits_metadata(context_lens, block_kv, num_sms)
