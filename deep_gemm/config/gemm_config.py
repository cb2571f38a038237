"""GemmConfig: how a problem is computed. The Python half of csrc/config.cuh.

The derived sizes exist in C++ too. The generated source asserts that both halves agree, so a kernel
on which they differ does not compile.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from math import gcd

BLOCK_K = 128
MMA_M = 64
MMA_K = 32
GRAN_N = 128
SF_GROUP = 4
WARPGROUP = 128
BLOCK_SLOTS = 4
BLOCK_SLOT_BYTES = 44
_GROUPED_BLOCK_REGISTERS = 10
_PEER_ROUND_REGISTERS = 2


class Grouping(Enum):
    """What a problem consists of; the values are the C++ enumerators."""

    DENSE = "kDense"
    """One matrix product."""

    M_GROUPED = "kMGrouped"
    """Many, each with its own B; A and D hold their rows."""

    K_GROUPED = "kKGrouped"
    """Many, each with its own stretch of K, and its own D."""


@dataclass(frozen=True, slots=True)
class GemmConfig:
    """Everything about an SM90 FP8 kernel that is fixed when it is compiled.

    Attributes:
        block_m: rows of D per CTA.
        block_n: columns of D per CTA.
        num_stages: slots of the shared-memory ring.
        num_math_warpgroups: 1 or 2, side by side along M.
        cluster_m: CTAs of a cluster along M; they share B by multicast.
        cluster_n: CTAs of a cluster along N; they share A by multicast.
        cluster_k: CTAs of a cluster along K; each multiplies a part of it, and stores a part of the
            block's columns.
        num_store_rounds: equal parts in which D passes through its staging memory: more of them
            leave room for another stage, and make the epilogue longer.
        grouping: what a problem consists of.
        gran_n: rows of B per scale factor: 128 (1D2D scaling) or 1 (1D1D).
        d_bytes: bytes of an element of D: 2 for BF16, 4 for FP32.
    """

    block_m: int
    block_n: int
    num_stages: int
    num_math_warpgroups: int
    cluster_m: int = 1
    cluster_n: int = 1
    cluster_k: int = 1
    num_store_rounds: int = 1
    grouping: Grouping = Grouping.DENSE
    gran_n: int = GRAN_N
    d_bytes: int = 2

    @property
    def is_1d1d(self) -> bool:
        """Whether B has a scale factor per row, as A has."""
        return self.gran_n == 1

    @property
    def mma_rows(self) -> int:
        """Rows that are multiplied: a WGMMA has 64 even where the block has fewer."""
        return max(self.block_m, MMA_M)

    @property
    def num_waves(self) -> int:
        """M64 slices that one math warpgroup computes one after the other."""
        return self.mma_rows // (MMA_M * self.num_math_warpgroups)

    @property
    def num_accumulators(self) -> int:
        """Partial sums per math warpgroup. Two overlap promotion with the tensor cores, where no
        other warpgroup does."""
        overlaps = self.num_math_warpgroups == 1 and self.num_waves == 1
        return 2 if overlaps and self.block_n <= (96 if self.is_1d1d else 144) else 1

    @property
    def group_m(self) -> int:
        """Rows of D that are computed together and so belong to one group."""
        return self.block_m

    @property
    def cluster_size(self) -> int:
        """CTAs of a cluster."""
        return self.cluster_m * self.cluster_n * self.cluster_k

    @property
    def d_columns(self) -> int:
        """Columns of D that a CTA stores: of a block whose K is split, its share."""
        return self.block_n // self.cluster_k

    @property
    def num_threads(self) -> int:
        """Threads of a CTA: the math warpgroups and the load warpgroup."""
        return WARPGROUP * (self.num_math_warpgroups + 1)

    @property
    def sf_segment(self) -> int:
        """Widest run of columns that surely lies under one scale factor of B."""
        return gcd(self.block_n, GRAN_N)

    @property
    def num_sfb(self) -> int:
        """Scale factors of B along N that one block can touch."""
        return -(-(GRAN_N - self.sf_segment + self.block_n) // GRAN_N)

    @property
    def sfb_rows(self) -> int:
        """Scale factors of B per k block."""
        return self.block_n if self.is_1d1d else self.num_sfb

    @property
    def d_swizzle_bytes(self) -> int:
        """Swizzle, and row width, of one slab of D in shared memory."""
        row_bytes = self.d_columns * self.d_bytes
        return next(width for width in (128, 64, 32) if row_bytes % width == 0)

    @property
    def num_slabs(self) -> int:
        """Slabs of 64 rows that one math warpgroup stores."""
        return self.num_waves * self.num_slabs_per_slice

    @property
    def num_slabs_per_slice(self) -> int:
        """Slabs side by side along N."""
        return self.d_bytes * self.d_columns // self.d_swizzle_bytes

    @property
    def slabs_per_round(self) -> int:
        """Slabs that one math warpgroup stages and stores in one round."""
        return self.num_slabs // self.num_store_rounds

    @property
    def smem_bytes(self) -> int:
        """Dynamic shared memory of the kernel: `sizeof(SharedStorage)`."""
        return self.smem_bytes_with(self.num_stages, self.num_store_rounds)

    def smem_bytes_with(self, num_stages: int, num_store_rounds: int) -> int:
        """What `smem_bytes` were with other stages and rounds."""
        barriers = 16
        stage = (self.mma_rows + self.block_n) * BLOCK_K + barriers
        sf_group = 4 * SF_GROUP * (self.mma_rows + self.sfb_rows)
        d = self.d_bytes * self.mma_rows * self.d_columns // num_store_rounds
        # Slots of the scale-factor ring, of SF_GROUP k blocks each.
        num_sf_groups = -(-num_stages // SF_GROUP) + 1
        total = num_stages * stage + num_sf_groups * (sf_group + barriers) + d
        total += self.num_math_warpgroups * barriers
        if self.grouping is not Grouping.DENSE:
            total += BLOCK_SLOTS * (BLOCK_SLOT_BYTES + barriers)
        if self.cluster_k > 1:
            total += 4 * self.mma_rows * self.block_n + self.num_math_warpgroups * barriers
        return -(-total // 1024) * 1024

    @property
    def held_registers(self) -> int:
        """Registers per math thread for sums, scale factors, and what places a block in D.

        Scale factors are those of two k blocks or of a whole group, for 1D1D of one k block. What
        reaches peers takes two more where the epilogue waits in between.
        """
        registers = (self.num_waves + self.num_accumulators) * self.block_n // 2
        if self.is_1d1d:
            registers += self.num_accumulators * (2 * self.num_waves + self.block_n // 4)
            registers += 8 * self.num_waves
        else:
            num_k_blocks = 2 if self.num_accumulators == 2 else SF_GROUP
            registers += num_k_blocks * (2 * self.num_waves + self.num_sfb)
        if self.cluster_size > 1 and self.num_store_rounds > 1:
            registers += _PEER_ROUND_REGISTERS
        return registers + (0 if self.grouping is Grouping.DENSE else _GROUPED_BLOCK_REGISTERS)

    def cluster_grid(self, m: int, n: int) -> tuple[int, int]:
        """Rows and columns of clusters that cover an [m, n] matrix."""
        rows = -(-m // (self.block_m * self.cluster_m))
        columns = -(-n // (self.block_n * self.cluster_n))
        return rows, columns

    @property
    def name(self) -> str:
        """A file name for the kernel."""
        cluster = f"{self.cluster_m}x{self.cluster_n}"
        if self.cluster_k > 1:
            cluster += f"x{self.cluster_k}"
        return (
            f"{self.entry}_{self.block_m}x{self.block_n}_s{self.num_stages}"
            f"_w{self.num_math_warpgroups}_c{cluster}"
            f"_r{self.num_store_rounds}"
        )

    @property
    def entry(self) -> str:
        """The kernel's name in a profile."""
        grouping = {
            Grouping.DENSE: "",
            Grouping.M_GROUPED: "m_grouped_",
            Grouping.K_GROUPED: "k_grouped_",
        }[self.grouping]
        scaling = "1d1d" if self.is_1d1d else "1d2d"
        d = "_fp32" if self.d_bytes == 4 else ""
        return f"sm90_{grouping}fp8_gemm_{scaling}{d}"

    def initialiser(self) -> str:
        """The configuration as a C++ designated initialiser."""

        def literal(value: int | Grouping) -> str:
            if isinstance(value, Grouping):
                return f"deep_gemm::Grouping::{value.value}"
            return str(value).lower() if isinstance(value, bool) else str(value)

        values = (f".{field.name} = {literal(getattr(self, field.name))}" for field in fields(self))
        return f"{{{', '.join(values)}}}"
