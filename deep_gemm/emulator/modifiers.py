"""Full names of instructions, taken apart: what a pattern does not have is unknown."""

from __future__ import annotations

import re
from functools import lru_cache

from deep_gemm.emulator.errors import UnknownOpcodeError
from deep_gemm.emulator.ir import Instruction

# The memory model beyond what is checked is not modelled, so these parts only have to be right.
SCOPE = r"(?:\.(?:cta|cluster|gpu|sys))"
LEVELS = r"(?:\.L1::\w+)?(?:\.L2::(?!cache_hint)\w+)?(?:\.L2::cache_hint)?(?:\.L2::\w+)?"
SHARED = r"(?:\.shared(?:::cta)?)"

_compiled = lru_cache(maxsize=None)(re.compile)


def parts(instruction: Instruction, pattern: str) -> dict[str, str]:
    """The named groups of a pattern that the full name matches; "" for those that are absent.

    Raises:
        UnknownOpcodeError: the name does not match.
    """
    match = _compiled(pattern).fullmatch(instruction.name)
    if match is None:
        raise unknown(instruction)
    return match.groupdict(default="")


def unknown(instruction: Instruction) -> UnknownOpcodeError:
    """What is raised for an instruction that is not modelled, or not with these operands."""
    return UnknownOpcodeError(
        f"PTX line {instruction.line}: unknown instruction: {instruction.text}"
    )
