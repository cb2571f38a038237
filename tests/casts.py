"""Cases of the casting kernels, and the checks that each of them passes on any device."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

from deep_gemm.quantizers import (
    quantize_per_block,
    quantize_per_channel,
    quantize_per_token,
    quantize_silu_mul,
    quantize_swiglu,
)
from deep_gemm.testing.quantize_reference import cast_blocks_reference, silu_mul_reference
from deep_gemm.utils.math import align, ceil_div, pack_ue8m0_to_int
from tests.transposes import random_bits

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
DTYPES = (BF16, FP16, FP32)
GUARD = 0xA5
GUARD_ROWS = 8

BITS, SPECIAL, NORMAL = "bits", "special", "normal"
"""Kinds of values: every bit at random, rows of one odd kind each, and an activation's."""


@dataclass(frozen=True)
class Case:
    """An input [m, n] and the scale factors that it is to get.

    Attributes:
        m, n: of the matrix.
        dtype: of the input.
        values: their kind.
        use_ue8m0, use_packed_ue8m0, gran_k, mn_major: as in `quantize_per_token`.
        gap: elements behind each row of the input.
        offset: elements before its first.
        out_gap: bytes behind each row of data.
        out_offset: bytes before its first.
    """

    m: int
    n: int
    dtype: torch.dtype = BF16
    values: str = NORMAL
    use_ue8m0: bool = False
    use_packed_ue8m0: bool = False
    gran_k: int = 128
    mn_major: bool = True
    gap: int = 0
    offset: int = 0
    out_gap: int = 0
    out_offset: int = 0

    def __str__(self) -> str:
        flags = "".join(
            word
            for word, flag in (
                ("-ue8m0", self.use_ue8m0),
                ("-packed", self.use_packed_ue8m0),
                ("-mn", self.mn_major),
            )
            if flag
        )
        places = f"{self.gap},{self.offset},{self.out_gap},{self.out_offset}"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.m}x{self.n}-{dtype}-{self.values}-{self.gran_k}{flags}-{places}"

    @property
    def formats(self) -> dict[str, bool]:
        """The scale factors' format, as keyword arguments."""
        return {"use_ue8m0": self.use_ue8m0, "use_packed_ue8m0": self.use_packed_ue8m0}

    def input(self, device: str, seed: int = 0) -> torch.Tensor:
        """[m, n], in a buffer of NaN."""
        step = self.n + self.gap
        buffer = torch.full((self.offset + self.m * step + 16,), math.nan, device=device)
        buffer = buffer.to(self.dtype)
        x = buffer.as_strided((self.m, self.n), (step, 1), self.offset)
        return x.copy_(values(self.values, self.m, self.n, self.dtype, device, seed))


def values(
    kind: str, m: int, n: int, dtype: torch.dtype, device: str, seed: int = 0
) -> torch.Tensor:
    """A matrix of the kind."""
    if kind == BITS:
        return random_bits(m * n * dtype.itemsize, device, seed).view(dtype).view(m, n)
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.randn(m, n, generator=generator, device=device)
    if kind == NORMAL:
        sizes = torch.randn(m, 1, generator=generator, device=device).exp2()
        return (x * sizes).to(dtype)
    x = x.to(dtype)
    rows = specials(dtype)
    for i in range(m):
        row = torch.tensor(rows[i % len(rows)], device=device, dtype=torch.float64).to(dtype)
        where = torch.arange(i % 3, n, 3 + i % 5, device=device)
        x[i, where] = row.repeat(ceil_div(len(where), len(row)))[: len(where)]
    return x


def specials(dtype: torch.dtype) -> list[list[float]]:
    """What a row is strewn with: one odd kind of number each."""
    info = torch.finfo(dtype)
    subnormal = info.smallest_normal * info.eps
    return [
        [0.0, -0.0],
        [math.inf],
        [-math.inf, 1.0],
        [math.nan],
        [math.inf, -math.inf, math.nan],
        [info.max, -info.max],
        [info.max, math.inf],
        [info.smallest_normal, -info.smallest_normal / 2],
        [subnormal, -3 * subnormal],
        [448.0, 464.0, 17.0, 19.0, 2.0**-9, 3 * 2.0**-10, 2.0**-10],
        [1e-4, -1e-4],
        [5e-5, 3e-8],
    ]


