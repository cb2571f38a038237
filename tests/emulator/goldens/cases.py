"""All that is recorded."""

from __future__ import annotations

from goldens import dense, programs, tma, wgmma
from goldens.case import Case

CASES: list[Case] = [*programs.CASES, *tma.CASES, *wgmma.CASES, *dense.CASES]
