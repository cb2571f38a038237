"""`import deep_gemm` is lean, loses nothing under -O, and finds every module in the wheel too."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "deep_gemm"

# torch's own libraries are not our doing, so what it maps by itself is taken off.
NEWLY_MAPPED = """
import torch

def mapped():
    with open("/proc/self/maps") as maps:
        return {line.rsplit("/", 1)[-1].strip() for line in maps if ".so" in line}

before = mapped()
import deep_gemm
import sys
new = sorted(name for name in mapped() - before if name.startswith(("libcuda.", "libnvrtc")))
sys.exit(f"mapped {new}" if new else 0)
"""


def run(code: str, *flags: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, *flags, "-c", code],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout, result.stderr


@pytest.mark.parametrize("flags", [(), ("-O",)], ids=["plain", "optimised"])
def test_import_is_silent_and_leaves_cuda_alone(flags: tuple[str, ...]) -> None:
    code = "import deep_gemm, sys, torch; sys.exit(torch.cuda.is_initialized())"
    assert run(code, *flags) == (0, "", "")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc/self/maps")
def test_import_loads_neither_driver_nor_compiler() -> None:
    assert run(NEWLY_MAPPED) == (0, "", "")


def test_a_name_brings_its_module_and_no_others() -> None:
    code = """
import sys
import torch
import deep_gemm
def ours():
    return {name.removeprefix("deep_gemm.") for name in sys.modules if name.startswith("deep_gemm")}
print(*sorted(ours() & {"gemm", "quantize", "mqa_logits", "jit.build", "config.select"}))
torch.ops.deep_gemm.fp8_gemm_nt
deep_gemm.fp8_gemm_nt
print(*sorted(ours() & {"gemm", "quantize", "mqa_logits", "warm_up", "testing", "emulator"}))
"""
    assert run(code) == (0, "\ngemm\n", "")


def test_no_module_relies_on_assert() -> None:
    asserts = [
        f"{path.relative_to(PACKAGE.parent)}:{node.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert)
    ]
    assert asserts == []


def test_every_folder_is_a_package_or_the_wheel_would_lack_it() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []
