"""A case: something with a name that gives the same bytes on a GPU and in the emulator."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from goldens.machines import Bytes, Launch, Machine

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"


class Case(Protocol):
    """What is recorded.

    Attributes:
        name: unique; what follows a slash is the variant.
        awaits: what the emulator does not know yet; empty if it must run.
    """

    @property
    def name(self) -> str: ...

    @property
    def awaits(self) -> str: ...

    def digest(self) -> str:
        """Of what is run, in hex; empty where equal results are expected of another text."""

    def run(self, machine: Machine) -> Bytes:
        """The output's bytes."""


@dataclass(frozen=True)
class ProgramCase:
    """A PTX program on one input.

    Attributes:
        make: builds the launch; called only when the case runs.
    """

    name: str
    make: Callable[[], Launch]
    awaits: str = ""

    def digest(self) -> str:
        return hashlib.sha256(self.make().ptx.encode()).hexdigest()

    def run(self, machine: Machine) -> Bytes:
        return machine.run(self.make())


def program(name: str) -> str:
    """The text of tests/emulator/programs/NAME.ptx."""
    return (PROGRAMS / f"{name}.ptx").read_text()


def as_bytes(*arrays: NDArray[np.generic]) -> Bytes:
    """The arrays' bytes, one after the other."""
    parts = [np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays]
    return np.concatenate(parts)
