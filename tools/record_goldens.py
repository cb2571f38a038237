"""Records on an H100 what the emulator must compute bit for bit.

    python tools/record_goldens.py --out tests/emulator/goldens_h100.npz
    python tools/record_goldens.py --compare tests/emulator/goldens_h100.npz
    python tools/record_goldens.py --emulate --out /tmp/emulated.npz

Cases run in worker processes. One that faults or hangs takes its process along, is reported, and
the next worker goes on behind it. The exit code is 0 only if no case failed, or differed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "emulator")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from goldens import dense, recording  # noqa: E402
from goldens.case import Case  # noqa: E402
from goldens.cases import CASES  # noqa: E402
from goldens.machines import Emulator, Gpu, Machine  # noqa: E402

from deep_gemm.emulator.errors import EmulationError  # noqa: E402
from deep_gemm.runtime.cuda import driver  # noqa: E402

WORKER_SECONDS = 240
MAX_IDLE_WORKERS = 2


def main(argv: list[str]) -> int:
    arguments = parse(argv)
    cases = [case for case in CASES if arguments.only in case.name]
    if arguments.worker:
        work(cases, arguments.out, Emulator() if arguments.emulate else Gpu())
        return 0
    if arguments.compare:
        return compare(cases, recording.read(arguments.compare))
    if arguments.out is None:
        raise SystemExit("--out FILE is needed to record")
    return record(cases, arguments.out.resolve(), arguments.emulate)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="file to write")
    parser.add_argument("--only", default="", help="cases whose names contain this")
    parser.add_argument("--emulate", action="store_true", help="in the emulator, without a GPU")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="print what differs from FILE")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def record(cases: Sequence[Case], out: Path, emulate: bool) -> int:
    """Runs the cases in as many workers as it takes, and writes what came back."""
    machine = describe(emulate)
    with tempfile.TemporaryDirectory(prefix="goldens_") as folder:
        outcomes = supervise(cases, Path(folder), emulate)
    outputs = {name: value for name, value in outcomes.items() if isinstance(value, np.ndarray)}
    header = {
        **machine,
        "cases": {case.name: case.digest() for case in cases if case.name in outputs},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    recording.write(out, recording.Recording(header, outputs))
    bad = 0
    for case in cases:
        outcome = outcomes[case.name]
        if isinstance(outcome, str):
            excused = emulate and case.awaits
            bad += not excused
            print(f"{'not known yet' if excused else 'FAILED'}: {case.name}: {outcome}")
    size = out.stat().st_size / 1024
    print(f"{len(outputs)} of {len(cases)} cases recorded in {out}, {size:.0f} KiB")
    return 1 if bad else 0


def supervise(cases: Sequence[Case], folder: Path, emulate: bool) -> dict[str, Any]:
    """Each case's output, or what went wrong with it."""
    outcomes: dict[str, Any] = {}
    num_idle = 0
    while missing := [case.name for case in cases if case.name not in outcomes]:
        (folder / "todo").write_text("\n".join(missing))
        command = [sys.executable, str(Path(__file__)), "--worker", "--out", str(folder)]
        try:
            ended = subprocess.run(
                [*command, *(["--emulate"] if emulate else [])], cwd=ROOT, timeout=WORKER_SECONDS
            )
            reason = f"its worker ended with {ended.returncode}"
        except subprocess.TimeoutExpired:
            reason = f"its worker was stopped after {WORKER_SECONDS} s"
        for file in folder.glob("*.pickle"):
            name, outcome = pickle.loads(file.read_bytes())
            outcomes[name] = outcome
            file.unlink()
        left = [name for name in missing if name not in outcomes]
        num_idle = num_idle + 1 if left == missing else 0
        if num_idle == MAX_IDLE_WORKERS:
            return outcomes | dict.fromkeys(left, f"no worker gets anywhere: {reason}")
        # Whatever stopped a worker is the doing of the first case that it left undone.
        if left:
            outcomes[left[0]] = reason
    return outcomes


def work(cases: Sequence[Case], folder: Path, machine: Machine) -> None:
    """Runs the cases that are to do; ends the process after a failure that may poison the rest."""
    todo = set((folder / "todo").read_text().splitlines())
    pending = [case for case in cases if case.name in todo]
    if any(isinstance(case, dense.DenseCase) for case in pending):
        threading.Thread(target=dense.compile_all, daemon=True).start()
    for i, case in enumerate(pending):
        start = time.monotonic()
        outcome: Any
        try:
            outcome = case.run(machine)
        except Exception as error:  # Whatever it is, it is reported and the others go on.
            outcome = f"{type(error).__name__}: {error}"
        partial = folder / f"{i}.partial"
        partial.write_bytes(pickle.dumps((case.name, outcome)))
        partial.rename(folder / f"{i}.pickle")
        seconds = time.monotonic() - start
        print(
            f"{seconds:7.2f} s  {case.name}  {outcome if isinstance(outcome, str) else 'ok'}"[:300]
        )
        if isinstance(outcome, str) and isinstance(machine, Gpu):
            sys.stdout.flush()
            # A context with a fault or a hanging kernel in it cannot even be torn down.
            os._exit(1)


def describe(emulate: bool) -> dict[str, str]:
    """Where and when."""
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    shared = {"date": date, "torch": torch.__version__}
    if emulate:
        return {"gpu": "emulator", **shared}
    properties = torch.cuda.get_device_properties(0)
    smi = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        version = subprocess.run(smi, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        version = "unknown"
    cuda = ".".join(map(str, driver().version()))
    return {"gpu": properties.name, "driver": version, "cuda": cuda, **shared}


def compare(cases: Sequence[Case], recorded: recording.Recording) -> int:
    """Prints what the emulator computes otherwise than the recording says."""
    print({key: value for key, value in recorded.header.items() if key != "cases"})
    machine, num_different = Emulator(), 0
    for case in cases:
        if case.name not in recorded.outputs:
            print(f"not recorded   {case.name}")
            continue
        try:
            text = recording.difference(case.run(machine), recorded.outputs[case.name])
        except EmulationError as error:
            text = f"{type(error).__name__}: {error}"
        if case.digest() != recorded.header["cases"][case.name]:
            text += " (the program has changed since)"
        num_different += bool(text)
        print(f"{'DIFFERENT' if text else 'equal':<15}{case.name}  {text}")
    return 1 if num_different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
