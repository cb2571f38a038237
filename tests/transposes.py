"""Cases of the transposing kernel, and the check that each of them passes on any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from deep_gemm.kernels.transpose import transpose

GUARD_BYTES = 4096
GUARD = 0xA5


@dataclass(frozen=True)
class Case:
    """A source [*batch, rows, columns], and how it and its transpose lie in memory.

    Attributes:
        itemsize: bytes of an element, 1 or 4.
        rows, columns: of the source.
        strides: of the source's rows and columns, in elements.
        out_stride: elements from row to row of the output.
        batch: matrices, in three dimensions; 0 for two dimensions.
        batch_gaps: elements behind each matrix of the source, and of the output.
        offsets: elements before the first of the source, and before the first of the output.
    """

    itemsize: int
    rows: int
    columns: int
    strides: tuple[int, int]
    out_stride: int
    batch: int = 0
    batch_gaps: tuple[int, int] = (0, 0)
    offsets: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        batch = f"{self.batch}x" if self.batch else ""
        strides = ",".join(map(str, (*self.strides, self.out_stride, *self.batch_gaps)))
        return f"{self.itemsize}B-{batch}{self.rows}x{self.columns}-{strides}-{self.offsets}"


def packed(itemsize: int, rows: int, columns: int, **others: int) -> Case:
    """A row-major source whose rows, and those of the output, are whole multiples of 16 bytes."""
    vector = 16 // itemsize
    strides = (-(-columns // vector) * vector, 1)
    return Case(itemsize, rows, columns, strides, -(-rows // vector) * vector, **others)


EDGES = [
    *(packed(itemsize, n, 34 - n) for itemsize in (1, 4) for n in range(1, 34)),
    *(packed(1, rows, columns) for rows in (127, 128, 129) for columns in (127, 128, 129)),
    *(packed(4, rows, columns) for rows in (127, 128, 129) for columns in (31, 32, 33)),
    packed(1, 1, 300),
    packed(1, 300, 1),
    packed(4, 1, 100),
    packed(4, 300, 1),
]

LAYOUTS = [
    # gaps of whole vectors, then odd ones
    Case(1, 70, 150, (176, 1), 96),
    Case(4, 70, 50, (56, 1), 76),
    Case(1, 70, 150, (151, 1), 80),
    Case(1, 70, 150, (160, 1), 71),
    Case(4, 70, 50, (51, 1), 72),
    Case(4, 70, 50, (52, 1), 70),
    # addresses that are no multiples of 16 bytes
    Case(1, 64, 64, (64, 1), 64, offsets=(1, 0)),
    Case(1, 64, 64, (64, 1), 64, offsets=(0, 7)),
    Case(4, 64, 64, (64, 1), 64, offsets=(3, 0)),
    Case(4, 64, 64, (64, 1), 64, offsets=(0, 1)),
    # neither dimension contiguous, rows contiguous, the same row again and again
    Case(4, 40, 37, (90, 2), 40),
    Case(4, 40, 37, (96, 2), 40),
    Case(1, 40, 37, (96, 2), 48),
    Case(4, 41, 37, (1, 41), 44),
    Case(4, 40, 36, (0, 1), 40),
    Case(1, 40, 37, (90, 2), 48),
    # batches: aligned, with gaps, with odd gaps, of nothing but one element each
    Case(1, 130, 144, (144, 1), 144, batch=3),
    Case(4, 130, 36, (36, 1), 132, batch=3),
    Case(1, 20, 48, (48, 1), 32, batch=5, batch_gaps=(16, 48)),
    Case(1, 20, 48, (48, 1), 32, batch=5, batch_gaps=(3, 0)),
    Case(4, 20, 48, (48, 1), 20, batch=5, batch_gaps=(0, 2)),
    Case(4, 1, 1, (1, 1), 1, batch=7),
    Case(1, 33, 65, (80, 1), 48, batch=1, batch_gaps=(5, 5)),
]


def random_bits(num_bytes: int, device: str, seed: int = 0) -> torch.Tensor:
    """Every byte, so NaN of every kind."""
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randint(
        0, 256, (num_bytes,), dtype=torch.uint8, device=device, generator=generator
    )


def check(case: Case, device: str) -> None:
    """The output is right to the bit, and not a byte beside it has changed."""
    dtype = torch.uint8 if case.itemsize == 1 else torch.int32
    batch = (case.batch,) if case.batch else ()
    source_batch = case.rows * case.strides[0] + case.batch_gaps[0]
    shape, strides = (*batch, case.rows, case.columns), (source_batch, *case.strides)
    size = case.offsets[0] + max(case.batch, 1) * source_batch + case.columns * case.strides[1]
    bits = random_bits(size * case.itemsize, device).view(dtype)
    source = bits.as_strided(shape, strides[-len(shape) :], case.offsets[0])

    out_batch = case.columns * case.out_stride + case.batch_gaps[1]
    size = max(case.batch, 1) * out_batch * case.itemsize + 2 * GUARD_BYTES
    buffer = torch.full((size,), GUARD, dtype=torch.uint8, device=device)
    place = (
        (*batch, case.columns, case.rows),
        (out_batch, case.out_stride, 1)[-len(shape) :],
        GUARD_BYTES // case.itemsize + case.offsets[1],
    )
    expected = buffer.clone()
    expected.view(dtype).as_strided(*place).copy_(source.transpose(-1, -2))
    transpose(source, buffer.view(dtype).as_strided(*place))
    differs = (buffer != expected).nonzero()
    assert not len(differs), f"{len(differs)} bytes differ, first {int(differs[0])}"
