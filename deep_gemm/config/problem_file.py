"""Problems as text: one JSON object per line, with the fields of GemmProblem.

    {"m": [1, 8192], "n": 7168, "k": 2048}
    {"m": 64, "n": 4096, "k": 7168, "grouping": "m_grouped", "num_groups": 32, "alignment": 128}

m may be a pair: every M from the first to the second. A field that is left out has its default.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from deep_gemm.config.gemm_config import BLOCK_K, GRAN_N, Grouping
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.reach import ProblemRange
from deep_gemm.errors import ArgumentError

MAX_DIMENSION = 2**31 - 1

ARCHS = ("90a", "100a", "103a")

Parser = Callable[[Any], Any]


def _integer(least: int = 1) -> Parser:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError("must be an int")
        if not least <= value <= MAX_DIMENSION:
            raise ValueError(f"must be in {least}..{MAX_DIMENSION}")
        return value

    return parse


def _one_of(*allowed: object) -> Parser:
    def parse(value: Any) -> Any:
        if isinstance(value, bool) is not isinstance(allowed[0], bool) or value not in allowed:
            raise ValueError(f"must be one of {', '.join(json.dumps(item) for item in allowed)}")
        return value

    return parse


def _grouping(value: Any) -> Grouping:
    return Grouping[_one_of(*(grouping.name.lower() for grouping in Grouping))(value).upper()]


def _pair_of(parse: Parser) -> Parser:
    def parse_pair(value: Any) -> tuple[Any, Any]:
        if not isinstance(value, list) or len(value) != 2:
            raise ValueError("must be a list of two")
        return parse(value[0]), parse(value[1])

    return parse_pair


def _rows(value: Any) -> tuple[int, int]:
    several = value if isinstance(value, list) else [value, value]
    first, last = _pair_of(_integer())(several)
    if first > last:
        raise ValueError("must not begin behind its end")
    return first, last


PARSERS: dict[str, Parser] = {
    "m": _rows,
    "n": _integer(),
    "k": _integer(),
    "arch": _one_of(*ARCHS),
    "num_sms": _integer(),
    "grouping": _grouping,
    "num_groups": _integer(),
    "alignment": _integer(),
    "gran_n": _one_of(1, GRAN_N),
    "d_bytes": _one_of(2, 4),
    "block_multiple": _pair_of(_integer()),
    "head_columns": _integer(0),
    "pdl": _one_of(False, True),
    "splits_k": _one_of(False, True),
    "few_kernels": _one_of(False, True),
    "mn_major": _pair_of(_one_of(False, True)),
    "gran_k": _pair_of(_one_of(32, BLOCK_K)),
}

DEFAULTS = GemmProblem(0, 0, 0)


def line_of(problem: GemmProblem) -> str:
    """A problem as a line, without its end: m, n, k and what is not a default."""
    values = {field.name: getattr(problem, field.name) for field in fields(problem)}
    kept = {
        name: value.name.lower() if isinstance(value, Grouping) else value
        for name, value in values.items()
        if value != getattr(DEFAULTS, name)
    }
    return json.dumps(kept)


def parse_line(text: str) -> ProblemRange:
    """What a line says.

    Raises:
        ValueError: it is not a problem; the text names the field.
    """
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(given, dict):
        raise ValueError(f"must be a JSON object, got {text.strip()}")
    values = {name: _field(name, value) for name, value in given.items()}
    missing = [name for name in ("m", "n", "k") if name not in values]
    if missing:
        raise ValueError(f"field {json.dumps(missing[0])} is missing")
    first, last = values.pop("m")
    problem = replace(DEFAULTS, m=first, **values)
    if problem.grouping is Grouping.DENSE and problem.num_groups != 1:
        raise ValueError(f'field "num_groups": must be 1 of a dense product, got {given}')
    return ProblemRange(problem, last)


def _field(name: str, value: Any) -> Any:
    if name not in PARSERS:
        raise ValueError(f"field {json.dumps(name)}: must be one of {', '.join(PARSERS)}")
    try:
        return PARSERS[name](value)
    except ValueError as error:
        raise ValueError(f"field {json.dumps(name)}: {error}, got {json.dumps(value)}") from None


def read_problems(path: str | Path) -> list[ProblemRange]:
    """The problems in a file, such as `DG_JIT_RECORD` writes, each once; empty lines are skipped.

    Raises:
        ArgumentError: the file cannot be read, or a line is not a problem; the text names file,
            line and field.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"path: {path} cannot be read ({error})") from None
    found: dict[ProblemRange, None] = {}
    for number, line in enumerate(lines, 1):
        try:
            if line.strip():
                found[parse_line(line)] = None
        except ValueError as error:
            raise ArgumentError(f"{path} line {number}: {error}") from None
    return list(found)
