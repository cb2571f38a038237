"""The requantising kernel's machine code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deep_gemm.jit.build import build
from deep_gemm.kernels.requantise import generate_requantise
from tests.compile.sass import disassemble


@pytest.mark.parametrize("arch", ["90a", "100a", "103a"])
def test_it_loads_and_stores_16_bytes_at_a_time_and_spills_nothing(
    arch: str, tmp_path: Path
) -> None:
    kernel = build(generate_requantise(arch))
    assert kernel.spill_bytes == kernel.static_smem_bytes == 0
    code = "\n".join(disassemble(kernel.cubin, tmp_path))
    assert re.search(r"\bLDG\.E\.128", code) and re.search(r"\bSTG\.E\.128", code)
    assert not re.search(r"\b(LDL|STL)\b", code)
