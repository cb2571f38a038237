"""GemmConfig: how a problem is computed. The Python half of csrc/config.cuh.

The derived sizes exist in C++ too. The generated source asserts that both halves agree, so a kernel
on which they differ does not compile.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import gcd

BLOCK_K = 128
MMA_M = 64
MMA_K = 32
GRAN_N = 128
SF_GROUP = 4
WARPGROUP = 128


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
        num_store_rounds: equal parts in which D passes through its staging memory: more of them
            leave room for another stage, and make the epilogue longer.
    """

    block_m: int
    block_n: int
    num_stages: int
    num_math_warpgroups: int
    cluster_m: int = 1
    cluster_n: int = 1
    num_store_rounds: int = 1

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
        """Partial sums per math warpgroup; two overlap promotion with the tensor cores."""
        return 2 if self.num_waves == 1 and self.block_n <= 144 else 1

    @property
    def cluster_size(self) -> int:
        """CTAs of a cluster."""
        return self.cluster_m * self.cluster_n

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
    def d_swizzle_bytes(self) -> int:
        """Swizzle, and row width, of one slab of D in shared memory."""
        return next(width for width in (128, 64, 32) if self.block_n * 2 % width == 0)

    @property
    def num_slabs(self) -> int:
        """Slabs of 64 rows that one math warpgroup stores."""
        return self.num_waves * (2 * self.block_n // self.d_swizzle_bytes)

    @property
    def slabs_per_round(self) -> int:
        """Slabs that one math warpgroup stages and stores in one round."""
        return self.num_slabs // self.num_store_rounds

    @property
    def num_sf_groups(self) -> int:
        """Slots of the scale-factor ring, of SF_GROUP k blocks each."""
        return -(-self.num_stages // SF_GROUP) + 1

    @property
    def smem_bytes(self) -> int:
        """Dynamic shared memory of the kernel: `sizeof(SharedStorage)`."""
        barriers = 16
        stage = (self.mma_rows + self.block_n) * BLOCK_K + barriers
        sf_group = 4 * SF_GROUP * (self.mma_rows + self.num_sfb) + barriers
        d = 2 * self.mma_rows * self.block_n // self.num_store_rounds
        total = self.num_stages * stage + self.num_sf_groups * sf_group + d
        return -(-total // 1024) * 1024

    @property
    def held_registers(self) -> int:
        """Registers per math thread for final and partial sums, and two k blocks' scale factors."""
        sums = (self.num_waves + self.num_accumulators) * self.block_n // 2
        return sums + 2 * (2 * self.num_waves + self.num_sfb)

    def cluster_grid(self, m: int, n: int) -> tuple[int, int]:
        """Rows and columns of clusters that cover an [m, n] matrix."""
        rows = -(-m // (self.block_m * self.cluster_m))
        columns = -(-n // (self.block_n * self.cluster_n))
        return rows, columns

    @property
    def name(self) -> str:
        """A file name for the kernel."""
        return (
            f"sm90_fp8_gemm_1d2d_{self.block_m}x{self.block_n}_s{self.num_stages}"
            f"_w{self.num_math_warpgroups}_c{self.cluster_m}x{self.cluster_n}"
            f"_r{self.num_store_rounds}"
        )

    def initialiser(self) -> str:
        """The configuration as a C++ designated initialiser."""
        values = ", ".join(f".{field.name} = {getattr(self, field.name)}" for field in fields(self))
        return f"{{{values}}}"
