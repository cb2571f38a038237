"""Operands of grouped products: whose rows are whose, values that give exact sums, and poison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from deep_gemm import align, ceil_div, per_block_cast_to_fp8, per_token_cast_to_fp8

Operand = tuple[torch.Tensor, torch.Tensor]

PADDING = -1
"""A row that belongs to no group and becomes zero."""

UNTOUCHED = -2
"""A row that belongs to no group and must not be written."""


@dataclass(frozen=True)
class Layout:
    """Whose rows are whose in a contiguous problem.

    Attributes:
        grouped_layout: int32, what the call is given, on the CPU.
        row_groups: [m] int32: each row's group, PADDING or UNTOUCHED, on the CPU.
        num_groups: groups that B has.
        alignment: rows to a multiple of which groups begin.
        options: the call's other arguments.
    """

    grouped_layout: torch.Tensor
    row_groups: torch.Tensor
    num_groups: int
    alignment: int
    options: Mapping[str, object] = field(default_factory=dict)


def row_ids(
    segments: Sequence[tuple[int, int]],
    alignment: int,
    num_groups: int | None = None,
    m: int | None = None,
) -> Layout:
    """A row carries its group's id.

    Args:
        segments: (group, rows) in their order; each is padded, and group PADDING is all padding.
        alignment: of the segments' first rows.
        num_groups: as many as the ids ask for by default.
        m: cuts the rows off, so that the last padding may be partial.
    """
    rows = []
    for group, size in segments:
        rows += [group] * size + [PADDING] * (align(size, alignment) - size)
    ids = torch.tensor(rows[:m], dtype=torch.int32)
    groups = num_groups or max(group for group, _ in segments) + 1
    return Layout(ids, ids, groups, alignment)


def of_ends(
    ends: Sequence[int], alignment: int, m: int | None = None, clears_padding: bool = True
) -> Layout:
    """A group is given by the row behind its last one, and begins where the last ended, aligned."""
    rows = align(ends[-1], alignment) if m is None else m
    row_groups = torch.full((rows,), UNTOUCHED, dtype=torch.int32)
    before = 0
    for group, end in enumerate(ends):
        first = align(before, alignment)
        row_groups[first:end] = group
        if clears_padding:
            row_groups[max(first, end) : align(max(first, end), alignment)] = PADDING
        before = end
    options = {"use_psum_layout": True, "ensure_zero_padding": clears_padding}
    layout = torch.tensor(ends, dtype=torch.int32)
    return Layout(layout, row_groups, len(ends), alignment, options)


def row_ends(
    sizes: Sequence[int], alignment: int, behind: int = 0, clears_padding: bool = True
) -> Layout:
    """The same for groups of these sizes, with `behind` rows that belong to nobody at the end."""
    ends: list[int] = []
    for size in sizes:
        ends.append(align(ends[-1], alignment) + size if ends else size)
    return of_ends(ends, alignment, align(ends[-1], alignment) + behind, clears_padding)


def generator_of(device: str, seed: int) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


def exact_operand(shape: Sequence[int], gran_mn: int, device: str, seed: int = 0) -> Operand:
    """Values of +-1 and +-2 and scale factors that are powers of two: every sum is exact.

    Args:
        shape: [.., rows, k].
        gran_mn: rows per scale factor.
        device: where to make it.
        seed: of the values.
    """
    generator = generator_of(device, seed)
    *batch, rows, k = shape
    data = torch.randint(
        0, 256, tuple(shape), device=device, dtype=torch.uint8, generator=generator
    )
    # Sign, and an exponent of 0 or 1 in e4m3, made in place: operands may be of many GB.
    data.bitwise_and_(0x88).add_(0x38)
    sf_shape = (*batch, ceil_div(rows, gran_mn), ceil_div(k, 128))
    powers = torch.randint(-2, 3, sf_shape, device=device, generator=generator)
    return data.view(torch.float8_e4m3fn), powers.float().exp2()


def random_operand(shape: Sequence[int], gran_mn: int, device: str, seed: int = 0) -> Operand:
    """Normal values, quantised by our casts; the arguments are those of `exact_operand`."""
    *batch, rows, k = shape
    generator = generator_of(device, seed)
    parts = []
    for _ in range(math.prod(batch)):
        x = torch.randn(rows, k, device=device, dtype=torch.bfloat16, generator=generator)
        cast = per_token_cast_to_fp8 if gran_mn == 1 else per_block_cast_to_fp8
        parts.append(cast(x, use_ue8m0=False))
    data = torch.stack([part[0].view(torch.uint8) for part in parts])
    sf = torch.stack([part[1] for part in parts])
    return data.view(tuple(shape)).view(torch.float8_e4m3fn), sf.view(*batch, *sf.shape[1:])


def flat_operand(rows: int, ks: Sequence[int], device: str, seed: int = 0) -> Operand:
    """An exact operand of a k-grouped product: each group's [rows, k], one behind the other."""
    data, _ = exact_operand((1, rows * sum(ks)), 1, device, seed)
    generator = generator_of(device, seed + 1)
    powers = torch.randint(-2, 3, (rows, sum(ks) // 128), device=device, generator=generator)
    return data.view(-1), powers.float().exp2()


POISONS = ("nan", "infinity", "garbage")


def poison(operand: Operand, rows: torch.Tensor, kind: str = "nan") -> Operand:
    """Fills rows that nobody may look at.

    Args:
        operand: data [.., rows, k] and sf [.., rows, k blocks]; changed in place.
        rows: [.., rows] bool.
        kind: of POISONS.
    """
    data, sf = operand
    generator = generator_of(data.device.type, 7)
    rows = rows.to(data.device)
    raw, bits = data.view(torch.uint8), sf.view(torch.int32)
    if kind == "garbage":
        for tensor, low, high in ((raw, 0, 2**8), (bits, -(2**31), 2**31 - 1)):
            noise = torch.randint(
                *(low, high, tensor.shape),
                dtype=tensor.dtype,
                device=tensor.device,
                generator=generator,
            )
            tensor.copy_(torch.where(rows[..., None], noise, tensor))
    else:
        raw[rows] = {"nan": 0x7F, "infinity": 0x7E}[kind]
        sf[rows] = {"nan": math.nan, "infinity": math.inf}[kind]
    return operand


def sf_layouts(sf: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same scale factors [.., rows, k blocks] in every layout that callers hand in.

    What lies between them is NaN. "MN-major" is not aligned unless the rows happen to be.
    """
    *batch, rows, num_k_blocks = sf.shape

    def mn_major(stored_rows: int) -> torch.Tensor:
        storage = torch.full((*batch, num_k_blocks, stored_rows), math.nan, device=sf.device)
        return storage.transpose(-1, -2)[..., :rows, :].copy_(sf)

    wide = torch.full((*batch, rows + 5, 2 * num_k_blocks + 7), math.nan, device=sf.device)
    return {
        "row-major": sf,
        "MN-major": mn_major(rows),
        "MN-major aligned": mn_major(align(rows, 4)),
        "MN-major padded": mn_major(align(rows, 4) + 8),
        "sliced": wide[..., 2 : 2 + rows, 3 : 3 + 2 * num_k_blocks : 2].copy_(sf),
    }


def transposed(operand: Operand) -> Operand:
    """The operand as it is stored the other way round: contiguous columns, [.., k, rows]."""
    data, sf = operand
    raw = data.view(torch.uint8).transpose(-1, -2).contiguous()
    return raw.view(data.dtype), sf.transpose(-1, -2).contiguous()
