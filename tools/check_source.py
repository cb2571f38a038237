"""The house rules that no other linter knows: prints `file:line: violation`, exits 1 if any.

Usage: python tools/check_source.py [FILE ...], by default every file that git does not ignore.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MAX_FILE_LINES = 400
MAX_PYTHON_FUNCTION_LINES = 60
MAX_DEVICE_FUNCTION_LINES = 80
MAX_COLUMNS = 100

ASM = re.compile(r"\b(?:asm|__asm__)\s*(?:volatile\b|__volatile__\b)?\s*\(")
MAY_USE_ASM = ("csrc/ptx/", "deep_gemm/jit/codegen.py", "tests/")
MACHINE_PATH = re.compile(r"(?<![\w.~])/(?:home|root|work)/|/tmp/[w]\b")

# What holds no code of its own: comments, strings, characters, preprocessor directives.
NOT_CODE = re.compile(
    r"//[^\n]*|/\*.*?\*/"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'(?:\\.|[^'\\\n])'"
    r"|^[ \t]*#(?:\\\n|[^\n])*",
    re.DOTALL | re.MULTILINE,
)
# A brace behind one of these opens a scope; the functions inside are what is measured.
SCOPE = re.compile(
    r"\s*(?:template\b.*>)?\s*(?:(?:inline\s+)?namespace|struct|class|union|enum)\b"
    r"|\s*extern\s*$",
    re.DOTALL,
)

Violations = Iterator[tuple[int, str]]


def main(arguments: list[str]) -> int:
    found = 0
    for name in arguments or files_of_git():
        for line, message in check(name, read_text(Path(name))):
            print(f"{name}:{line}: {message}")
            found += 1
    return 1 if found else 0


def files_of_git() -> list[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return sorted(filter(None, output.split("\0")))


def read_text(path: Path) -> str:
    """The file's text; empty for a binary file and for one deleted but not yet committed."""
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
        return ""


def check(name: str, text: str) -> Violations:
    """Every violation in the file `name` (relative to the repository) of the given text."""
    yield from matches(MACHINE_PATH, text, "absolute path of one machine")
    if not name.endswith((".py", ".cuh")):
        return
    num_lines = len(text.splitlines())
    if num_lines > MAX_FILE_LINES:
        yield num_lines, f"file has {num_lines} lines, at most {MAX_FILE_LINES} are allowed"
    code = blank_non_code(text) if name.endswith(".cuh") else text
    if not name.startswith(MAY_USE_ASM):
        yield from matches(ASM, code, "asm belongs in csrc/ptx/, one instruction a function")
    if name.endswith(".py"):
        yield from long_python_functions(text)
    else:
        yield from long_lines(text)
        yield from long_device_functions(code)


def matches(pattern: re.Pattern[str], text: str, message: str) -> Violations:
    for match in pattern.finditer(text):
        yield line_of(text, match.start()), message


def line_of(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def long_lines(text: str) -> Violations:
    for line, content in enumerate(text.splitlines(), start=1):
        if len(content) > MAX_COLUMNS:
            yield line, f"line has {len(content)} columns, at most {MAX_COLUMNS} are allowed"


def long_python_functions(text: str) -> Violations:
    """Functions over the limit; a docstring is not counted, as public ones must be thorough."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        num_lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if ast.get_docstring(node) is not None:
            docstring = node.body[0]
            num_lines -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
        yield from too_long(node.lineno, num_lines, MAX_PYTHON_FUNCTION_LINES)


def blank_non_code(text: str) -> str:
    """CUDA C++ with all that is not code turned into spaces: offsets and lines stay."""
    return NOT_CODE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def long_device_functions(code: str) -> Violations:
    """Outermost braces that open no scope, from the start of their header to the closing brace."""
    scopes: list[bool] = []  # of each open brace: does it open a scope?
    header_start = function_start = 0
    for match in re.finditer(r"[;{}]", code):
        header = code[header_start : match.start()]
        if match.group() == "{":
            if all(scopes):
                function_start = match.start() - len(header.lstrip())
            scopes.append(SCOPE.match(header) is not None)
        elif match.group() == "}":
            if not scopes:
                yield line_of(code, match.start()), "closing brace without an opening one"
                return
            if not scopes.pop() and all(scopes):
                first, last = line_of(code, function_start), line_of(code, match.start())
                yield from too_long(first, last - first + 1, MAX_DEVICE_FUNCTION_LINES)
        header_start = match.end()
    if scopes:
        yield line_of(code, len(code)), "opening brace without a closing one"


def too_long(line: int, num_lines: int, limit: int) -> Violations:
    if num_lines > limit:
        yield line, f"function has {num_lines} lines, at most {limit} are allowed"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
