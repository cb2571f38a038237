"""Seeded defects of SM100's kernel for MQA logits: small edits of what it does not share with SM90,
whose defects are in tests/emulator/test_mqa_defects.py."""

from __future__ import annotations

import functools
from unittest import mock

from deep_gemm.kernels import mqa_config
from tests.emulator.defects import WRONG
from tests.emulator.test_mqa_defects import Defect as AnyDefect
from tests.mqa import Pages, Shape, check_pages

KERNEL = "kernels/sm100_mqa_logits.cuh"
MULTIPLY = "mqa/multiply.cuh"
SUM = "mqa/sum_heads.cuh"
CONFIG = "mqa/config.cuh"
ROWS = "layout/row_descriptor.cuh"
INSTRUCTION = "layout/umma_descriptors.cuh"
CONVERT = "ptx/convert.cuh"

ARRIVE = "ptx::mbarrier_arrive<false>(ptx::shared_address({}));"
KEYS_DONE = "ptx::tcgen05_commit<1>(keys.empty_barrier(key_state));"
PRODUCT_DONE = "ptx::tcgen05_commit<1>(accumulators.full_barrier(accumulator));"
RELEASE_BLOCK = "blocks.consumer_release(blocks.release_address(block_state));"
READ_SF = "const float sf = ptx::load_shared(smem.key_sf[key_state.stage] + row);"
RELEASE_KEYS = "keys.consumer_release(keys.release_address(key_state));"
LOOP = "for (; turn < num_tiles;"


def decode() -> None:
    """One CTA; more blocks, tiles and products than there are places for, and steps of head_dim."""
    lens = ((140, 141), (5, 6), (0, 0), (64, 65), (1, 0), (129, 128), (7, 30))
    with mock.patch.object(mqa_config, "MAX_STAGES", 3):
        check_pages(Shape(16, 64), Pages(lens, 64, 200), "cpu", num_sms=1)


Defect = functools.partial(AnyDefect, case=decode)

DEFECTS = [
    # Tensor memory
    Defect("never given back", KERNEL, "if (load_warp == 3) ptx::tcgen05_dealloc",
           "if (false) ptx::tcgen05_dealloc", "R19"),
    Defect("given back while it is read", KERNEL,
           "    __syncthreads();\n    ptx::tcgen05_fence_after_sync();\n    if (load_warp == 3)",
           "    if (load_warp == 3)", "R19"),
    Defect("columns of one accumulator", CONFIG, "taken < num_accumulators() * columns()",
           "taken < columns()", "R19"),
    Defect("accumulators overlap", MULTIPLY, "idx * kConfig.columns()",
           "idx * kConfig.columns() / 2", "R21"),
    # Who waits for whom
    Defect("an accumulator is not waited for", MULTIPLY,
           "accumulators.producer_acquire(accumulator);", "", "R22"),
    Defect("keys are not waited for", MULTIPLY, "keys.consumer_wait(key_state);", "", "R3"),
    Defect("keys are released while they are multiplied", MULTIPLY, KEYS_DONE,
           ARRIVE.format("keys.empty_barrier(key_state)"), "R3"),
    Defect("a product is announced by an arrival", MULTIPLY, PRODUCT_DONE,
           ARRIVE.format("accumulators.full_barrier(accumulator)"), "R21"),
    Defect("a product is not waited for", SUM, "accumulators.consumer_wait(accumulator);", "",
           "R21"),
    Defect("no fence after the wait for a product", SUM,
           "accumulators.consumer_wait(accumulator);\n        ptx::tcgen05_fence_after_sync();",
           "accumulators.consumer_wait(accumulator);", "R21"),
    Defect("no fence before an accumulator is released", SUM,
           "ptx::tcgen05_fence_before_sync();", "", "R22"),
    Defect("an accumulator is released while it is read", SUM,
           "ptx::tcgen05_wait_ld(chunk[i % 2]);", "", "R22"),
    Defect("scale factors are released before they are read", SUM,
           f"{READ_SF}\n        {RELEASE_KEYS}", f"{RELEASE_KEYS}\n        {READ_SF}", "race"),
    Defect("a block is released before its sums", SUM, LOOP,
           f"{RELEASE_BLOCK}\n            {LOOP}", "race"),
    Defect("each block begins with the first warpgroup's turn", SUM, "turn -= num_tiles;",
           "turn %= 2;", "R26"),
    # Descriptors
    Defect("the version of WGMMA's descriptors", ROWS, "kIsTcgen05 ? 1 << 14 : 0", "0", "R16"),
    Defect("a step along head_dim is too short", MULTIPLY, "a.at(k), b.at(k)",
           "a.at(k), b.at(k / 2)", WRONG),
    Defect("results of a type that is none", INSTRUCTION, "return (1u << 4) | (kN / 8",
           "return (3u << 4) | (kN / 8", "R17"),
    Defect("64 rows", INSTRUCTION, "(kM / 16 << 24)", "(kM / 32 << 24)", "R26"),
    Defect("the first product adds", MULTIPLY, "k != 0);", "true);", "R26"),
    # Sums
    Defect("another warp's lanes", SUM, "(row / 32 * 32 << 16)",
           "((row / 32 * 32 + 32) % 128 << 16)", "R20"),
    Defect("the columns of SM90", CONFIG, "return is_sm100 ? 1 : gcd(num_tokens, 4);",
           "return gcd(num_tokens, 4);", WRONG),
    Defect("a chain is left out", SUM, "(chains[0][1] + chains[1][1])", "chains[0][1]", WRONG),
    Defect("one weight for two heads", CONVERT, "mov.b64 a, {%2, %3};", "mov.b64 a, {%2, %2};",
           WRONG),
    Defect("a warp's first keys are not summed", SUM, "row / 32 * 32 < ptx::uniform",
           "row / 32 * 32 + 31 < ptx::uniform", WRONG),
]  # fmt: skip
