"""The MQA table: our kernels beside the packaged reference's."""

from __future__ import annotations

import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks import results
from benchmarks.monitor import Monitor, describe_run, summarise
from benchmarks.mqa_problems import PROBLEMS, MqaProblem
from benchmarks.run import why_no_reference
from deep_gemm.config.tuned_file import slug
from deep_gemm.tuning.children import Child, ChildDied, Message, log

WORKER = "benchmarks.mqa_worker"
HELLO_SECONDS = 90
MEASURE_SECONDS = 90

METHOD = (
    "kernel time by the CUDA profiler, the GPU idle for 4 ms and L2 flushed before each call,"
    " libraries in turn (one process each), median over passes of each pass's median; spread is"
    " (max - min) / median of the passes; FP32 logits, not cleaned; pages of 64 keys, lengths from"
    " half of the longest up, metadata not counted; the floor is that of 1979 TFLOPS or of HBM,"
    " whichever is higher"
)

Times = dict[str, list[float]]
Save = Callable[[list[Message]], None]


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        out: folder of the result file.
        peer_path: where the reference is installed.
        problems: the rows.
        passes: over all of them.
        repeats: calls in a pass.
        budget: seconds after which no further row is begun.
        commit: what is measured.
    """

    out: Path
    peer_path: Path
    problems: Sequence[MqaProblem] = PROBLEMS
    passes: int = 3
    repeats: int = 10
    budget: float = 200.0
    commit: str = "unknown"


class Library:
    """One library's process, which is started again after a call that killed it."""

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self.errors: dict[str, str] = {}
        self._arguments = arguments
        self._child: Child | None = None
        self.hello = self._start().ask("hello", HELLO_SECONDS)

    def _start(self) -> Child:
        self._child = self._child or Child(WORKER, *self._arguments)
        return self._child

    def measure(self, problem: str, repeats: int) -> Message | None:
        """Time and error of a problem; None if it cannot be had, now and from then on."""
        if problem in self.errors:
            return None
        try:
            child = self._start()
            reply = child.ask("measure", MEASURE_SECONDS, name=problem, repeats=repeats)
        except ChildDied as error:
            reply = {"error": str(error), "fatal": True}
        if "error" not in reply:
            return reply
        self.errors[problem] = reply["error"]
        log(f"{self.name}: {problem}: {reply['error']}")
        if reply.get("fatal"):
            self.close()
        return None

    def close(self) -> None:
        """Ends the process."""
        if self._child is not None:
            self._child.kill()
            self._child = None


def choose(patterns: Sequence[str]) -> tuple[MqaProblem, ...]:
    """The rows whose names match one of some patterns, such as `paged-*` or `*-h64-d128`; all for
    none.

    Raises:
        ValueError: a pattern matches nothing.
    """
    found: dict[MqaProblem, None] = {}
    for pattern in patterns or ("*",):
        some = [problem for problem in PROBLEMS if fnmatchcase(str(problem), pattern)]
        if not some:
            raise ValueError(f"a row must match a name such as {PROBLEMS[0]}, got {pattern!r}")
        found.update(dict.fromkeys(some))
    return tuple(found)


def measure(libraries: Sequence[Library], options: Options, save: Save) -> None:
    """Measures the rows, and has those saved that there are, after each."""
    deadline = time.monotonic() + options.budget
    us: dict[MqaProblem, Times] = defaultdict(lambda: defaultdict(list))
    errors: dict[MqaProblem, dict[str, float]] = defaultdict(dict)
    for count in range(options.passes):
        for problem in options.problems:
            if time.monotonic() > deadline:
                log(f"out of time in pass {count + 1} of {options.passes}")
                return
            for library in libraries:
                reply = library.measure(str(problem), options.repeats)
                if reply is not None:
                    us[problem][library.name].append(reply["us"])
                    errors[problem][library.name] = reply["max_error"]
            save([row_of(problem, us[problem], errors[problem]) for problem in us])


def row_of(problem: MqaProblem, us: Times, errors: dict[str, float]) -> Message:
    """A row of the result file."""
    row: Message = {"table": "mqa", "problem": str(problem), "logits": problem.num_logits}
    row.update({f"{name}_us": round(statistics.median(of), 3) for name, of in us.items()})
    row["floor_us"] = round(problem.floor_us, 3)
    row["max_error"] = errors
    row["spread"] = {name: round(results.spread(of), 4) for name, of in us.items()}
    return row


def run(options: Options) -> Path:
    """Measures the table and writes the result file, anew after each row."""
    libraries = [Library("ours")]
    reason = why_no_reference(options.peer_path)
    try:
        if reason:
            log(reason)
        else:
            libraries.append(Library("reference", str(options.peer_path.resolve())))
        gpu = libraries[0].hello
        header = {
            "commit": options.commit,
            "date": results.utc_date(),
            **describe_run(gpu["gpu"], gpu["uuid"], []),
            "versions": {library.name: library.hello.get("version") for library in libraries},
            "method": f"{METHOD}; {options.repeats} calls a pass",
        }
        stem = f"mqa-{slug(header['gpu'])}-{header['date']}"
        path = results.new_file(options.out, stem, ".json")
        monitor = Monitor()
        monitor.start(gpu["uuid"])

        def save(rows: list[Message]) -> None:
            state = summarise(monitor.samples)
            header.update(clock_mhz=state.clock_mhz, power_w=state.power_w)
            results.write(path, {**header, "rows": rows})

        with monitor.sampling():
            measure(libraries, options, save)
    finally:
        for library in libraries:
            library.close()
    return path


def render(document: Message) -> str:
    """The table as Markdown, and the mean speed-up of prefill and of decoding."""
    lines = [
        "| problem | ours, us | reference, us | speed-up | floor / ours |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    speed_ups: dict[str, list[float]] = defaultdict(list)
    for row in document["rows"]:
        ours, reference = row.get("ours_us"), row.get("reference_us")
        times = [f"{us:.1f}" if us else "-" for us in (ours, reference)]
        ratio = reference / ours if ours and reference else None
        share = f"{100 * row['floor_us'] / ours:.0f} %" if ours else "-"
        if ratio:
            kind = "decoding" if row["problem"].startswith("paged") else "prefill"
            speed_ups[kind].append(ratio)
        shown = f"{ratio:.2f}x" if ratio else "-"
        lines.append(f"| {row['problem']} | {' | '.join(times)} | {shown} | {share} |")
    for kind, ratios in speed_ups.items():
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        lines.append(f"\n{kind}: {mean:.2f}x in the geometric mean, {min(ratios):.2f}x at worst")
    return "\n".join(lines)
