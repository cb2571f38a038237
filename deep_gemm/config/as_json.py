"""Problems and configurations as JSON has them: their fields, but for those at their defaults."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

from deep_gemm.config.gemm_config import BLOCK_K, GRAN_N, GemmConfig, Grouping
from deep_gemm.config.mqa_problem import HEAD_DIMS, HEADS, PAGE_KEYS, MqaProblem
from deep_gemm.config.problem import GemmProblem

MAX_DIMENSION = 2**31 - 1

ARCHS = ("90a", "100a", "103a")

Row = dict[str, Any]

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


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return value


def _rows(value: Any) -> tuple[int, int]:
    several = value if isinstance(value, list) else [value, value]
    first, last = _pair_of(_integer())(several)
    if first > last:
        raise ValueError("must not begin behind its end")
    return first, last


OF_PROBLEMS: dict[str, Parser] = {
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
    "gpu": _text,
}

OF_MQA_PROBLEMS: dict[str, Parser] = {
    "heads": _one_of(*HEADS),
    "head_dim": _one_of(*HEAD_DIMS),
    "page_keys": _one_of(0, *PAGE_KEYS),
    "next_n": _integer(),
    "logits_bytes": _one_of(2, 4),
    "arch": _one_of(*ARCHS),
}

OF_CONFIGS: dict[str, Parser] = {
    **dict.fromkeys(("block_m", "block_n", "num_stages", "num_math_warpgroups"), _integer()),
    **dict.fromkeys(("cluster_m", "cluster_n", "cluster_k", "num_store_rounds"), _integer()),
    **{name: OF_PROBLEMS[name] for name in ("grouping", "gran_n", "d_bytes")},
}


def to_json(described: GemmProblem | MqaProblem | GemmConfig) -> Row:
    """The fields that a reader needs to make it again: all that have no default, or another value
    than theirs."""
    row: Row = {}
    for field in fields(described):
        value = getattr(described, field.name)
        if value != field.default:
            row[field.name] = value.name.lower() if isinstance(value, Grouping) else value
    return row


def rows_from_json(given: object) -> tuple[GemmProblem, int]:
    """A problem whose m may be a pair: every M from the first to the second.

    Returns:
        The problem of the first M, and the last M.

    Raises:
        ValueError: it is not a problem; the text names the field.
    """
    values = _parsed(given, OF_PROBLEMS, GemmProblem)
    first, last = values.pop("m")
    problem = GemmProblem(m=first, **values)
    if problem.grouping is Grouping.DENSE and problem.num_groups != 1:
        raise ValueError(f'field "num_groups": must be 1 of a dense product, got {given}')
    return problem, last


def mqa_problem_from_json(given: object) -> MqaProblem:
    """The problem of these fields.

    Raises:
        ValueError: it is not a problem; the text names the field.
    """
    return MqaProblem(**_parsed(given, OF_MQA_PROBLEMS, MqaProblem))


def problem_from_json(given: object) -> GemmProblem:
    """The problem of these fields.

    Raises:
        ValueError: as `rows_from_json`, or m is a pair.
    """
    problem, last = rows_from_json(given)
    if last != problem.m:
        raise ValueError(f'field "m": must be one number here, got {[problem.m, last]}')
    return problem


def config_from_json(given: object) -> GemmConfig:
    """The configuration of these fields; it may be illegal.

    Raises:
        ValueError: it is not a configuration; the text names the field.
    """
    return GemmConfig(**_parsed(given, OF_CONFIGS, GemmConfig))


def _parsed(given: object, parsers: Mapping[str, Parser], kind: type[Any]) -> Row:
    """The values of the fields that are given, among which are all that have no default."""
    if not isinstance(given, Mapping):
        raise ValueError(f"must be a JSON object, got {json.dumps(given)}")
    values = {name: _field(name, value, parsers) for name, value in given.items()}
    needed = [field.name for field in fields(kind) if field.default is MISSING]
    missing = [name for name in needed if name not in values]
    if missing:
        raise ValueError(f"field {json.dumps(missing[0])} is missing")
    return values


def _field(name: str, value: Any, parsers: Mapping[str, Parser]) -> Any:
    if name not in parsers:
        raise ValueError(f"field {json.dumps(name)}: must be one of {', '.join(parsers)}")
    try:
        return parsers[name](value)
    except ValueError as error:
        raise ValueError(f"field {json.dumps(name)}: {error}, got {json.dumps(value)}") from None
