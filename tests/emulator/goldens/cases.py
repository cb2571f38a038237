"""All that is recorded."""

from __future__ import annotations

from goldens import dense, programs, tma, wgmma
from goldens.case import Case

CASES: list[Case] = [*programs.CASES, *tma.CASES, *wgmma.CASES, *dense.CASES]
"""What the emulator does not know yet comes in between: a worker that fails is replaced."""
