"""What the emulator reports. Nothing is guessed: what PTX leaves undefined is an error."""

from __future__ import annotations

from typing import NamedTuple

from deep_gemm.errors import DeepGemmError


class Access(NamedTuple):
    """Who accessed memory: the agent (a warp of a CTA), and its program counter then."""

    agent: int
    pc: int


class EmulationError(DeepGemmError):
    """The emulated program did something that the emulator refuses; the text says where.

    Attributes:
        is_located: whether the text names the instruction already.
    """

    is_located = False


class UnknownOpcodeError(EmulationError):
    """An instruction that the emulator does not know, with its line."""


class HazardError(EmulationError):
    """A race, a deadlock or another rule of the PTX ISA broken.

    Attributes:
        rule: short name of the rule, such as "R2".
        other: the access that this one is in conflict with, where it is known.
    """

    def __init__(self, rule: str, text: str, other: Access | None = None) -> None:
        """Puts the rule before the text."""
        super().__init__(f"{rule}: {text}")
        self.rule = rule
        self.other = other
