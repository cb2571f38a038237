"""The packing kernels' machine code: vectors, no local memory, as many CTAs as they say."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deep_gemm.errors import CompilationError
from deep_gemm.jit.build import build
from deep_gemm.jit.compiler import select_compiler
from deep_gemm.jit.nvrtc import Nvrtc
from deep_gemm.jit.nvrtc_library import Library
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.pack_ue8m0 import (
    CTAS_PER_SM,
    NUM_THREADS,
    generate_k_grouped_pack,
    generate_pack,
)
from tests.compile.sass import disassemble
from tests.compile.test_compilers import label, nvrtc_libraries
from tests.compile.test_transpose import REGISTERS_OF_SM

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

Generate = Callable[[str], KernelSource]

each_kernel = pytest.mark.parametrize("generate", [generate_pack, generate_k_grouped_pack])


@pytest.mark.parametrize("library", nvrtc_libraries(), ids=label)
@each_kernel
def test_every_nvrtc_compiles_it_without_spills(library: Library, generate: Generate) -> None:
    kernel = Nvrtc(library).compile(generate("90a"))
    assert kernel.spill_bytes == kernel.static_smem_bytes == 0
    assert kernel.registers * NUM_THREADS * CTAS_PER_SM <= REGISTERS_OF_SM


@pytest.mark.parametrize("arch", ["80", "89", "100", "120"])
def test_they_compile_for_gpus_that_have_no_gemm_here(arch: str) -> None:
    for generate in (generate_pack, generate_k_grouped_pack):
        kernel = select_compiler().compile(generate(arch))
        assert kernel.cubin and kernel.spill_bytes == 0


@pytest.mark.parametrize(
    ("generate", "ways"), [(generate_pack, 2), (generate_k_grouped_pack, 1)], ids=["pack", "groups"]
)
def test_global_memory_is_accessed_16_bytes_at_a_time(
    generate: Generate, ways: int, tmp_path: Path
) -> None:
    """Four loads along K, and four along MN, are under way before the first is waited for."""
    code = disassemble(build(generate("90a")).cubin, tmp_path)
    assert not [line for line in code if re.search(r"\b(LDL|STL)\b", line)], "local memory"
    loads = [i for i, line in enumerate(code) if "LDG.E.128" in line]
    assert len(loads) == 4 * ways
    for first in range(0, len(loads), 4):
        between = "\n".join(code[loads[first] : loads[first + 3]])
        assert not re.search(r"\b(PRMT|STG|LOP3|BRA)\b", between)
    assert len([line for line in code if "STG.E.128" in line]) == 1


@pytest.mark.parametrize("expression", ["PackArguments", "kThreads", "kSize", "kBlocksOfBand"])
def test_a_size_on_which_the_languages_differ_does_not_compile(
    expression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = generate_pack("90a")
    pattern = rf"(static_assert\(.*{re.escape(expression)}.* == )(\d+)"
    text, count = re.subn(pattern, lambda match: f"{match[1]}{int(match[2]) + 1}", source.text)
    assert count == 1
    with pytest.raises(CompilationError, match="static assertion failed"):
        select_compiler().compile(replace(source, text=text))
