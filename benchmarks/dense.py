"""The dense table: our kernels beside the packaged reference and cuBLASLt, in one run."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import compiling, results
from benchmarks.children import Child, ChildDied, log
from benchmarks.monitor import Monitor, smi, summarise
from benchmarks.problems import HOST, SUSTAINED, Problem
from benchmarks.results import Report
from benchmarks.session import Session
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import select

WORKER = "benchmarks.dense_worker"
PEERS = ("ours", "reference", "cublaslt")
SUSTAINED_VARIANTS = {"ours": "ours", "reference": "reference", "cublaslt": "cublaslt_tensor"}
WARM_PROCESSES = 14
WARM_SECONDS = 180


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        out: folder of the result file.
        problems: rows of the table.
        peers: of PEERS.
        peer_path: folder in which the reference is installed, or None.
        passes: over the whole table, by each peer in turn.
        repeats: calls of each row in a pass.
        host_calls: measured calls per pass for the host's time; 0 leaves it out.
        sustained_seconds: per row and peer at M = 4096; 0 leaves it out.
        budget: seconds after which no further pass is begun.
        commit: what is measured.
    """

    out: Path
    problems: tuple[Problem, ...]
    peers: tuple[str, ...] = PEERS
    peer_path: Path | None = None
    passes: int = 5
    repeats: int = 10
    host_calls: int = 2000
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


