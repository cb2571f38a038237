"""Seeded defects of the SM100 kernel: small edits of its headers, and what each must come to."""

from __future__ import annotations

from dataclasses import dataclass

from deep_gemm.config.sm100_config import Sm100GemmConfig
from tests.emulator.defects import WRONG
from tests.emulator.sm100 import Case

# Several blocks per CTA, so that accumulators are used again; more k blocks than stages, and more
# groups of scale factors than slots.
NT = Case(Sm100GemmConfig(32, 2), 300, 40, 1680, num_sms=1)
FINE = Case(Sm100GemmConfig(32, 2, gran_k_a=32, gran_k_b=32), 130, 40, 912, num_sms=1)
MN_MAJOR = Case(Sm100GemmConfig(32, 2, a_is_mn_major=True, b_is_mn_major=True), 144, 48, 528, 1)

KERNEL = "kernels/sm100_fp8_gemm.cuh"
TILES = "sm100/load_tiles.cuh"
SF = "sm100/load_scale_factors.cuh"
MULTIPLY = "sm100/multiply.cuh"
STORE = "sm100/store_block.cuh"
TCGEN05 = "ptx/tcgen05.cuh"
DESCRIPTORS = "layout/umma_descriptors.cuh"
CONFIG = "sm100/gemm_config.cuh"


@dataclass(frozen=True)
class Defect:
    """An edit of one header, and what must come of it; see tests/emulator/defects.py."""

    name: str
    header: str
    before: str
    after: str
    outcome: str
    case: Case = NT

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


