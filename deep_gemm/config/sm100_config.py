"""Sm100GemmConfig: how a problem is computed on SM100. Python half of sm100/gemm_config.cuh."""

from __future__ import annotations

from dataclasses import dataclass, fields

from deep_gemm.config.gemm_config import BLOCK_K, BLOCK_SLOT_BYTES, BLOCK_SLOTS, Grouping

MMA_M = 128
SF_CHUNK = 128
SF_COLUMNS = 4
SF_WORD_K = 4
NUM_THREADS = 256
TMEM_COLUMNS = 512
NUM_SLABS = 2


@dataclass(frozen=True, slots=True)
class Sm100GemmConfig:
    """Everything about an SM100 FP8 kernel that is fixed when it is compiled.

    Attributes:
        block_n: columns of D per CTA, a multiple of 16 up to 256.
        num_stages: slots of the shared-memory ring of tiles.
        grouping: what a problem consists of.
        a_is_mn_major: whether A lies with M contiguous, not K.
        b_is_mn_major: whether B lies with N contiguous.
        gran_k_a: elements along K per scale factor of A: 32 or 128.
        gran_k_b: the same of B.
        d_bytes: bytes of an element of D: 2 for BF16, 4 for FP32.
        cluster_m: CTAs that share each MMA: 1; or 2, one above the other, a pair.
    """

    block_n: int
    num_stages: int
    grouping: Grouping = Grouping.DENSE
    a_is_mn_major: bool = False
    b_is_mn_major: bool = False
    gran_k_a: int = BLOCK_K
    gran_k_b: int = BLOCK_K
    d_bytes: int = 2
    cluster_m: int = 1

    @property
    def block_m(self) -> int:
        """Rows of D per CTA: those of one MMA, or of a pair's half of one."""
        return MMA_M

    @property
    def group_m(self) -> int:
        """Rows of D that are computed together and so belong to one group."""
        return self.block_m * self.cluster_m

    @property
    def cluster_n(self) -> int:
        """CTAs of a cluster along N."""
        return 1

    @property
    def cluster_size(self) -> int:
        """CTAs of a cluster."""
        return self.cluster_m

    @property
    def num_threads(self) -> int:
        """Threads of a CTA."""
        return NUM_THREADS

    @property
    def sf_group(self) -> int:
        """K blocks whose scale factors are loaded together."""
        return SF_WORD_K if self.gran_k_a == self.gran_k_b == BLOCK_K else 1

    @property
    def num_sf_groups(self) -> int:
        """Slots of the ring of scale factors."""
        return -(-self.num_stages // self.sf_group) + 2

    @property
    def sf_chunks(self) -> int:
        """Chunks of 128 rows of scale factors per group: A's one, and B's."""
        return 1 + -(-self.block_n // SF_CHUNK)

    @property
    def num_accumulators(self) -> int:
        """Accumulators in tensor memory; two overlap the epilogue with the next main loop."""
        sf_columns = self.num_sf_groups * self.sf_chunks * SF_COLUMNS
        return 2 if 2 * self.block_n + sf_columns <= TMEM_COLUMNS else 1

    @property
    def used_columns(self) -> int:
        """Columns of tensor memory that hold something."""
        sf_columns = self.num_sf_groups * self.sf_chunks * SF_COLUMNS
        return self.num_accumulators * self.block_n + sf_columns

    @property
    def tmem_columns(self) -> int:
        """Columns that the kernel takes: a power of two."""
        return max(32, 1 << (self.used_columns - 1).bit_length())

    @property
    def b_part(self) -> int:
        """Rows of B that are multiplied out of one CTA's shared memory: of a pair's, half."""
        return self.block_n // self.cluster_m

    @property
    def b_rows(self) -> int:
        """Rows of B per stage; MN-major ones are loaded 128 at a time."""
        return -(-self.b_part // 128) * 128 if self.b_is_mn_major else self.b_part

    @property
    def d_swizzle_bytes(self) -> int:
        """Swizzle, and row width, of one slab of D in shared memory."""
        row_bytes = self.block_n * self.d_bytes
        return next(width for width in (128, 64, 32) if row_bytes % width == 0)

    @property
    def smem_bytes(self) -> int:
        """Dynamic shared memory of the kernel: `sizeof(Sm100Storage)`."""
        barriers = 16
        stage = (MMA_M + self.b_rows) * BLOCK_K + barriers
        sf_group = self.sf_chunks * SF_CHUNK * 4 + barriers
        slabs = NUM_SLABS * MMA_M * self.d_swizzle_bytes
        total = self.num_stages * stage + self.num_sf_groups * sf_group + slabs
        total += self.num_accumulators * barriers + 4
        if self.grouping is not Grouping.DENSE:
            total += BLOCK_SLOTS * (BLOCK_SLOT_BYTES + barriers)
        return -(-total // 1024) * 1024

    @property
    def entry(self) -> str:
        """The kernel's name in a profile."""
        majors = "".join("t" if mn else "n" for mn in (self.a_is_mn_major, not self.b_is_mn_major))
        is_dense = self.grouping is Grouping.DENSE
        grouping = "" if is_dense else f"{self.grouping.name.lower()}_"
        d = "_fp32" if self.d_bytes == 4 else ""
        return f"sm100_{grouping}fp8_gemm_{majors}{d}"

    @property
    def name(self) -> str:
        """A file name for the kernel."""
        return (
            f"{self.entry}_{self.block_m}x{self.block_n}_s{self.num_stages}"
            f"_k{self.gran_k_a}x{self.gran_k_b}{'_pair' if self.cluster_m > 1 else ''}"
        )

    def cluster_grid(self, m: int, n: int) -> tuple[int, int]:
        """Rows and columns of clusters that cover an [m, n] matrix."""
        return -(-m // (self.block_m * self.cluster_m)), -(-n // self.block_n)

    def initialiser(self) -> str:
        """The configuration as a C++ designated initialiser."""

        def literal(value: int | Grouping) -> str:
            if isinstance(value, Grouping):
                return f"deep_gemm::Grouping::{value.value}"
            return str(value).lower() if isinstance(value, bool) else str(value)

        values = (f".{field.name} = {literal(getattr(self, field.name))}" for field in fields(self))
        return f"{{{', '.join(values)}}}"
