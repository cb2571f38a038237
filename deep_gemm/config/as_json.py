"""Problems and configurations as JSON holds them: their fields, but for those at their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from enum import Enum
from typing import Any, TypeVar

from deep_gemm.config.gemm_config import GRAN_N, GemmConfig, Grouping
from deep_gemm.config.problem import GemmProblem
from deep_gemm.errors import ArgumentError

Row = dict[str, Any]

_Described = TypeVar("_Described", GemmProblem, GemmConfig)


def to_json(described: GemmProblem | GemmConfig) -> Row:
    """The fields that a reader needs to make it again."""
    row: Row = {}
    for field in fields(described):
        value = getattr(described, field.name)
        if value != field.default:
            row[field.name] = value.value if isinstance(value, Enum) else value
    return row


def problem_from_json(row: object) -> GemmProblem:
    """The problem of these fields.

    Raises:
        ArgumentError: it is no object, a field is missing or unknown, or its value cannot be.
    """
    problem = _from_json(GemmProblem, row)
    for name in ("m", "n", "k", "num_sms", "num_groups", "alignment"):
        if getattr(problem, name) < 1:
            raise ArgumentError(f"{name}: must be at least 1, got {getattr(problem, name)}")
    for name, allowed in (("gran_n", (1, GRAN_N)), ("d_bytes", (2, 4))):
        if getattr(problem, name) not in allowed:
            raise ArgumentError(f"{name}: must be one of {allowed}, got {getattr(problem, name)}")
    return problem


def config_from_json(row: object) -> GemmConfig:
    """The configuration of these fields; it may be illegal.

    Raises:
        ArgumentError: it is no object, or a field is missing, unknown or of another type.
    """
    return _from_json(GemmConfig, row)


def _from_json(kind: type[_Described], row: object) -> _Described:
    if not isinstance(row, Mapping):
        raise ArgumentError(f"{kind.__name__}: must be an object of fields, got {row!r}")
    known: dict[str, Field[Any]] = {field.name: field for field in fields(kind)}
    names = ", ".join(known)
    for name in row:
        if name not in known:
            raise ArgumentError(f"{kind.__name__}: must have no fields but {names}, got {name!r}")
    for name, field in known.items():
        if field.default is MISSING and name not in row:
            raise ArgumentError(f"{kind.__name__}: must have a field {name}, got {dict(row)}")
    values: dict[str, Any] = {name: _value(known[name], value) for name, value in row.items()}
    return kind(**values)


def _value(field: Field[Any], value: Any) -> Any:
    """A field's value, of the type of its default; sizes have none and are ints."""
    default = 0 if field.default is MISSING else field.default
    if isinstance(default, Grouping):
        names = [grouping.value for grouping in Grouping]
        if value not in names:
            raise ArgumentError(f"{field.name}: must be one of {names}, got {value!r}")
        return Grouping(value)
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)) or list(map(type, value)) != list(
            map(type, default)
        ):
            raise ArgumentError(f"{field.name}: must be {len(default)} ints, got {value!r}")
        return tuple(value)
    if type(value) is not type(default):
        raise ArgumentError(f"{field.name}: must be of {type(default).__name__}, got {value!r}")
    return value