def expected(x: torch.Tensor, case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition's data and scale factors, packed if the case says so."""
    data, sf = cast_blocks_reference(x, 1, case.gran_k, case.use_ue8m0)
    if case.use_packed_ue8m0:
        sf = pack_ue8m0_to_int(torch.nn.functional.pad(sf, (0, -sf.shape[1] % 4)))
    return data, sf


@dataclass
class Guarded:
    """An output in a buffer of guard bytes, and what the buffer is to be in the end."""

    view: torch.Tensor
    buffer: torch.Tensor
    wanted: torch.Tensor

    def expect(self, result: torch.Tensor, rows: torch.Tensor | None = None) -> None:
        """What is to be written: all of the view, or these of its rows (flat, of all groups)."""
        place = self.view.stride(), self.view.storage_offset()
        wanted = self.wanted.view(result.dtype).as_strided(self.view.shape, *place)
        if rows is None:
            wanted.copy_(result)
            return
        bits = {1: torch.uint8, 4: torch.int32}[result.element_size()]
        rows = rows.to(result.device)
        width = self.view.shape[-2]
        index = (rows // width, rows % width) if self.view.dim() == 3 else (rows,)
        wanted.view(bits)[index] = result.view(bits)[index]

    def check(self, what: str) -> None:
        """The buffer is as expected, to the bit."""
        differs = (self.buffer != self.wanted).nonzero()
        assert not len(differs), f"{what}: {len(differs)} bytes differ, first {int(differs[0])}"


def guarded(
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: torch.dtype,
    device: str,
    offset: int = 0,
) -> Guarded:
    """An output of these strides with guard bytes around and between."""
    offset += GUARD_ROWS * 16
    last = sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    num_bytes = align((offset + last + GUARD_ROWS * 16) * dtype.itemsize, 16)
    buffer = torch.full((num_bytes,), GUARD, dtype=torch.uint8, device=device)
    view = buffer.view(dtype).as_strided(shape, strides, offset)
    return Guarded(view, buffer, buffer.clone())


def outputs(
    shape: tuple[int, ...], sf_columns: int, case: Case, device: str
) -> tuple[Guarded, Guarded]:
    """Guarded data and scale factors for an input [.., m, n]."""
    m, n = shape[-2:]
    step = n + case.out_gap
    data_strides = (m * step, step, 1)[-len(shape) :]
    data = guarded(shape, data_strides, torch.float8_e4m3fn, device, case.out_offset)
    column = align(m, 4)
    strides = (column * sf_columns, 1, column) if case.mn_major else (m * sf_columns, sf_columns, 1)
    dtype = torch.int32 if case.use_packed_ue8m0 else torch.float32
    sf = guarded((*shape[:-1], sf_columns), strides[-len(shape) :], dtype, device)
    return data, sf


def check_per_token(case: Case, device: str) -> None:
    """Data and scale factors are right to the bit, and not a byte beside them has changed."""
    x = case.input(device)
    wanted = expected(x, case)
    data, sf = outputs((case.m, case.n), wanted[1].shape[1], case, device)
    options = {"gran_k": case.gran_k, "out": (data.view, sf.view), **case.formats}
    quantize_per_token(x, **options)
    for out, result, what in zip((data, sf), wanted, ("data", "scale factors"), strict=True):
        out.expect(result)
        out.check(what)


def check_blocks(case: Case, per_channel: bool, device: str, batch: int = 1) -> None:
    """The same for scale factors that span rows; of a batch, each matrix is cast for itself."""
    xs = torch.stack([case.input(device, seed) for seed in range(batch)])
    x = xs if batch > 1 else case.input(device)
    blocks = (128, 1 if per_channel else 128)
    matrices = xs if batch > 1 else x[None]
    results = [cast_blocks_reference(matrix, *blocks, case.use_ue8m0) for matrix in matrices]
    wanted = [torch.stack([pair[i].view(torch.uint8) for pair in results]) for i in (0, 1)]
    wanted = [t.view(d) for t, d in zip(wanted, (torch.float8_e4m3fn, FP32), strict=True)]
    if batch == 1:
        wanted = [result[0] for result in wanted]
    data, _ = outputs(tuple(x.shape), 1, case, device)
    rows, columns = wanted[1].shape[-2:]
    step = align(columns, 4) if case.mn_major else columns
    sf = guarded(tuple(wanted[1].shape), (rows * step, step, 1)[-x.dim() :], FP32, device)
    cast = quantize_per_channel if per_channel else quantize_per_block
    cast(x, use_ue8m0=case.use_ue8m0, out=(data.view, sf.view))
    for out, result, what in zip((data, sf), wanted, ("data", "scale factors"), strict=True):
        out.expect(result)
        out.check(what)


MASKED, ROW_IDS, ROW_ENDS = "masked", "row_ids", "row_ends"


@dataclass(frozen=True)
class Groups:
    """Rows in groups.

    Attributes:
        layout: MASKED, ROW_IDS or ROW_ENDS.
        sizes: rows of each group.
        alignment: of the rows at which groups begin; or m_max.
        behind: rows behind the last group.
    """

    layout: str
    sizes: tuple[int, ...]
    alignment: int
    behind: int = 0

    def __str__(self) -> str:
        some = "_".join(map(str, self.sizes[:8]))
        return f"{self.layout}-{len(self.sizes)}-{some}-{self.alignment}-{self.behind}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the rows: [groups, m_max] or [m]."""
        if self.layout == MASKED:
            return (len(self.sizes), self.alignment)
        return (sum(align(size, self.alignment) for size in self.sizes) + self.behind,)

    def rows(self) -> torch.Tensor:
        """Numbers of the rows that are to be cast, counted over all groups."""
        firsts, first = [], 0
        for size in self.sizes:
            firsts.append(first)
            first += self.alignment if self.layout == MASKED else align(size, self.alignment)
        ranges = zip(firsts, self.sizes, strict=True)
        return torch.cat([torch.arange(first, first + size) for first, size in ranges])

    def argument(self, device: str) -> dict[str, torch.Tensor | bool]:
        """What the call is told."""
        if self.layout == MASKED:
            masked_m = torch.tensor(self.sizes, dtype=torch.int32, device=device)
            return {"masked_m": masked_m}
        rows = self.rows()
        if self.layout == ROW_IDS:
            ids = torch.full(self.shape, -1, dtype=torch.int32)
            ids[rows] = torch.arange(len(rows), dtype=torch.int32) // 7
            return {"grouped_layout": ids.to(device)}
        ends, first = [], 0
        for size in self.sizes:
            ends.append(first + size)
            first += align(size, self.alignment)
        layout = torch.tensor(ends, dtype=torch.int32, device=device)
        return {"grouped_layout": layout, "use_psum_layout": True}


def check_groups(groups: Groups, case: Case, device: str, fused: bool = False) -> None:
    """Rows of groups are right to the bit, and nothing else is written, whatever lies there."""
    rows = groups.rows()
    count = torch.Size(groups.shape).numel()
    width = 2 * case.n if fused else case.n
    x = torch.full((count, width), math.nan, dtype=case.dtype, device=device)
    x[rows.to(device)] = values(case.values, len(rows), width, case.dtype, device)
    if fused:
        # Where the exponential does not matter, every device gives the same bits.
        x[:, : case.n] = 20 + x[:, : case.n].abs()
    y = silu_mul_reference(*x.chunk(2, dim=1)) if fused else x
    wanted = expected(y, case)
    shape = (*groups.shape, case.n)
    data, sf = outputs(shape, wanted[1].shape[1], case, device)
    cast = quantize_swiglu if fused else quantize_per_token
    options = {**case.formats, **groups.argument(device), "gran_k": case.gran_k}
    cast(x.view(*groups.shape, width), out=(data.view, sf.view), **options)
    for out, result, what in zip((data, sf), wanted, ("data", "scale factors"), strict=True):
        out.expect(result.view(out.view.shape), rows)
        out.check(what)


def check_silu_mul(case: Case, device: str, clamp: float | None, exact: bool) -> None:
    """SiLU(gate) * up: to the bit where the exponential does not matter, or the device is one.

    Args:
        case: of gate, and of up.
        device: where.
        clamp: as in `quantize_silu_mul`.
        exact: gates may be anything, and the bits must be those of PyTorch on the device.
    """
    gate, up = case.input(device), replace(case, gap=case.gap + 8).input(device, seed=1)
    if not exact:
        far = torch.where(gate > 0, 18 + gate, -104 * (1 + gate.abs()))
        gate = torch.where(gate.isnan() | (gate == 0), gate, far.to(case.dtype))
    wanted = expected(silu_mul_reference(gate, up, clamp), case)
    data, sf = outputs((case.m, case.n), wanted[1].shape[1], case, device)
    options = {"gran_k": case.gran_k, "clamp": clamp, **case.formats}
    quantize_silu_mul(gate, up, out=(data.view, sf.view), **options)
    for out, result, what in zip((data, sf), wanted, ("data", "scale factors"), strict=True):
        out.expect(result)
        out.check(what)


def _formats() -> list[dict[str, bool]]:
    return [{}, {"use_ue8m0": True}, {"use_ue8m0": True, "use_packed_ue8m0": True}]


VALUES = [
    Case(24, 257, dtype, kind, **formats)
    for dtype in DTYPES
    for kind in (BITS, SPECIAL)
    for formats in _formats()
]

TAILS = [
    *(Case(m, n, BF16) for m in (1, 3, 4, 5) for n in (1, 7, 8, 9, 127, 128, 129, 255, 256, 520)),
    *(Case(5, n, FP32, mn_major=False) for n in (1, 3, 4, 5, 127, 128, 129, 132, 300)),
    *(Case(5, n, FP16, gran_k=32, **_formats()[2]) for n in (1, 31, 32, 33, 128, 160, 1025)),
    *(Case(5, n, FP32, gran_k=64, **_formats()[2]) for n in (1, 63, 64, 65, 300)),
    *(Case(5, n, BF16, mn_major=False, **_formats()[2]) for n in (1, 128, 384, 512, 513, 1100)),
    Case(9, 300, BF16, gran_k=64),
    Case(9, 300, FP32, gran_k=32, mn_major=False),
]

PLACES = [
    Case(6, 264, BF16, gap=8, out_gap=8),
    Case(6, 264, BF16, gap=1, out_gap=3),
    Case(6, 264, FP16, offset=1),
    Case(6, 264, FP32, offset=3, out_offset=5),
    Case(6, 264, FP32, gap=4, out_gap=4, out_offset=4),
    Case(6, 264, BF16, offset=8, out_offset=4),
]

BLOCKS = [
    *(Case(130, n, dtype) for dtype in DTYPES for n in (1, 9, 127, 128, 260)),
    *(Case(m, 132, BF16, use_ue8m0=True) for m in (1, 127, 128, 129)),
    *(
        Case(30, 140, dtype, kind, u)
        for dtype in DTYPES
        for kind in (BITS, SPECIAL)
        for u in (0, 1)
    ),
    Case(40, 133, BF16, gap=3, out_gap=1),
    Case(40, 133, FP32, offset=1, out_offset=3, mn_major=False),
    Case(40, 136, FP16, gap=8, out_gap=8),
]

GROUPS = [
    Groups(MASKED, (0, 5, 1, 16, 3), 16),
    Groups(MASKED, (0, 0), 4),
    Groups(MASKED, tuple(i % 3 for i in range(35)), 2),
    Groups(ROW_IDS, (5, 0, 16, 1), 16, behind=21),
    Groups(ROW_IDS, (3, 2, 1), 1),
    Groups(ROW_IDS, (0,), 16, behind=40),
    Groups(ROW_ENDS, (5, 0, 16, 1), 16, behind=21),
    Groups(ROW_ENDS, (3, 2, 0, 1), 1, behind=3),
    Groups(ROW_ENDS, tuple(i % 3 for i in range(40)), 1),
]