class DenseRun:
    """One run: from starting the peers to the result file, which is rewritten at every step."""

    def __init__(self, options: Options, scratch: Path) -> None:
        self._options = options
        self._deadline = time.monotonic() + options.budget
        self._report = Report()
        self._monitor = Monitor()
        self._names = [problem.name for problem in options.problems]
        self._sessions = [self._session(peer, scratch) for peer in options.peers]
        self._path: Path | None = None

    def run(self) -> Path:
        """Measures; returns the result file.

        Raises:
            RuntimeError: no peer could be started.
        """
        try:
            self._start()
            for index in range(self._options.passes):
                if time.monotonic() > self._deadline:
                    log(f"out of time: {index} of {self._options.passes} passes")
                    break
                self._pass(index)
            self._sustain()
            return self._write()
        finally:
            for session in self._sessions:
                session.close()

    def _session(self, peer: str, scratch: Path) -> Session:
        arguments = [WORKER, peer]
        env = {"DG_JIT_CACHE_DIR": str(scratch / peer)}
        if peer == "reference":
            arguments.append(str(self._options.peer_path))
            env.update(_cuda_home())
        return Session(peer, arguments, env)

    def _start(self) -> None:
        """Compiles everything, with the reference's kernels last but at work the whole time."""
        for session in self._sessions:
            if session.name != "reference":
                session.start()
        ours = next((session for session in self._sessions if session.name == "ours"), None)
        if ours is not None and ours.dead is None:
            self._compile(ours)
        warming = self._warm_reference()
        for session in self._sessions:
            if session.name != "reference":
                self._prepare(session)
        _finish_warming(warming)
        for session in self._sessions:
            if session.name == "reference":
                session.start()
                self._prepare(session)
        if not any(session.hello for session in self._sessions):
            raise RuntimeError(f"no peer is left: {self._sessions[0].dead}")
        self._begin_file()

    def _compile(self, ours: Session) -> None:
        configs = compiling.chosen_configs(self._options.problems, ours.hello["num_sms"])
        log(f"compiling {len(configs)} kernels")
        rows = compiling.compile_kernels(configs, compiling.half_the_cores(), ours.env)
        self._report.others += [{"table": "compile", **row} for row in rows]
        log(compiling.summarise(rows))

    def _warm_reference(self) -> list[Child]:
        """Processes that compile the reference's kernels, each some of them."""
        reference = [session for session in self._sessions if session.name == "reference"]
        children = []
        for session in reference:
            log("compiling the reference's kernels")
            names = list(dict.fromkeys([*self._names, *(problem.name for problem in HOST)]))
            step = min(WARM_PROCESSES, os.cpu_count() or 1, len(names))
            for first in range(step):
                child = Child(*session.arguments, env=session.env)
                child.send("warm", names=names[first::step])
                children.append(child)
        return children

    def _prepare(self, session: Session) -> None:
        start = time.monotonic()
        names = [*self._names]
        if self._options.host_calls:
            names += [problem.name for problem in HOST if problem.name not in names]
        for name in names:
            session.prepare(name)
        ready = sum(map(bool, session.ready.values()))
        seconds = time.monotonic() - start
        log(f"{session.name}: {ready} of {len(names)} problems ready after {seconds:.0f} s")

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
        stem = f"dense-{results.slug(hello['gpu'])}-{date}"
        self._path = results.new_file(self._options.out, stem, ".json")
        self._monitor.start(hello["uuid"])
        self._describe_rows(hello["num_sms"])
        self._write()

    def _describe_rows(self, num_sms: int) -> None:
        """Configuration, errors and reasons for every row, whether it gets a time or not."""
        for problem in self._options.problems:
            extra = self._report.extra["dense", problem.name]
            for variant in ("ours", "ours_row_major", "reference", "cublaslt", "cublaslt_tensor"):
                extra[f"{variant}_us"] = None
            selection = select(GemmProblem(problem.m, problem.n, problem.k, num_sms=num_sms))
            extra["config"] = selection.config.name
        for session in self._sessions:
            self._describe(session)

    def _describe(self, session: Session) -> None:
        reasons: dict[str, dict[str, str]] = {}
        for (name, variant), text in session.errors.items():
            reasons.setdefault(name, {})[variant or session.name] = text
        for name in self._names:
            extra = self._report.extra["dense", name]
            if session.dead is not None:
                reasons.setdefault(name, {})[session.name] = session.dead
            if name in reasons:
                extra["errors"] = {**extra.get("errors", {}), **reasons[name]}
            if (name, "ours") in session.max_error:
                extra["max_error"] = session.max_error[name, "ours"]

    def _pass(self, index: int) -> None:
        start = time.monotonic()
        with self._monitor.sampling():
            for session in self._sessions:
                us = session.measure(self._names, self._options.repeats)
                for name, variants in us.items():
                    medians = {variant: statistics.median(us) for variant, us in variants.items()}
                    self._report.add("dense", name, medians)
        for session in self._sessions:
            self._host(session)
        self._write()
        log(f"pass {index + 1} took {time.monotonic() - start:.0f} s")

    def _host(self, session: Session) -> None:
        for problem in HOST if self._options.host_calls else ():
            if session.ready.get(problem.name):
                calls = self._options.host_calls
                reply = session.ask("host", 60, name=problem.name, repeats=calls)
                self._report.add("host", problem.name, reply.get("us", {}))

    def _sustain(self) -> None:
        for problem in SUSTAINED if self._options.sustained_seconds else ():
            for session in self._sessions:
                if time.monotonic() > self._deadline:
                    log("out of time: not all sustained rows were measured")
                    return
                self._sustain_one(session, problem.name)

    def _sustain_one(self, session: Session, name: str) -> None:
        variant, seconds = SUSTAINED_VARIANTS[session.name], self._options.sustained_seconds
        if variant not in session.ready.get(name, ()):
            return
        arguments = {"name": name, "variant": variant, "seconds": seconds}
        with self._monitor.sampling() as samples:
            reply = session.ask("sustain", 30 + 4 * seconds, **arguments)
        if "us" in reply:
            self._report.add("sustained", name, {variant: reply["us"]})
            clock, power = summarise(samples)
            extra = self._report.extra["sustained", name]
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


def _finish_warming(children: Sequence[Child]) -> None:
    deadline = time.monotonic() + WARM_SECONDS
    for child in children:
        try:
            reply = child.receive(max(1.0, deadline - time.monotonic()))
            if "error" in reply:
                log(f"compiling the reference's kernels: {reply['error']}")
        except ChildDied as error:
            log(f"compiling the reference's kernels: {error}")
        child.close()


def _cuda_home() -> dict[str, str]:
    """Where the toolkit is, for the reference, unless the variable says so already."""
    nvcc = shutil.which("nvcc")
    if nvcc is None or os.environ.get("CUDA_HOME"):
        return {}
    home = Path(nvcc).resolve().parents[1]
    return {"CUDA_HOME": str(home)} if (home / "include" / "cuda.h").exists() else {}


def run(options: Options) -> Path:
    """Measures the dense table and writes the result file, also if only a part succeeds."""
    with tempfile.TemporaryDirectory(prefix="deep_gemm_", ignore_cleanup_errors=True) as scratch:
        return DenseRun(options, Path(scratch)).run()
