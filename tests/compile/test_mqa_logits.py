"""The machine code of MQA logits: no spills, products before sums, few instructions an element."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from deep_gemm.jit.build import build
from deep_gemm.jit.compiler import CompiledKernel
from deep_gemm.jit.nvrtc import Nvrtc
from deep_gemm.jit.nvrtc_library import Library
from deep_gemm.kernels.mqa_config import NUM_THREADS, MqaConfig, generate_mqa_logits
from deep_gemm.kernels.paged_shares import generate_paged_shares
from tests.compile.sass import disassemble, main_loop
from tests.compile.test_compilers import label, nvrtc_libraries

REGISTERS_OF_SM = 65536
FP32, BF16 = torch.float32, torch.bfloat16

# A warning of ptxas, such as that WGMMAs wait for each other, is a RuntimeWarning.
pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

CONFIGS = [
    MqaConfig.of_matrix(64, 128, FP32),
    MqaConfig.of_matrix(32, 64, BF16),
    MqaConfig.of_matrix(16, 32, FP32),
    MqaConfig.of_matrix(120, 128, FP32),
    MqaConfig.of_pages(64, 128, 1, 64, FP32),
    MqaConfig.of_pages(32, 64, 7, 16, FP32),
]


def check_registers(kernel: CompiledKernel) -> None:
    """No spills, and the registers of all threads fit the SM before and after they are traded."""
    assert kernel.spill_bytes == kernel.static_smem_bytes == 0
    share = REGISTERS_OF_SM // NUM_THREADS // 8 * 8
    assert kernel.registers == share
    traded = dict(re.findall(r"setmaxnreg\.(inc|dec)\.sync\.aligned\.u32 (\d+);", kernel.ptx))
    math, load = int(traded["inc"]), int(traded["dec"])
    assert load < share < math
    assert 128 * (2 * math + load) <= REGISTERS_OF_SM


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.entry)
def test_a_kernel_compiles_without_spills(config: MqaConfig) -> None:
    kernel = build(generate_mqa_logits(config, "90a"))
    check_registers(kernel)
    assert f"wgmma.mma_async.sync.aligned.m64n{config.columns}k32" in kernel.ptx


@pytest.mark.parametrize("library", nvrtc_libraries(), ids=label)
def test_every_nvrtc_compiles_it(library: Library) -> None:
    check_registers(Nvrtc(library).compile(generate_mqa_logits(CONFIGS[0], "90a")))
    assert Nvrtc(library).compile(generate_paged_shares("90a")).spill_bytes == 0


def loop_over_tiles(config: MqaConfig, folder: Path) -> list[str]:
    code = disassemble(build(generate_mqa_logits(config, "90a")).cubin, folder)
    assert not [line for line in code if re.search(r"\b(LDL|STL)\b", line)], "local memory"
    return main_loop(code)


@pytest.mark.parametrize("config", CONFIGS[:2], ids=lambda config: config.entry)
def test_an_element_takes_two_instructions_and_little_more(
    config: MqaConfig, tmp_path: Path
) -> None:
    loop = [line for line in loop_over_tiles(config, tmp_path) if not line.endswith(":")]
    opcodes = Counter(re.sub(r"^@!?U?P\d+ ", "", line).split()[0].split(".")[0] for line in loop)
    elements = 64 * config.columns // 128
    assert opcodes["FMNMX"] == elements
    assert elements <= opcodes["FFMA"] + opcodes["FMUL"] <= 1.1 * elements
    # The rest is paid per tile, and per group of tokens: about 85 instructions, and 16.
    groups = config.num_tokens // config.quad_tokens
    assert len(loop) <= 2 * elements + 90 + 20 * groups


@pytest.mark.parametrize("config", CONFIGS[:2], ids=lambda config: config.entry)
def test_products_are_issued_before_the_sums_beside_them(config: MqaConfig, tmp_path: Path) -> None:
    """Else the tensor cores would wait for the sums between the steps along head_dim."""
    loop = loop_over_tiles(config, tmp_path)
    places = [i for i, line in enumerate(loop) if "QGMMA" in line]
    steps = config.head_dim // 32
    assert len(places) == steps
    between = loop[places[0] : places[-1]]
    assert not [line for line in between if re.search(r"\b(FMNMX|FFMA)\b", line)]
