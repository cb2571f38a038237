"""GemmProblem: what is to be computed. No tensor in it, hashable, enough to choose a kernel."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from deep_gemm.config.gemm_config import BLOCK_K, GRAN_N, SF_GROUP, GemmConfig, Grouping

if TYPE_CHECKING:
    from deep_gemm.config.sm100_config import Sm100GemmConfig


@dataclass(frozen=True, slots=True)
class GemmProblem:
    """D[m, n] = A[m, k] @ B[n, k].T of FP8 operands with fine-grained scale factors.

    Attributes:
        m: rows of A and D; in an m-grouped product those that a group is expected to have.
        n: rows of B, columns of D.
        k: columns of A and B; in a k-grouped product those that a group is expected to have.
        arch: architecture that the kernel is compiled for, such as "90a".
        num_sms: multiprocessors that the kernel may occupy.
        grouping: one product, or many in one launch.
        num_groups: how many.
        alignment: rows of A to a multiple of which m-grouped groups are padded.
        gran_n: rows of B per scale factor, 128 or 1.
        d_bytes: bytes of an element of D: 2 for BF16, 4 for FP32.
        block_multiple: what the rows and the columns of a block must be a multiple of.
        head_columns: columns of D that surely lie together, from a multiple of them on; 0: all.
        pdl: whether the kernel may start while the one before it ends.
        splits_k: whether CTAs of a cluster may share a block's K: faster where D has few blocks,
            but then the last bits of a row depend on how many rows there are.
        few_kernels: whether its kernel is one of the few that serving can be confined to.
        mn_major: SM100: whether A lies with M contiguous, and B with N.
        gran_k: SM100: elements along K per scale factor, of A and of B.
        gpu: the GPU's name, whose table of measured configurations counts; "" for none.
    """

    m: int
    n: int
    k: int
    arch: str = "90a"
    num_sms: int = 132
    grouping: Grouping = Grouping.DENSE
    num_groups: int = 1
    alignment: int = 1
    gran_n: int = GRAN_N
    d_bytes: int = 2
    block_multiple: tuple[int, int] = (1, 1)
    head_columns: int = 0
    pdl: bool = False
    splits_k: bool = False
    few_kernels: bool = False
    mn_major: tuple[bool, bool] = (False, False)
    gran_k: tuple[int, int] = (BLOCK_K, BLOCK_K)
    gpu: str = ""

    @property
    def is_sm100(self) -> bool:
        """Whether the kernels of SM100 compute it."""
        return self.arch.startswith("10")

    @property
    def is_1d1d(self) -> bool:
        """Whether B has a scale factor per row, as A has."""
        return self.gran_n == 1

    @property
    def num_k_blocks(self) -> int:
        """Steps of the main loop: one per 128 of K."""
        return -(-self.k // BLOCK_K)

    def num_own_k_blocks(self, config: GemmConfig) -> int:
        """Steps of the main loop of the busiest CTA: of a part of K, in whole groups."""
        groups = -(-self.num_k_blocks // SF_GROUP)
        return min(self.num_k_blocks, -(-groups // config.cluster_k) * SF_GROUP)

    def has_unknown_tiles(self, config: GemmConfig | Sm100GemmConfig) -> bool:
        """Whether the number of rows of tiles depends on how rows spread over groups."""
        is_m_grouped = self.grouping is Grouping.M_GROUPED and self.num_groups > 1
        return is_m_grouped and self.alignment % config.group_m != 0

    def cluster_grid(self, config: GemmConfig | Sm100GemmConfig) -> tuple[int, int]:
        """Rows and columns of clusters that cover D, all groups together.

        Where it depends on how rows spread over groups, a group is taken to need half a tile more
        than its rows fill, or what the alignment leaves of that.
        """
        rows, columns = config.cluster_grid(self.m, self.n)
        if self.grouping is not Grouping.M_GROUPED:
            return rows * self.num_groups, columns
        tiles = float(ceil(self.m / config.group_m))
        if self.has_unknown_tiles(config):
            unused = max(0.0, 1 - self.alignment / config.group_m) / 2
            tiles = max(1.0, self.m / config.group_m + unused)
        tiles_of_cluster = config.block_m * config.cluster_m // config.group_m
        return ceil(round(self.num_groups * tiles) / tiles_of_cluster), columns

    @property
    def output_bytes(self) -> int:
        """Bytes of D, of all groups."""
        rows = self.num_groups * self.m
        return rows * self.n * self.d_bytes

    @property
    def unique_bytes(self) -> int:
        """Bytes that every kernel must move: operands, scale factors and D, once each."""
        own_b = self.grouping is not Grouping.DENSE
        rows, columns = self.num_groups * self.m, (self.num_groups if own_b else 1) * self.n
        sf_bytes = 4 * self.num_k_blocks * (rows + -(-columns // self.gran_n))
        return (rows + columns) * self.k + self.output_bytes + sf_bytes
