"""Configurations as JSON holds them: in result files, and on the way to a child process."""

from __future__ import annotations

from dataclasses import asdict, fields

from deep_gemm.config.gemm_config import GemmConfig, Grouping
from deep_gemm.tuning.children import Message


def to_json(config: GemmConfig) -> Message:
    """The configuration's fields."""
    return {**asdict(config), "grouping": config.grouping.value}


def from_json(row: Message) -> GemmConfig:
    """The configuration of a row that also holds other things, and may lack newer fields."""
    found = {field.name: row[field.name] for field in fields(GemmConfig) if field.name in row}
    if "grouping" in found:
        found["grouping"] = Grouping(found["grouping"])
    return GemmConfig(**found)
