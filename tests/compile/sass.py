"""Machine code as text, where a disassembler is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

_LINE = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(.*\S)|^(\.L_x_\d+:)", re.MULTILINE)
_BRANCH = re.compile(r"\bBRA\b.*`\((\.L_x_\d+)\)")
_QGMMA = re.compile(r"QGMMA\.(\S+)\.F32\.E4M3\.E4M3 (R\d+), \S+, (R\d+|RZ)(.*)")


@cache
def find_nvdisasm() -> Path | None:
    """nvdisasm of PATH, else of an NVIDIA wheel."""
    on_path = shutil.which("nvdisasm")
    if on_path is not None:
        return Path(on_path)
    places = (path for entry in sys.path for path in Path(entry).glob("nvidia/*/bin/nvdisasm"))
    return next(places, None)


def disassemble(cubin: bytes, folder: Path) -> list[str]:
    """The instructions and labels of a cubin; skips without a disassembler."""
    nvdisasm = find_nvdisasm()
    if nvdisasm is None:
        pytest.skip("needs nvdisasm on PATH or in a wheel (nvidia-cuda-nvdisasm)")
    file = folder / "kernel.cubin"
    file.write_bytes(cubin)
    command = [str(nvdisasm), "-c", str(file)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [instruction or label for instruction, label in _LINE.findall(text)]


def main_loop(code: list[str]) -> list[str]:
    """The smallest loop that multiplies: from a branch's target down to the branch."""
    places = {line.removesuffix(":"): i for i, line in enumerate(code) if line.endswith(":")}
    branches = [(i, match[1]) for i, line in enumerate(code) if (match := _BRANCH.search(line))]
    loops = [code[places[label] : i + 1] for i, label in branches if places[label] < i]
    return min((loop for loop in loops if wgmmas(loop)), key=len)


@dataclass(frozen=True)
class Wgmma:
    """One FP8 WGMMA: its shape, its accumulators, and where it stands in its group."""

    shape: str
    accumulator: str
    starts_from_zero: bool
    ends_group: bool


def wgmmas(code: list[str]) -> list[Wgmma]:
    matches = filter(None, map(_QGMMA.search, code))
    return [Wgmma(m[1], m[2], m[3] == "RZ", "gsb0" in m[4]) for m in matches]
