"""The machine code of MQA logits on SM100: no spills, and few instructions an element."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from deep_gemm.jit.build import build
from deep_gemm.jit.nvrtc import Nvrtc
from deep_gemm.jit.nvrtc_library import Library
from deep_gemm.kernels.mqa_config import NUM_THREADS, MqaConfig, generate_mqa_logits
from tests.compile.sass import disassemble
from tests.compile.test_compilers import label, nvrtc_libraries

REGISTERS_OF_SM = 65536
FP32, BF16 = torch.float32, torch.bfloat16

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

CONFIGS = [
    MqaConfig.of_matrix(64, 128, FP32, is_sm100=True),
    MqaConfig.of_matrix(32, 64, BF16, is_sm100=True),
    MqaConfig.of_matrix(120, 32, FP32, is_sm100=True),
    MqaConfig.of_pages(64, 128, 1, 64, FP32, is_sm100=True),
    MqaConfig.of_pages(24, 64, 7, 16, FP32, is_sm100=True),
]


def check(config: MqaConfig, registers: int, spill_bytes: int, ptx: str) -> None:
    assert spill_bytes == 0 and registers * NUM_THREADS <= REGISTERS_OF_SM, config.entry
    steps = config.head_dim // 32
    assert ptx.count("tcgen05.mma.cta_group::1.kind::f8f6f4") == steps, config.entry


@pytest.mark.parametrize("arch", ["100a", "103a"])
def test_kernels_compile_without_spills(arch: str) -> None:
    for config in CONFIGS[arch == "103a" :: 2]:
        kernel = build(generate_mqa_logits(config, arch))
        check(config, kernel.registers, kernel.spill_bytes, kernel.ptx)
        assert re.search(rf"^\.target sm_{arch}$", kernel.ptx, re.MULTILINE)


@pytest.mark.parametrize("library", nvrtc_libraries(), ids=label)
def test_every_nvrtc_compiles_it(library: Library) -> None:
    kernel = Nvrtc(library).compile(generate_mqa_logits(CONFIGS[0], "100a"))
    check(CONFIGS[0], kernel.registers, kernel.spill_bytes, kernel.ptx)


def loop_over_tiles(code: list[str], sums: int) -> list[str]:
    """The smallest loop with so many fused multiply-adds of pairs: instructions, without labels."""
    places = {line.removesuffix(":"): i for i, line in enumerate(code) if line.endswith(":")}
    loops = []
    for i, line in enumerate(code):
        match = re.search(r"\bBRA\b.*`\((\.L_x_\d+)\)", line)
        if match and places[match[1]] < i:
            loop = [x for x in code[places[match[1]] : i + 1] if not x.endswith(":")]
            if sum("FFMA2" in x for x in loop) == sums:
                loops.append(loop)
    return min(loops, key=len)


@pytest.mark.parametrize("config", CONFIGS[:2], ids=lambda config: config.entry)
def test_an_element_takes_less_than_two_instructions_and_little_more(
    config: MqaConfig, tmp_path: Path
) -> None:
    """A relu each; of four, two pairs of multiply-adds and one load of weights."""
    code = disassemble(build(generate_mqa_logits(config, "100a")).cubin, tmp_path)
    assert not [line for line in code if re.search(r"\b(LDL|STL)\b", line)], "local memory"
    elements = config.columns
    loop = loop_over_tiles(code, elements // 2)
    opcodes = Counter(re.sub(r"^@!?U?P\d+ ", "", line).split()[0].split(".")[0] for line in loop)
    assert opcodes["FMNMX"] == elements
    assert opcodes["LDTM"] == elements // 16
    # The rest is paid per tile, and per token.
    assert len(loop) <= 1.75 * elements + 130 + 15 * config.num_tokens
