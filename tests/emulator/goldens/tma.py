"""TMA between tensors and shared memory: swizzles, edges, places of the box, multicast."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from goldens.case import ProgramCase, as_bytes, program
from goldens.machines import Launch, Map

UINT8, UINT16, UINT32, FLOAT32, BFLOAT16 = 0, 1, 2, 7, 9
_ELEMENT_BYTES = {UINT8: 1, UINT16: 2, UINT32: 4, FLOAT32: 4, BFLOAT16: 2}
_SWIZZLE = {0: 0, 32: 1, 64: 2, 128: 3}


@dataclass(frozen=True)
class Copy:
    """Boxes of one tensor, one per CTA.

    Attributes:
        dtype: CUtensorMapDataType.
        dims: of the tensor in elements, innermost first.
        box: of one copy.
        swizzle: in bytes.
        first: coordinates of the first CTA's box.
        step: from one CTA's box to the next one's.
        place: of the box in shared memory, after its first kilobyte.
        num_ctas: boxes.
    """

    dtype: int
    dims: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int
    first: tuple[int, ...]
    step: tuple[int, ...]
    place: int = 0
    num_ctas: int = 4

    @property
    def box_bytes(self) -> int:
        return prod(self.box) * _ELEMENT_BYTES[self.dtype]

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes; rows are followed by 16 bytes that belong to no element."""
        pitch = -(-self.dims[0] * _ELEMENT_BYTES[self.dtype] // 16) * 16 + 16
        return tuple(pitch * prod(self.dims[1:i]) for i in range(1, len(self.dims)))

    @property
    def tensor_bytes(self) -> int:
        return self.strides[-1] * self.dims[-1]

    def launch(self, name: str, is_load: bool) -> Launch:
        """The launch of tma_load_* or of a program like tma_store_*."""
        boxes = self.box_bytes * self.num_ctas
        tensor = Map(
            "input" if is_load else "output",
            self.dtype,
            self.dims,
            self.strides,
            self.box,
            _SWIZZLE[self.swizzle],
        )
        pad = (0,) * (3 - len(self.dims))
        return Launch(
            program(name),
            _content(self.tensor_bytes if is_load else boxes, self.dtype),
            boxes if is_load else self.tensor_bytes,
            num_ctas=self.num_ctas,
            num_threads=64,
            smem_bytes=1024 + self.place + self.box_bytes,
            numbers=(
                *(self.box_bytes, *self.first, *pad, *self.step, *pad),
                1024 + self.place,
            ),
            maps=(tensor,),
        )


def _content(num_bytes: int, dtype: int) -> np.ndarray:
    """Numbers that tell where they come from; floats for a reduction stay exact in sums."""
    count = np.arange(num_bytes // _ELEMENT_BYTES[dtype])
    if dtype == FLOAT32:
        return as_bytes((count % 4093).astype(np.float32))
    if dtype == BFLOAT16:
        bits = (count % 120).astype(np.float32).view(np.uint32) >> np.uint32(16)
        return as_bytes(bits.astype(np.uint16))
    kind = f"u{_ELEMENT_BYTES[dtype]}"
    return as_bytes((count + (count >> 8)).astype(kind))


def _case(name: str, variant: str, copy: Copy, awaits: str = "") -> ProgramCase:
    is_load = name.startswith("tma_load")
    return ProgramCase(f"{name}/{variant}", lambda: copy.launch(name, is_load), awaits)


def _loads() -> list[ProgramCase]:
    # Begins before the tensor in both dimensions; the last boxes end behind it.
    edges = Copy(UINT16, (100, 40), (64, 16), 128, (-16, -5), (40, 13))
    cases = [_case("tma_load_2d", "edges_128", edges)]
    for swizzle in (64, 32):
        narrow = replace(edges, box=(swizzle // 2, 16), swizzle=swizzle)
        cases.append(_case("tma_load_2d", f"edges_{swizzle}", narrow))
        moved = replace(narrow, place=384, first=(8, 3))
        cases.append(_case("tma_load_2d", f"moved_{swizzle}", moved))
    moved = replace(edges, place=640, first=(8, 3))
    plain = replace(edges, box=(24, 10), swizzle=0, step=(40, 11))
    far = replace(edges, first=(2000, -300), step=(-960, 155), num_ctas=3)
    cases += [
        _case("tma_load_2d", "moved_128", moved),
        _case("tma_load_2d", "edges_none", plain),
        _case("tma_load_2d", "outside", far),
        _case("tma_load_2d", "bytes", Copy(UINT8, (333, 30), (128, 8), 128, (-32, 0), (144, 9))),
        _case("tma_load_2d", "words", Copy(UINT32, (50, 9), (32, 8), 128, (-4, -2), (16, 3))),
        _case("tma_load_2d", "floats", Copy(FLOAT32, (50, 9), (16, 8), 64, (36, 3), (4, 1))),
    ]
    cube = Copy(UINT16, (40, 7, 5), (32, 4, 3), 64, (-8, -2, -1), (16, 3, 2))
    cases.append(_case("tma_load_3d", "edges_64", cube))
    cases.append(_case("tma_load_3d", "edges_none", replace(cube, swizzle=0, box=(8, 5, 2))))
    return cases


def _stores() -> list[ProgramCase]:
    """No box begins before the tensor, rows are multiples of 16 bytes, and no two boxes overlap."""
    edges = Copy(UINT16, (104, 40), (64, 16), 128, (0, 1), (64, 17), num_ctas=3)
    cases = []
    for swizzle in (128, 64, 32):
        width = replace(edges, box=(swizzle // 2, 16), swizzle=swizzle, step=(64, 13))
        cases.append(_case("tma_store_2d", f"edges_{swizzle}", width))
        cases.append(_case("tma_store_2d", f"moved_{swizzle}", replace(width, place=896)))
    plain = replace(edges, box=(24, 10), swizzle=0, step=(48, 15))
    cube = Copy(UINT16, (40, 7, 5), (32, 4, 3), 64, (0, 1, 0), (16, 2, 3), num_ctas=2)
    cases += [
        _case("tma_store_2d", "edges_none", plain),
        _case("tma_store_2d", "bf16", replace(edges, dtype=BFLOAT16)),
        _case("tma_store_3d", "edges_64", cube),
    ]
    # Sums that overlap are exact, so that their order does not matter.
    overlapping = Copy(UINT32, (40, 20), (32, 8), 128, (0, 0), (4, 5))
    for name, dtype in (("u32", UINT32), ("f32", FLOAT32)):
        reduce = replace(overlapping, dtype=dtype)
        cases.append(_case("tma_reduce_add", name, reduce, "TMA reductions"))
    bf16 = replace(overlapping, dtype=BFLOAT16, dims=(80, 20), box=(64, 8), step=(8, 5))
    cases.append(_case("tma_reduce_add", "bf16", bf16, "TMA reductions"))
    return cases


def _multicast() -> Launch:
    copy = Copy(UINT8, (144, 60), (128, 16), 128, (0, 0), (0, 16))
    launch = copy.launch("tma_load_2d", is_load=True)
    return replace(
        launch,
        ptx=program("tma_multicast"),
        output_bytes=4 * 2 * copy.box_bytes,
        cluster_size=2,
        num_threads=32,
        smem_bytes=1024 + 2 * copy.box_bytes,
        numbers=(copy.box_bytes, 16),
    )


CASES = [*_loads(), *_stores(), ProgramCase("tma_multicast", _multicast)]
