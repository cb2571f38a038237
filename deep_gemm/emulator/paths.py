"""Where a program's paths join: which lanes of a diverged warp may still come to an instruction."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deep_gemm.emulator.program import Step


class Paths:
    """The ways through a program. Each answer is found once."""

    def __init__(self, steps: Sequence[Step]) -> None:
        """Those of a program's steps, by program counter."""
        self._steps = steps
        self._known: dict[tuple[int, int], bool] = {}

    def always_lead(self, start: int, end: int) -> bool:
        """Whether every way on from `start` comes by `end`: then lanes there meet again, wherever a
        compiler has put the code that they run meanwhile."""
        key = start, end
        if key not in self._known:
            self._known[key] = self._search(start, end)
        return self._known[key]

    def _search(self, start: int, end: int) -> bool:
        ahead, seen = [start], {start, end}
        while ahead:
            pc = ahead.pop()
            if self._steps[pc].is_exit:
                return False
            following = [pc for pc in self._following(pc) if pc not in seen]
            seen.update(following)
            ahead += following
        return True

    def _following(self, pc: int) -> list[int]:
        step = self._steps[pc]
        if step.target is None:
            return [pc + 1]
        return [step.target] if step.guard is None else [step.target, pc + 1]
