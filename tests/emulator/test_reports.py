"""Reports name source lines: parsed from what compilers write, and right for seeded defects."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.emulator.errors import EmulationError, HazardError
from deep_gemm.emulator.ptx import Place, parse
from deep_gemm.jit.codegen import generate
from deep_gemm.jit.compiler import Compiler
from deep_gemm.jit.source import forget_headers, include_root
from tests.emulator.defects import DEFECTS
from tests.emulator.defects_of_order import DEFECTS_OF_ORDER
from tests.emulator.dense import ORDERS, run_case
from tests.emulator.test_defects import compiled, headers
from tests.emulator.test_ptx_compilers import compilers

__all__ = ["headers"]

HEAD = ".version 9.0\n.target sm_90a\n.address_size 64\n"
FILES = """
.file 1 "/csrc/k.cu"
.file 2 "/csrc/./ptx/copy.cuh"
.file 3 "/opt/toolkit/include/intrinsics.hpp"
"""


def places(body: str, files: str = FILES) -> list[str]:
    module = parse(f"{HEAD}.entry k()\n{{\n{body}\n}}\n{files}")
    return [str(instruction.place) for instruction in module.kernels["k"].instructions]


def test_instructions_have_the_place_of_the_directive_before() -> None:
    assert places("ret;\n.loc 1 7 5\nret;\nret;\n.loc 2 9 1 // copy.cuh:9\n\nret;") == [
        "None",
        "k.cu:7",
        "k.cu:7",
        "ptx/copy.cuh:9",
    ]


def test_inlined_calls_form_a_chain() -> None:
    body = """
    .loc 2 80 5, function_name $L__info_string0, inlined_at 1 29 5
    .loc 3 16 15, function_name $L__info_string1+24, inlined_at 2 80 5
    ret;
    """
    assert places(body) == ["intrinsics.hpp:16 < ptx/copy.cuh:80 < k.cu:29"]


def test_line_0_is_no_place() -> None:
    assert places(".loc 1 3 1\nret;\n.loc 1 0 1\nret;") == ["k.cu:3", "None"]


def test_a_folder_may_stand_before_the_name() -> None:
    assert places(".loc 1 3 1\nret;", '.file 1 "/folder" "k.py"') == ["k.py:3"]


def test_a_place_in_an_unknown_file_is_refused() -> None:
    with pytest.raises(EmulationError, match="source file 4 has no name"):
        places(".loc 4 1 1\nret;")


@pytest.mark.parametrize("compiler", compilers(), ids=lambda c: f"{c.name}-{c.version}")
def test_compilers_name_lines_of_csrc(compiler: Compiler) -> None:
    text = compiler.compile(generate(GemmConfig(64, 32, 3, 1), "90a")).ptx
    (kernel,) = parse(text).kernels.values()
    for instruction in kernel.instructions:
        if instruction.opcode in ("wgmma", "cp", "mbarrier", "stmatrix", "fence"):
            assert innermost_lines_of_csrc(instruction.place)


def innermost_lines_of_csrc(place: Place | None) -> list[str]:
    """The lines of csrc/ on the way to an instruction; all of them exist."""
    lines = []
    while place is not None:
        path = include_root() / place.file
        if path.exists():
            lines.append(path.read_text().splitlines()[place.line - 1])
        place = place.inlined_at
    return lines


def report(name: str, orders: list[tuple[Timing, int]], copy: Path) -> str:
    """What the emulator says first of a defect, by its name in DEFECTS."""
    (defect,) = (defect for defect in (*DEFECTS, *DEFECTS_OF_ORDER) if defect.name == name)
    header = copy / defect.header
    header.write_text(header.read_text().replace(defect.before, defect.after))
    forget_headers()
    kernel = compiled(defect.case)
    for order in orders:
        try:
            run_case(defect.case, order, kernel=kernel)
        except HazardError as hazard:
            return str(hazard)
    raise AssertionError(f"no report of: {name}")


def place_of(copy: Path, header: str, text: str) -> str:
    """`header:line` of the only line with this text."""
    lines = (copy / header).read_text().splitlines()
    (line,) = (i for i, content in enumerate(lines, 1) if text in content)
    return f"{header}:{line}"


@pytest.mark.parametrize("timing", [Timing.EARLY, Timing.LATE])
def test_a_missing_proxy_fence_names_store_and_write(timing: Timing, headers: Path) -> None:
    text = report("no proxy fence", [(timing, 0)], headers)
    store = place_of(headers, "epilogue/store_block.cuh", "ptx::tma_store_3d(")
    write = place_of(headers, "epilogue/stage_block.cuh", "ptx::stmatrix_x4(")
    found = re.fullmatch(
        r"R1: .* \[kernel sm90_fp8_gemm_1d2d, CTA 0, warp \d, (?P<first>.*);"
        r" other access: CTA 0, warp \d, (?P<second>.*)\]",
        text,
    )
    assert found is not None, text
    assert f" < {store} < " in found["first"]
    assert re.search(r"line \d+: cp\.async\.bulk\.tensor\.3d\.global", found["first"])
    assert f" < {write} < " in found["second"]
    assert "stmatrix" in found["second"]


@pytest.mark.parametrize("timing", [Timing.EARLY, Timing.LATE])
def test_a_missing_fence_behind_reads_names_load_and_read(timing: Timing, headers: Path) -> None:
    text = report("no proxy fence behind reads", [(timing, 0)], headers)
    load = place_of(
        headers, "mainloop/load_scale_factors.cuh", "pipeline.full_barrier(state), block,"
    )
    found = re.fullmatch(
        r"R35: .* \[kernel sm90_fp8_gemm_1d2d, CTA 0, warp \d, (?P<first>.*);"
        r" other access: CTA 0, warp \d, (?P<second>.*)\]",
        text,
    )
    assert found is not None, text
    assert f" < {load} < " in found["first"]
    assert "cp.async.bulk.tensor.3d.shared" in found["first"]
    assert " < mainloop/scale_factors.cuh:" in found["second"]
    assert "ld.shared" in found["second"]


def test_an_early_release_names_the_copy_and_the_product(headers: Path) -> None:
    text = report("stage released before wgmma has read it", ORDERS, headers)
    first, _, second = text.partition("; other access: ")
    assert re.search(r"R3: .* ptx/copy\.cuh:\d+ < mainloop/load_tiles\.cuh:\d+ < ", first), text
    assert "cp.async.bulk.tensor" in first
    multiply = place_of(headers, "mainloop/multiply.cuh", "::mma_async(")
    assert f" < {multiply} < " in second, text
    assert "wgmma.mma_async" in second
