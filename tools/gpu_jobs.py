"""What a GPU machine is asked to do: tests, benchmarks, sweeps. Run it there, from anywhere.

    python tools/gpu_jobs.py all --out results --wheels .whl

Every stage runs in a process group of its own, under a limit of its own: one that hangs is killed
and the next begins. Its output goes to a log in --out, where results appear as they are measured.
The exit code is 0 only if every stage succeeded. With --jobs N, files of tests run N at a time, but
for those that take time or need all memory: these follow, one by one.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from gpu_stages import MARGIN_SECONDS, ROOT, Stage, run_all

# Ignored by git, and kept where a later run may find it.
SCRATCH = ROOT / "build" / "gpu"
PEER = SCRATCH / "peer"
SITE = SCRATCH / "site"
PEER_WHEELS = ("sgl_deep_gemm-", "apache_tvm_ffi-")

JOBS = ("tests", "bench", "bench-grouped", "sweep", "all")
HUNG_TEST_SECONDS = 60
# Files of tests that measure time, or fill most of a GPU's memory.
ALONE = ("test_bench", "test_grouped_large", "test_many_launches", "test_warm_start")


def main(argv: list[str]) -> int:
    arguments = parse(argv)
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    # A stage must not outlive us: being asked to stop is an exception like any other.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    stages = [*setup_stages(arguments.wheels), *job_stages(arguments, out)]
    outcomes = run_all(stages, out, arguments.limit, arguments.num_files, environment())
    print("\n" + "\n".join(f"{o.stage:<30}{o.seconds:>7.0f} s  {o.text}" for o in outcomes))
    return 0 if all(outcome.exit_code == 0 for outcome in outcomes) else 1


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("jobs", nargs="+", choices=JOBS)
    parser.add_argument("--out", type=Path, required=True, help="folder of logs and results")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install first")
    parser.add_argument("--commit", help="for the result files, where there is no repository")
    parser.add_argument("--limit", type=float, default=3600, help="seconds for all stages")
    parser.add_argument(
        *("--jobs", "-j"), type=int, default=1, dest="num_files", help="files of tests at a time"
    )
    parser.add_argument("--bench", type=float, default=480, help="seconds for the dense table")
    parser.add_argument("--grouped", type=float, default=150, help="seconds for the grouped tables")
    parser.add_argument("--sweep", type=float, default=480, help="seconds for the sweep")
    parser.add_argument("--rows", nargs="+", default=[], help="only these: 16x2112x7168, 16x*x*")
    parser.add_argument("--grouped-rows", nargs="+", default=[], help="only these: masked, wgrad-*")
    return parser.parse_args(argv)


def setup_stages(wheels: Path | None) -> list[Stage]:
    """Installs the wheels. The reference goes into a folder apart, since it has our import name."""
    if wheels is None:
        return []
    files = sorted(wheels.resolve().glob("*.whl"))
    peer = [file for file in files if file.name.startswith(PEER_WHEELS)]
    rest = [file for file in files if file not in peer]
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps")
    return [
        Stage("setup", f"install {folder.name}", (*pip, *options(folder), *map(str, some)), 120)
        for folder, some in ((PEER, peer), (SITE, rest))
        if some
    ]


def options(folder: Path) -> tuple[str, ...]:
    return ("--no-cache-dir", "--upgrade", "--target", str(folder))


def job_stages(arguments: argparse.Namespace, out: Path) -> list[Stage]:
    """The stages of the asked jobs, each job once."""
    wanted = dict.fromkeys(arguments.jobs)
    if "all" in wanted:
        wanted = dict.fromkeys(JOBS[:-1])
    commit = ("--commit", arguments.commit) if arguments.commit else ()
    rows = ("--rows", *arguments.rows) if arguments.rows else ()
    grouped_rows = ("--rows", *arguments.grouped_rows) if arguments.grouped_rows else ()
    peer = ("--peer-path", str(PEER)) if PEER.is_dir() or arguments.wheels else ()
    shared = ("--out", str(out), *commit)
    stages: list[Stage] = []
    for job in wanted:
        if job == "tests":
            stages += test_stages(sorted((ROOT / "tests" / "gpu").glob("test_*.py")))
        elif job == "bench":
            extra = (*shared, *rows, *peer)
            stages.append(benchmark(job, "dense", extra, arguments.bench, 120))
        elif job == "bench-grouped":
            extra = (*shared, *grouped_rows, *peer)
            stages.append(benchmark(job, "grouped", extra, arguments.grouped, 80))
        else:
            stages.append(benchmark(job, "sweep", (*shared, *rows), arguments.sweep, 60))
    return stages


def test_stages(files: Iterable[Path]) -> list[Stage]:
    """One stage per file: a kernel that hangs takes the process along, but not the other files.
    Those that must be alone come last."""
    pytest = (
        *(sys.executable, "-m", "pytest", "-q", "-ra", "-p", "no:cacheprovider"),
        *("-o", f"faulthandler_timeout={HUNG_TEST_SECONDS}"),
    )
    stages = [
        Stage("tests", f"tests {file.stem}", (*pytest, str(file)), 240, is_alone=file.stem in ALONE)
        for file in files
    ]
    return sorted(stages, key=lambda stage: stage.is_alone)


def benchmark(
    name: str, verb: str, extra: tuple[str, ...], seconds: float, num_lines: int
) -> Stage:
    """`--budget` comes last: `fit` may shorten it."""
    command = (sys.executable, "-m", "benchmarks", verb, *extra, "--budget", str(seconds))
    return Stage(name, f"{name} {verb}", command, seconds + MARGIN_SECONDS, num_lines)


def environment() -> dict[str, str]:
    paths = [str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])]
    cache = str(SCRATCH / "cache")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "DG_JIT_CACHE_DIR": cache,
        "DG_TEST_CACHE_DIR": cache,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
