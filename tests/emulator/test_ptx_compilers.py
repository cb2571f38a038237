"""The parser on our kernel as every installed compiler writes it."""

from __future__ import annotations

import contextlib

import pytest

from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.emulator.ptx import Vector, parse
from deep_gemm.errors import MissingDependencyError
from deep_gemm.jit.codegen import generate
from deep_gemm.jit.compiler import Compiler
from deep_gemm.jit.nvcc import Nvcc, find_nvcc
from deep_gemm.jit.nvrtc import Nvrtc
from deep_gemm.jit.nvrtc_library import in_wheels
from deep_gemm.kernels.arguments import ALIGNMENT, GemmArguments


def compilers() -> list[Compiler]:
    found: list[Compiler] = [Nvrtc(library) for library in in_wheels()]
    with contextlib.suppress(MissingDependencyError):
        found.append(Nvcc(find_nvcc(None, None), ("", "")))
    return found


@pytest.mark.parametrize("compiler", compilers(), ids=lambda c: f"{c.name}-{c.version}")
def test_what_compilers_write(compiler: Compiler) -> None:
    config = GemmConfig(128, 96, 7, 2, 1, 2)
    text = compiler.compile(generate(config, "90a")).ptx
    (kernel,) = parse(text).kernels.values()
    assert kernel.max_threads == config.num_threads
    (parameter,) = kernel.parameters
    assert (parameter.size, parameter.offset) == (GemmArguments.cxx_size(), 0)
    assert parameter.alignment == ALIGNMENT
    # Every statement of this text ends with a semicolon; the other ones with one are declarations.
    lines = [line.partition("//")[0].strip() for line in text[text.index("\n{") :].splitlines()]
    declared = sum(line.startswith((".reg", ".pragma")) for line in lines)
    assert len(kernel.instructions) == sum(line.count(";") for line in lines) - declared
    products = [i for i in kernel.instructions if i.name.startswith("wgmma.mma_async")]
    assert products
    for instruction in products:
        accumulators = instruction.operands[0]
        assert isinstance(accumulators, Vector)
        assert len(set(accumulators.items)) == config.block_n // 2
    used = {i.operands[0].name for i in kernel.instructions if i.opcode == "bra"}
    assert used <= kernel.labels.keys()
