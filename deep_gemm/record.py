"""The problems that a process meets, appended to the file that `DG_JIT_RECORD` names."""

from __future__ import annotations

import os
import threading
import warnings
from typing import TYPE_CHECKING

from deep_gemm import knobs
from deep_gemm.config.problem import GemmProblem

if TYPE_CHECKING:
    from deep_gemm.config.mqa_problem import MqaProblem


class _Recorded:
    """What this process has written."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.problems: set[GemmProblem | MqaProblem] = set()
        self.has_warned = False


_recorded = _Recorded()


def record(problem: GemmProblem | MqaProblem) -> None:
    """Appends a problem that this process has not met before, if the knob is set.

    Many processes may write the same file: a line goes in at its end, in one piece. A file that
    cannot be written costs a warning.
    """
    path = knobs.jit_record.get()
    if path is None:
        return
    from deep_gemm.config.problem_file import line_of

    with _recorded.lock:
        if problem in _recorded.problems:
            return
        _recorded.problems.add(problem)
        try:
            file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, f"{line_of(problem)}\n".encode())
            finally:
                os.close(file)
        except OSError as error:
            _warn(f"DG_JIT_RECORD: {path} cannot be written ({error}); problems are not recorded")


def _warn(text: str) -> None:
    if not _recorded.has_warned:
        _recorded.has_warned = True
        warnings.warn(text, RuntimeWarning, stacklevel=4)


def forget_recorded() -> None:
    """Make the next problem behave as this process's first; for tests."""
    with _recorded.lock:
        _recorded.problems.clear()
        _recorded.has_warned = False
