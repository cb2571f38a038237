"""The process that times one library's MQA logits: `python -m benchmarks.mqa_worker [FOLDER]`.

Without a folder it is this checkout's, with one the reference that is installed there.
"""

from __future__ import annotations

import statistics
import sys
from types import ModuleType

import torch

import deep_gemm
from benchmarks.mqa_problems import MAX_ERROR, Case, MqaProblem
from benchmarks.peers import import_peer
from benchmarks.worker import describe_gpu, is_healthy
from deep_gemm.testing.bench import profile_kernels
from deep_gemm.tuning.children import Handler, Message, serve


class Worker:
    """A library and the case at hand."""

    def __init__(self, library: ModuleType, device: str = "cuda") -> None:
        self._library = library
        self._device = device

    def handlers(self) -> dict[str, Handler]:
        return {"hello": self.hello, "measure": self.measure}

    def hello(self) -> Message:
        """Who is here."""
        version = getattr(self._library, "__version__", "unknown")
        return {**describe_gpu(), "version": version, "torch": torch.__version__}

    def checked(self, name: str) -> tuple[Case, float]:
        """The case of a problem, and its largest error.

        Raises:
            AssertionError: the error is over the limit.
        """
        case = MqaProblem.parse(name).case(self._library, self._device)
        error = max(case.errors(case.launch()))
        if not error <= MAX_ERROR:
            raise AssertionError(f"wrong logits: error {error:.3g}, at most {MAX_ERROR:.3g}")
        return case, error

    def measure(self, name: str, repeats: int) -> Message:
        """Checks and times a problem, with a cold L2.

        Returns:
            {"us": the median, "max_error": x}.
        """
        case, error = self.checked(name)
        (times,) = profile_kernels([case.launch], repeats)
        return {"us": statistics.median(times), "max_error": error}


if __name__ == "__main__":
    serve(Worker(import_peer(sys.argv[1]) if sys.argv[1:] else deep_gemm).handlers(), is_healthy)
