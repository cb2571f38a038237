"""The transposing kernel's machine code: vectors, no local memory, as many CTAs as it says."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from deep_gemm.errors import CompilationError
from deep_gemm.jit.build import build
from deep_gemm.jit.compiler import select_compiler
from deep_gemm.jit.nvrtc import Nvrtc
from deep_gemm.jit.nvrtc_library import Library
from deep_gemm.kernels.transpose import CTAS_PER_SM, NUM_THREADS, generate_transpose
from tests.compile.sass import disassemble
from tests.compile.test_compilers import label, nvrtc_libraries

REGISTERS_OF_SM = 65536

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

each_size = pytest.mark.parametrize("element_bytes", [1, 4])


@pytest.mark.parametrize("library", nvrtc_libraries(), ids=label)
@each_size
def test_every_nvrtc_compiles_it_without_spills(library: Library, element_bytes: int) -> None:
    kernel = Nvrtc(library).compile(generate_transpose(element_bytes, "90a"))
    assert kernel.spill_bytes == kernel.static_smem_bytes == 0
    assert kernel.registers * NUM_THREADS * CTAS_PER_SM <= REGISTERS_OF_SM


@each_size
def test_global_memory_is_accessed_16_bytes_at_a_time(element_bytes: int, tmp_path: Path) -> None:
    code = disassemble(build(generate_transpose(element_bytes, "90a")).cubin, tmp_path)
    assert not [line for line in code if re.search(r"\b(LDL|STL)\b", line)], "local memory"
    loads = [i for i, line in enumerate(code) if "LDG.E.128" in line]
    assert len(loads) == len([line for line in code if "STG.E.128" in line]) == 4
    # All are under way before the first of their values is waited for.
    between = "\n".join(code[loads[0] : loads[-1]])
    assert not re.search(r"\b(PRMT|STS|BRA)\b", between)
    bytes_to_turn = element_bytes == 1
    assert len([line for line in code if re.search(r"\bPRMT\b", line)]) == 32 * bytes_to_turn


@pytest.mark.parametrize("expression", ["TransposeArguments", "Tile)", "kRows", "kColumns"])
def test_a_size_on_which_the_languages_differ_does_not_compile(
    expression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = generate_transpose(1, "90a")
    pattern = rf"(static_assert\(.*{re.escape(expression)}.* == )(\d+)"
    text, count = re.subn(pattern, lambda match: f"{match[1]}{int(match[2]) + 1}", source.text)
    assert count == 1
    with pytest.raises(CompilationError, match="static assertion failed"):
        select_compiler().compile(replace(source, text=text))
