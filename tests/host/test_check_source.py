"""Each rule of tools/check_source.py, on a snippet that keeps it and on one that breaks it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from check_source import check

ROOT = Path(__file__).parents[2]
ASM = 'asm volatile("fence;");'


def device_function(num_lines: int) -> str:
    return "__device__ void f(int x) {\n" + "x++;\n" * (num_lines - 2) + "}\n"


def python_function(num_lines: int) -> str:
    return "def f(x):\n" + "    x()\n" * (num_lines - 1)


GOOD = {
    "asm in the PTX layer": ("csrc/ptx/a.cuh", f"void f() {{ {ASM} }}"),
    "asm in the generator": ("deep_gemm/jit/codegen.py", f"TEXT = '''{ASM}'''"),
    "asm in a comment": ("csrc/a.cuh", f"// {ASM}\n/* {ASM} */\n"),
    "asm in a name": ("csrc/a.cuh", "void plasma(); int asm_count = f(1);"),
    "400 lines": ("csrc/a.cuh", "\n" * 400),
    "60 lines of Python": ("tools/a.py", python_function(60)),
    "a docstring is free": ("tools/a.py", 'def f(x):\n    """A\n\n    B."""\n' + "    x()\n" * 59),
    "80 lines on the device": ("csrc/a.cuh", device_function(80)),
    "100 columns": ("csrc/a.cuh", "/" * 100),
    "long namespace": ("csrc/a.cuh", "namespace a::b {\n" + device_function(50) * 3 + "}\n"),
    "long struct": (
        "csrc/a.cuh",
        "template <class T, class U = A<T>>\nstruct alignas(16) S : B<f(1)> {\n"
        + device_function(50) * 2
        + "};\n",
    ),
    "braces that are not code": (
        "csrc/a.cuh",
        "#define OPEN {{ \\\n { {\nchar c = '{', *s = \"{\\\"{\"; // {\nint n = 1'000;\n",
    ),
    "relative paths": ("README.md", "../work/x a/home/b ~/home/x /tmp/work"),
}
BAD = {
    "asm in a kernel": ("csrc/kernels/a.cuh", f"\n\nvoid f() {{ {ASM} }}", 3),
    "asm in Python": ("deep_gemm/gemm.py", f"TEXT = '{ASM}'", 1),
    "401 lines": ("csrc/a.cuh", "\n" * 401, 401),
    "61 lines of Python": ("tools/a.py", "\n" + python_function(61), 2),
    "61 lines in a method": (
        "tools/a.py",
        "class A:\n    def f(self):\n" + "        f()\n" * 60,
        2,
    ),
    "81 lines on the device": ("csrc/a.cuh", "int a;\n\n// why\n" + device_function(81), 4),
    "81 lines in a scope": (
        "csrc/a.cuh",
        'extern "C" {\nnamespace a {\nstruct B {\n' + device_function(81) + "};\n}\n}\n",
        4,
    ),
    "81 lines in an entry": ("csrc/a.cuh", 'extern "C" __global__ ' + device_function(81), 1),
    "81 lines of a template": (
        "csrc/a.cuh",
        "template <class T, bool kB = true>\n" + device_function(80),
        1,
    ),
    "81 lines of a constructor": ("csrc/a.cuh", "A::A(int x) : b{x} {\n" + "x++;\n" * 79 + "}", 1),
    "101 columns": ("csrc/a.cuh", "\n" + "/" * 101, 2),
    "too many closing braces": ("csrc/a.cuh", "void f() {}\n}\n", 2),
    "too few closing braces": ("csrc/a.cuh", "void f() {\n", 2),
    "a home": ("docs/a.md", "see\n/" + "home/me/x", 2),
    "a work tree": ("docs/a.json", '"file:///' + 'work/x"', 1),
}


@pytest.mark.parametrize("name,text", GOOD.values(), ids=GOOD)
def test_accepts(name: str, text: str) -> None:
    assert list(check(name, text)) == []


@pytest.mark.parametrize("name,text,line", BAD.values(), ids=BAD)
def test_rejects_at_the_right_line(name: str, text: str, line: int) -> None:
    assert [found for found, _ in check(name, text)] == [line]


def test_command_line_names_the_place_and_fails(tmp_path: Path) -> None:
    (tmp_path / "good.cuh").write_text("")
    (tmp_path / "bad.cuh").write_text("}")
    command = [sys.executable, str(ROOT / "tools/check_source.py"), "good.cuh", "bad.cuh"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.splitlines()) == (
        1,
        ["bad.cuh:1: closing brace without an opening one"],
    )
