"""The casting kernels' machine code: vectors, no local memory, as many threads as they say."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import torch

from deep_gemm.jit.build import build
from deep_gemm.jit.nvrtc import Nvrtc
from deep_gemm.jit.nvrtc_library import Library
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.block_cast import THREADS_OF_SM, BlockCastConfig, generate_block_cast
from deep_gemm.kernels.cast import INPUTS, CastRows, SfFormat
from deep_gemm.kernels.per_token_cast import (
    GRANULARITIES,
    NUM_THREADS,
    PerTokenCastConfig,
    generate_per_token_cast,
)
from tests.compile.sass import disassemble
from tests.compile.test_compilers import label, nvrtc_libraries

REGISTERS_OF_SM = 65536

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

PER_TOKEN = [
    PerTokenCastConfig(dtype, gran_k, sf, rows, *activation)
    for dtype, sf, rows in itertools.product(INPUTS, SfFormat, CastRows)
    for gran_k in GRANULARITIES
    for activation in ((False, False), (True, False), (True, True))
    if gran_k == 128 or (rows == CastRows.ALL and not activation[1])
]
BLOCKS = [
    BlockCastConfig(dtype, use_ue8m0, per_channel)
    for dtype in INPUTS
    for use_ue8m0 in (False, True)
    for per_channel in (False, True)
]
HARDEST = [
    PerTokenCastConfig(torch.bfloat16, 128, SfFormat.PACKED_UE8M0, CastRows.ENDS),
    PerTokenCastConfig(torch.bfloat16, 128, SfFormat.FP32, CastRows.COUNTS, True, True),
    PerTokenCastConfig(torch.float32, 128, SfFormat.FP32, CastRows.ALL),
]


def source_of(config: PerTokenCastConfig | BlockCastConfig) -> KernelSource:
    generate = generate_block_cast if isinstance(config, BlockCastConfig) else None
    return generate(config, "90a") if generate else generate_per_token_cast(config, "90a")


def num_threads(config: PerTokenCastConfig | BlockCastConfig) -> int:
    """Threads that a multiprocessor is to hold."""
    if isinstance(config, BlockCastConfig):
        return THREADS_OF_SM
    return NUM_THREADS * config.ctas_per_sm


def name(config: PerTokenCastConfig | BlockCastConfig) -> str:
    return config.entry


def test_no_two_configurations_have_one_name() -> None:
    everything = [config.entry for config in PER_TOKEN + BLOCKS]
    assert len(set(everything)) == len(everything) > 100
    for entry in everything:
        assert not re.search("gemm_|transpose|pack_fp32|logits", entry), "another kernel's"


@pytest.mark.parametrize("config", PER_TOKEN + BLOCKS, ids=name)
def test_no_kernel_spills(config: PerTokenCastConfig | BlockCastConfig) -> None:
    kernel = build(source_of(config))
    assert kernel.spill_bytes == kernel.static_smem_bytes == 0
    assert kernel.registers * num_threads(config) <= REGISTERS_OF_SM


@pytest.mark.parametrize("config", HARDEST + BLOCKS[:2], ids=name)
def test_nothing_is_approximated(config: PerTokenCastConfig | BlockCastConfig) -> None:
    """But the exponential, whose last step is; the emulator could not tell the difference."""
    ptx = build(source_of(config)).ptx
    assert "div.rn.f32" in ptx and "rcp.rn.f32" in ptx
    multiplies = isinstance(config, PerTokenCastConfig) and config.multiplies
    inexact = {word for word in re.findall(r"\S+", ptx) if ".approx" in word or ".ftz" in word}
    assert inexact == ({"ex2.approx.ftz.f32"} if multiplies else set())


@pytest.mark.parametrize("library", nvrtc_libraries(), ids=label)
@pytest.mark.parametrize("config", HARDEST + BLOCKS[:2], ids=name)
def test_every_nvrtc_compiles_without_spills(
    library: Library, config: PerTokenCastConfig | BlockCastConfig
) -> None:
    kernel = Nvrtc(library).compile(source_of(config))
    assert kernel.spill_bytes == 0
    assert kernel.registers * num_threads(config) <= REGISTERS_OF_SM


@pytest.mark.parametrize("config", HARDEST + BLOCKS[:2] + BLOCKS[-2:], ids=name)
def test_vectors_are_loaded_together(
    config: PerTokenCastConfig | BlockCastConfig, tmp_path: Path
) -> None:
    code = disassemble(build(source_of(config)).cubin, tmp_path)
    assert not [line for line in code if re.search(r"\b(LDL|STL)\b", line)], "local memory"
    count = 8 if isinstance(config, BlockCastConfig) else 4
    loads = [i for i, line in enumerate(code) if "LDG.E.128" in line]
    assert len(loads) == count
    # All are under way before anything is done with the first.
    between = "\n".join(code[loads[0] : loads[-1]])
    assert not re.search(r"\b(FMUL|F2FP|SHFL|BAR|STG)\b", between)
    if config.dtype != torch.float32:
        rows = 2 if isinstance(config, PerTokenCastConfig) and config.multiplies else count
        assert len([line for line in code if "STG.E.64" in line]) == rows
