"""The layouts table: packing of FP32 scale factors into UE8M0, beside torch and a plain copy."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmarks.bandwidth import Calls, copy_of
from deep_gemm import (
    get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor,
    get_mn_major_tma_aligned_packed_ue8m0_tensor,
)
from deep_gemm.testing.numeric import assert_bitwise_equal
from deep_gemm.utils.math import align, ceil_div


def powers_of_two(rows: int, columns: int, device: str) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(rows + columns)
    exponents = torch.randint(
        1, 255, (rows, columns), generator=generator, device=device, dtype=torch.int32
    )
    return (exponents << 23).view(torch.float32)


def exponents(sf: torch.Tensor) -> torch.Tensor:
    return (sf.view(torch.int32) >> 23).to(torch.uint8)


@dataclass(frozen=True)
class Packing:
    """Of row-major FP32 scale factors [mn, k], into MN-major words of four."""

    mn: int
    k: int

    def __str__(self) -> str:
        return f"pack {self.mn} x {self.k}"

    @property
    def num_bytes(self) -> int:
        return 4 * self.mn * (self.k + ceil_div(self.k, 4))

    def variants(self, device: str = "cuda") -> Calls:
        sf = powers_of_two(self.mn, self.k, device)
        words = ceil_div(self.k, 4)
        strides = (1, align(self.mn, 4))

        def torch_s() -> torch.Tensor:
            padded = torch.nn.functional.pad(exponents(sf), (0, 4 * words - self.k))
            out = torch.empty_strided((self.mn, words), strides, dtype=torch.int32, device=device)
            return out.copy_(padded.view(torch.int32))

        def ours() -> torch.Tensor:
            return get_mn_major_tma_aligned_packed_ue8m0_tensor(sf)

        assert_bitwise_equal(ours(), torch_s(), str(self))
        return {"ours": ours, "torch": torch_s, "copy": copy_of(self.num_bytes, device)}


@dataclass(frozen=True)
class KGroupedPacking:
    """Of FP32 scale factors [rows, mn], one row for 128 of K, whose groups begin with a new word.

    Group i has rows_of_group[i % len] rows, and the first ones one more, `spare` of them.
    """

    mn: int
    num_groups: int
    rows_of_group: tuple[int, ...]
    spare: int = 0

    def __str__(self) -> str:
        return f"pack {self.num_groups} groups along K, {128 * sum(self.rows)} x {self.mn}"

    @property
    def rows(self) -> list[int]:
        cycle = self.rows_of_group
        return [cycle[i % len(cycle)] + (i < self.spare) for i in range(self.num_groups)]

    @property
    def num_bytes(self) -> int:
        return 4 * self.mn * (sum(self.rows) + sum(ceil_div(count, 4) for count in self.rows))

    def places(self) -> list[int]:
        """For every byte of a column of the result the row that it comes from; -1 for zero."""
        found, first = [], 0
        for count in self.rows:
            padding = [-1] * (align(count, 4) - count)
            found += [*range(first, first + count), *padding]
            first += count
        return found

    def variants(self, device: str = "cuda") -> Calls:
        sf = powers_of_two(sum(self.rows), self.mn, device)
        ks = [128 * count for count in self.rows]
        sizes = torch.tensor(ks, dtype=torch.int32, device=device)
        # torch is told by the host where groups begin.
        places = torch.tensor(self.places(), device=device) % (len(sf) + 1)

        def torch_s() -> torch.Tensor:
            padded = torch.nn.functional.pad(exponents(sf), (0, 0, 0, 1))
            rows = padded.index_select(0, places).view(-1, 4, self.mn)
            return rows.transpose(1, 2).contiguous().view(torch.int32).squeeze(-1)

        def ours() -> torch.Tensor:
            return get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor(sf, sizes, ks)

        assert_bitwise_equal(ours(), torch_s(), str(self))
        return {"ours": ours, "torch": torch_s, "copy": copy_of(self.num_bytes, device)}


PROBLEMS = (
    Packing(7168, 512),
    Packing(131072, 56),
    Packing(524288, 56),
    Packing(2097152, 56),
    Packing(131072, 57),
    KGroupedPacking(7168, 128, (0, 1, 2, 3, 4, 5), spare=7),
    KGroupedPacking(7168, 32, (64, 128, 32)),
)
