"""Problems as text: one JSON object per line, with the fields of GemmProblem, or of MqaProblem.

    {"m": [1, 8192], "n": 7168, "k": 2048}
    {"m": 64, "n": 4096, "k": 7168, "grouping": "m_grouped", "num_groups": 32, "alignment": 128}
    {"heads": 64, "head_dim": 128, "page_keys": 64, "next_n": 2}

m may be a pair: every M from the first to the second. A field that is left out has its default.
"""

from __future__ import annotations

import json
from pathlib import Path

from deep_gemm.config.as_json import mqa_problem_from_json, rows_from_json, to_json
from deep_gemm.config.mqa_problem import MqaProblem
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.reach import ProblemRange
from deep_gemm.errors import ArgumentError


def line_of(problem: GemmProblem | MqaProblem) -> str:
    """A problem as a line, without its end: its sizes, and what is not a default."""
    return json.dumps(to_json(problem))


def parse_line(text: str) -> ProblemRange | MqaProblem:
    """What a line says.

    Raises:
        ValueError: it is not a problem; the text names the field.
    """
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    if isinstance(given, dict) and "heads" in given:
        return mqa_problem_from_json(given)
    return ProblemRange(*rows_from_json(given))


def read_problems(path: str | Path) -> list[ProblemRange | MqaProblem]:
    """The problems in a file, such as `DG_JIT_RECORD` writes, each once; empty lines are skipped.

    Raises:
        ArgumentError: the file cannot be read, or a line is not a problem; the text names file,
            line and field.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"path: {path} cannot be read ({error})") from None
    found: dict[ProblemRange | MqaProblem, None] = {}
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                found[parse_line(line)] = None
        except ValueError as error:
            raise ArgumentError(f"{path} line {number}: {error}") from None
    return list(found)
