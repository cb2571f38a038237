"""What the emulator reports. Nothing is guessed: what PTX leaves undefined is an error."""

from __future__ import annotations

from deep_gemm.errors import DeepGemmError


class EmulationError(DeepGemmError):
    """The emulated program did something that the emulator refuses; the text says where."""


class UnknownOpcodeError(EmulationError):
    """An instruction that the emulator does not know, with its line."""


class HazardError(EmulationError):
    """A race, a deadlock or another rule of the PTX ISA broken.

    Attributes:
        rule: short name of the rule, such as "R2".
    """

    def __init__(self, rule: str, text: str) -> None:
        """Puts the rule before the text."""
        super().__init__(f"{rule}: {text}")
        self.rule = rule