DEFECTS = [
    # Tensor memory
    Defect(
        "never given back",
        KERNEL,
        "if (warp == 3) ptx::tcgen05_dealloc",
        "if (false) ptx::tcgen05_dealloc",
        "R19",
    ),
    Defect(
        "given back while it is read",
        KERNEL,
        """    sync_pair<kConfig>();
    ptx::tcgen05_fence_after_sync();
    if (warp == 3) ptx::tcgen05_dealloc""",
        "    if (warp == 3) ptx::tcgen05_dealloc",
        "R19",
    ),
    Defect(
        "fewer columns taken than used",
        KERNEL,
        "ptx::tcgen05_alloc<kConfig.cluster_m, kConfig.tmem_columns()>",
        "ptx::tcgen05_alloc<kConfig.cluster_m, 32>",
        "R19",
    ),
    Defect(
        "its address is read before it is written",
        KERNEL,
        """    ptx::tcgen05_fence_before_sync();
    sync_pair<kConfig>();
    ptx::tcgen05_fence_after_sync();

    if""",
        "    if",
        "R9",
    ),
    # Commits, and what waits for them
    Defect(
        "no commit of an accumulator",
        MULTIPLY,
        "ptx::tcgen05_commit<kCtas>(accumulators.full_barrier(accumulator));",
        "",
        "R11",
    ),
    Defect(
        "accumulator announced by an arrival",
        MULTIPLY,
        "ptx::tcgen05_commit<kCtas>(accumulators.full_barrier(accumulator));",
        "accumulators.producer_arrive(accumulator);",
        "R21",
    ),
    Defect(
        "no commit of a stage",
        MULTIPLY,
        "ptx::tcgen05_commit<kCtas>(tiles.empty_barrier(tile));",
        "",
        "R11",
    ),
    Defect(
        "stage released by an arrival",
        MULTIPLY,
        "ptx::tcgen05_commit<kCtas>(tiles.empty_barrier(tile));",
        "ptx::mbarrier_arrive<false>(ptx::shared_address(tiles.empty_barrier(tile)));",
        "R3",
    ),
    Defect(
        "scale factors released by an arrival",
        MULTIPLY,
        "ptx::tcgen05_commit<kCtas>(scale_factors.empty_barrier(sf));",
        "ptx::mbarrier_arrive<false>(ptx::shared_address(scale_factors.empty_barrier(sf)));",
        "R3",
    ),
    Defect(
        "accumulator not waited for", KERNEL, "accumulators.consumer_wait(accumulator);", "", "R22"
    ),
    Defect(
        "accumulator overwritten while it is read",
        MULTIPLY,
        "accumulators.producer_acquire(accumulator);",
        "",
        "R22",
    ),
    Defect("tiles not waited for", MULTIPLY, "tiles.consumer_wait(tile);", "", "R2"),
    Defect("scale factors not waited for", MULTIPLY, "scale_factors.consumer_wait(sf);", "", "R3"),
    Defect(
        "no fence after the wait for an accumulator",
        KERNEL,
        """            accumulators.consumer_wait(accumulator);
            ptx::tcgen05_fence_after_sync();""",
        "            accumulators.consumer_wait(accumulator);",
        "R21",
    ),
    Defect(
        "no fence before an accumulator is released",
        KERNEL,
        """            ptx::tcgen05_fence_before_sync();
            __syncwarp();""",
        "            __syncwarp();",
        "R22",
    ),
    Defect(
        "no wait for what is read of an accumulator",
        STORE,
        "ptx::tcgen05_wait_ld(value);",
        "",
        "R22",
    ),
    Defect(
        "accumulator released before it is read",
        STORE,
        """            write_slab(block, tmem.accumulator(idx) + column);
            if (column + kSlabColumns >= kConfig.block_n) release();""",
        """            if (column + kSlabColumns >= kConfig.block_n) release();
            write_slab(block, tmem.accumulator(idx) + column);""",
        "R22",
    ),
    # Scale factors
    Defect("no proxy fence behind scale factors", SF, "ptx::fence_proxy_async();", "", "R1"),
    Defect(
        "scale factors handed on before they are there",
        SF,
        "ptx::cp_async_wait_group<1>();",
        "",
        "R2",
    ),
    Defect(
        "rows of scale factors in the order of loading",
        SF,
        "[4 * lane + in_chunk]",
        "[first % 128 + lane]",
        "R26",
    ),
    Defect(
        "scale factors of A for B",
        MULTIPLY,
        "return sfa(slot) + kConfig.kSfColumns;",
        "return sfa(slot);",
        WRONG,
    ),
    Defect(
        "the first byte for every k block",
        MULTIPLY,
        "const uint32_t in_word = k_block % kConfig.kSfWordK;",
        "const uint32_t in_word = 0;",
        WRONG,
    ),
    Defect(
        "the k block's byte for every step",
        MULTIPLY,
        "kConfig.gran_k_a == kConfig.kMmaK ? step : in_word",
        "in_word",
        WRONG,
        FINE,
    ),
    Defect(
        "the wrong word of a row",
        SF,
        "return k_block * Sm100GemmConfig::kBlockK / (kGranK",
        "return 1 + k_block * Sm100GemmConfig::kBlockK / (kGranK",
        "bounds",
    ),
    # Descriptors
    Defect(
        "wrong version of a descriptor",
        DESCRIPTORS,
        "(2u << 29) | (1u << 14) | (1024 / 16)",
        "(2u << 29) | (1024 / 16)",
        "R16",
    ),
    Defect(
        "wrong stride in a descriptor",
        DESCRIPTORS,
        "(1u << 14) | (1024 / 16)",
        "(1u << 14) | (512 / 16)",
        WRONG,
    ),
    Defect(
        "wrong layout in a descriptor",
        DESCRIPTORS,
        "{((ptx::shared_address(tile) & 0x3ffff) / 16) | (kLeading << 16),\n            (2u << 29)",
        "{((ptx::shared_address(tile) & 0x3ffff) / 16) | (kLeading << 16),\n            (4u << 29)",
        "R15",
    ),
    Defect(
        "majors exchanged",
        DESCRIPTORS,
        "(kAIsMnMajor ? 1u << 15 : 0)",
        "(kAIsMnMajor ? 0 : 1u << 15)",
        "R2",
        MN_MAJOR,
    ),
    Defect(
        "a step along K of the wrong major",
        MULTIPLY,
        "kConfig.a_is_mn_major ? kConfig.kMmaK * 128 : kConfig.kMmaK",
        "kConfig.kMmaK",
        "R15",
        MN_MAJOR,
    ),
    Defect(
        "an instruction of too many columns",
        DESCRIPTORS,
        "(kN / 8 << 17) | (1u << 23)",
        "(kN / 4 << 17) | (1u << 23)",
        "R2",
    ),
    Defect("the first MMA of a block adds", MULTIPLY, "k_block + step != 0", "true", "R26"),
    # Epilogue
    Defect(
        "another warp's lanes",
        STORE,
        "thread() / 32 * 32 << 16",
        "(thread() / 32 * 32 + 32) % 128 << 16",
        "R20",
    ),
    Defect(
        "no proxy fence before a store", STORE, "            ptx::fence_proxy_async();\n", "", "R1"
    ),
    Defect(
        "D is overwritten before it is stored",
        STORE,
        "if (issues) ptx::tma_store_wait_read<kConfig.kSlabs - 1>();",
        "",
        "R4",
    ),
    Defect(
        "wrong swizzle of D",
        STORE,
        "smem.d[slab] + swizzle<kSlabBytes>(offset)",
        "smem.d[slab] + offset",
        WRONG,
    ),
]
