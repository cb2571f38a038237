"""The worker process through a run: started again when a kernel has killed it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from deep_gemm.config.as_json import to_json
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.errors import DeepGemmError
from deep_gemm.tuning.children import Child, ChildDied, Message

WORKER = "deep_gemm.tuning.worker"
HELLO_SECONDS = 90
CHECK_SECONDS = 45
MEASURE_SECONDS = 180
MAX_RESTARTS = 5

Checked = dict[GemmConfig, Message]
"""For each configuration {"max_error"} or {"error"}."""


class NotTimed(DeepGemmError):
    """A problem could not be measured, for no fault of its configurations."""


class Session:
    """One worker at a time.

    Attributes:
        hello: what it said of its GPU.
        banned: configurations that killed it, and how; they are not tried again.
    """

    def __init__(self, device: str) -> None:
        self.hello: Message = {}
        self.banned: dict[GemmConfig, str] = {}
        self._device = device
        self._num_starts = 0
        self._child = self._start()

    def check(
        self, problem: GemmProblem, configs: Sequence[GemmConfig], tell: Callable[[int], object]
    ) -> Checked:
        """Has configurations checked for a problem, which is then the one that is measured.

        Args:
            problem: which.
            configs: in the order in which `measure` counts those that pass; none that is banned.
            tell: told how many are checked, as they are.

        Raises:
            NotTimed: there are no operands for it.
            DeepGemmError: the process died too often.
        """
        checked = None
        while checked is None:
            checked = self._try_check(problem, configs, tell)
        return checked

    def measure(self, chosen: Sequence[int], repeats: int) -> list[list[float]]:
        """Microseconds in each round of those that passed the check and are chosen, by number.

        Raises:
            NotTimed: they could not be measured. The process is there again, without a problem.
            DeepGemmError: the process died too often.
        """
        try:
            arguments = {"chosen": list(chosen), "repeats": repeats}
            reply = self._child.ask("measure", MEASURE_SECONDS, **arguments)
            if reply.get("fatal"):
                raise ChildDied(reply["error"])
        except ChildDied as error:
            self._restart()
            raise NotTimed(str(error)) from None
        if "error" in reply:
            raise NotTimed(reply["error"])
        times: list[list[float]] = reply["us"]
        return times

    def close(self) -> None:
        """Ends the process."""
        self._child.close()

    def _try_check(
        self, problem: GemmProblem, configs: Sequence[GemmConfig], tell: Callable[[int], object]
    ) -> Checked | None:
        """None if one killed the process, and with it what the others had left there."""
        checked: Checked = {c: {"error": self.banned[c]} for c in configs if c in self.banned}
        asked = [config for config in configs if config not in checked]
        fields = [to_json(config) for config in asked]
        replies = self._child.stream(
            "check", CHECK_SECONDS, problem=to_json(problem), configs=fields
        )
        for config in asked:
            try:
                reply = next(replies)
                if reply.get("fatal"):
                    raise ChildDied(reply["error"])
            except ChildDied as error:
                self.banned[config] = f"killed its process: {error}"
                self._restart()
                return None
            if "done" in reply:
                raise NotTimed(reply["error"])
            checked[config] = reply
            tell(len(checked))
        for _ in replies:
            pass
        return checked

    def _restart(self) -> None:
        self._child.kill()
        self._child = self._start()

    def _start(self) -> Child:
        self._num_starts += 1
        if self._num_starts > MAX_RESTARTS + 1:
            killers = ", ".join(config.name for config in self.banned)
            raise DeepGemmError(f"the process died {MAX_RESTARTS + 1} times; of {killers}")
        child = Child(WORKER, self._device)
        try:
            self.hello = child.ask("hello", HELLO_SECONDS)
        except ChildDied as error:
            raise DeepGemmError(f"the process that measures could not start: {error}") from None
        if "error" in self.hello:
            raise DeepGemmError(self.hello["error"])
        return child
