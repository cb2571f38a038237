"""A run of some tables: our kernels beside their peers, from compiling to the result file."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import results
from benchmarks.monitor import Monitor, smi, summarise
from benchmarks.problems import AnyProblem
from benchmarks.results import Report
from benchmarks.session import Session
from benchmarks.warming import finish_warming, start_warming
from deep_gemm.config.tuned_file import slug
from deep_gemm.tuning.children import Message, log

WORKER = "benchmarks.worker"
OUT_OF_TIME = "not measured: out of time"


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        out: folder of the result file.
        problems: rows of the tables.
        peers: who is measured.
        peer_path: folder in which the reference is installed, or None.
        passes: over the whole table, by each peer in turn.
        repeats: calls of each row in a pass.
        sustained_seconds: back to back, per row and peer, where a row is long enough; 0 leaves it
            out.
        budget: seconds after which no further pass is begun.
        commit: what is measured.
    """

    out: Path
    problems: Sequence[AnyProblem]
    peers: tuple[str, ...] = ("ours", "reference")
    peer_path: Path | None = None
    passes: int = 5
    repeats: int = 10
    sustained_seconds: float = 0.5
    budget: float = 420.0
    commit: str = "unknown"


def why_no_reference(folder: Path | None) -> str | None:
    """Why the reference cannot be measured, or None."""
    if folder is None:
        return "the reference is left out: --peer-path names no folder (third-party/README.md)"
    if not (folder / "deep_gemm").is_dir():
        return f"the reference is left out: {folder} has no deep_gemm (third-party/README.md)"
    if shutil.which("nvcc") is None:
        return "the reference is left out: it compiles with nvcc, which is not on PATH"
    return None


class Run:
    """One run: from starting the peers to the result file, which is rewritten at every step.

    What is particular to some tables is in a subclass: the class attributes, and the methods
    without an underscore.

    Attributes:
        title: the result file's name begins with it.
        variants: the columns of times, which are null where there is none.
        sustained: rows that are also timed back to back.
        sustained_variants: by peer, the variant that is.
    """

    title: str
    variants: tuple[str, ...]
    sustained: Sequence[AnyProblem]
    sustained_variants: dict[str, str]

    def __init__(self, options: Options, scratch: Path) -> None:
        self._options = options
        self._deadline = time.monotonic() + options.budget
        self._report = Report()
        self._monitor = Monitor()
        self._sessions = [self._session(peer, scratch) for peer in options.peers]
        self._path: Path | None = None

    def run(self) -> Path:
        """Measures; returns the result file.

        Raises:
            RuntimeError: no peer could be started.
        """
        try:
            first, *rest = self.batches()
            self._start(first)
            self._measure(first)
            for batch in rest:
                self._next(batch)
            return self._write()
        finally:
            for session in self._sessions:
                session.close()

    def batches(self) -> list[Sequence[AnyProblem]]:
        """The rows, by what lies in the GPU's memory together."""
        return [self._options.problems]

    def others(self) -> Sequence[AnyProblem]:
        """Problems that are prepared with the first batch, although they are no rows."""
        return ()

    def compile_ours(self, ours: Session) -> None:
        """Builds our kernels."""

    def describe(self, problem: AnyProblem, gpu: Message) -> Message:
        """What else the row says."""
        return {}

    def after_pass(self) -> None:
        """Measures what is no row."""

    def _session(self, peer: str, scratch: Path) -> Session:
        arguments = [WORKER, peer]
        env = {"DG_JIT_CACHE_DIR": str(scratch / peer)}
        if peer == "reference":
            arguments.append(str(self._options.peer_path))
            env.update(_cuda_home())
        return Session(peer, arguments, env)

    def _start(self, first: Sequence[AnyProblem]) -> None:
        """Compiles everything, with the reference's kernels last but at work the whole time."""
        reference = [session for session in self._sessions if session.name == "reference"]
        rest = [session for session in self._sessions if session.name != "reference"]
        for session in rest:
            session.start()
            if session.name == "ours" and session.dead is None:
                self.compile_ours(session)
        names = [problem.name for problem in (*self._options.problems, *self.others())]
        warming = [child for session in reference for child in start_warming(session, names)]
        prepared = list(dict.fromkeys([*first, *self.others()]))
        for session in rest:
            _prepare(session, prepared)
        finish_warming("reference", warming)
        for session in reference:
            session.start()
            _prepare(session, prepared)
        if not any(session.hello for session in self._sessions):
            raise RuntimeError(f"no peer is left: {self._sessions[0].dead}")
        self._begin_file()

    def _next(self, batch: Sequence[AnyProblem]) -> None:
        """Measures a batch in the memory that the one before it had."""
        is_late = time.monotonic() > self._deadline
        for session in self._sessions:
            session.release()
        for session in self._sessions:
            if is_late:
                session.errors.update({(problem.name, None): OUT_OF_TIME for problem in batch})
            else:
                _prepare(session, batch)
        if not is_late:
            self._measure(batch)

    def _measure(self, batch: Sequence[AnyProblem]) -> None:
        for index in range(self._options.passes):
            if time.monotonic() > self._deadline:
                log(f"out of time: {index} of {self._options.passes} passes")
                break
            self._pass(batch, index)
        self._sustain(batch)

    def _begin_file(self) -> None:
        hello = next(session.hello for session in self._sessions if session.hello)
        date = results.utc_date()
        self._report.header = {
            "commit": self._options.commit,
            "date": date,
            "gpu": hello["gpu"],
            "driver": smi("driver_version", hello["uuid"]) or None,
            "versions": {},
            "method": f"{results.METHOD}; {self._options.repeats} calls a pass",
        }
        for session in self._sessions:
            self._report.header["versions"].update(session.hello.get("versions", {}))
        for row in self._report.others:
            name, _, version = row.get("compiler", "compiler unknown").partition(" ")
            self._report.header["versions"][name.lower()] = version
        stem = f"{self.title}-{slug(hello['gpu'])}-{date}"
        self._path = results.new_file(self._options.out, stem, ".json")
        self._monitor.start(hello["uuid"])
        for problem in self._options.problems:
            times = {f"{variant}_us": None for variant in self.variants}
            extra = self._report.extra[problem.table, problem.name]
            extra.update({**times, **self.describe(problem, hello)})
        self._write()

    def _describe(self, session: Session) -> None:
        """Errors and reasons for every row, whether it gets a time or not."""
        reasons: dict[str, dict[str, str]] = {}
        for (name, variant), text in session.errors.items():
            reasons.setdefault(name, {})[variant or session.name] = text
        for problem in self._options.problems:
            name = problem.name
            extra = self._report.extra[problem.table, name]
            if session.dead is not None:
                reasons.setdefault(name, {})[session.name] = session.dead
            if name in reasons:
                extra["errors"] = {**extra.get("errors", {}), **reasons[name]}
            if (name, "ours") in session.max_error:
                extra["max_error"] = session.max_error[name, "ours"]
            for variant in self.variants:
                if (name, variant) in session.num_kernels:
                    counts = extra.setdefault("num_kernels", {})
                    counts[variant] = session.num_kernels[name, variant]

    def _pass(self, batch: Sequence[AnyProblem], index: int) -> None:
        start = time.monotonic()
        tables = {problem.name: problem.table for problem in batch}
        with self._monitor.sampling():
            for session in self._sessions:
                us = session.measure(list(tables), self._options.repeats)
                for name, variants in us.items():
                    medians = {variant: statistics.median(us) for variant, us in variants.items()}
                    self._report.add(tables[name], name, medians)
        self.after_pass()
        self._write()
        log(f"pass {index + 1} took {time.monotonic() - start:.0f} s")

    def _sustain(self, batch: Sequence[AnyProblem]) -> None:
        for problem in self.sustained if self._options.sustained_seconds else ():
            for session in self._sessions if problem in batch else ():
                if time.monotonic() > self._deadline:
                    log("out of time: not all sustained rows were measured")
                    return
                self._sustain_one(session, problem)

    def _sustain_one(self, session: Session, problem: AnyProblem) -> None:
        name = problem.name
        variant, seconds = self.sustained_variants[session.name], self._options.sustained_seconds
        if variant not in session.ready.get(name, ()):
            return
        arguments = {"name": name, "variant": variant, "seconds": seconds}
        with self._monitor.sampling() as samples:
            reply = session.ask("sustain", 30 + 4 * seconds, **arguments)
        if "us" in reply:
            self._report.add("sustained", name, {variant: reply["us"]})
            clock, power = summarise(samples)
            extra = self._report.extra["sustained", name]
            extra["of"] = problem.table
            extra.setdefault("clock_mhz", {})[variant] = clock
            extra.setdefault("power_w", {})[variant] = power

    def _write(self) -> Path:
        assert self._path is not None
        for session in self._sessions:
            self._describe(session)
        summary = summarise(self._monitor.samples)
        self._report.header.update(clock_mhz=summary.clock_mhz, power_w=summary.power_w)
        results.write(self._path, self._report.document())
        return self._path


def _prepare(session: Session, problems: Sequence[AnyProblem]) -> None:
    start = time.monotonic()
    for problem in problems:
        session.prepare(problem.name)
    ready = sum(map(bool, session.ready.values()))
    seconds = time.monotonic() - start
    log(f"{session.name}: {ready} of {len(problems)} problems ready after {seconds:.0f} s")


def _cuda_home() -> dict[str, str]:
    """Where the toolkit is, for the reference, unless the variable says so already."""
    nvcc = shutil.which("nvcc")
    if nvcc is None or os.environ.get("CUDA_HOME"):
        return {}
    home = Path(nvcc).resolve().parents[1]
    return {"CUDA_HOME": str(home)} if (home / "include" / "cuda.h").exists() else {}
