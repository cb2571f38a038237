"""What a second process spends of ours before its first launch: `python -m benchmarks.warm_start`.

The first process compiles the kernel, and Python's bytecode of the library; those that follow find
both on disk, and their medians are printed as JSON, in milliseconds. On a GPU the first call is
`fp8_gemm_nt`, after torch has its context; without one it is all that comes before the launch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

M, N, K = 128, 7168, 2048
ROOT = Path(__file__).parents[1]

Times = dict[str, float]


def measure(runs: int) -> Times:
    """Medians over `runs` fresh processes, by phase, in ms."""
    with tempfile.TemporaryDirectory() as folder:
        _start_process(Path(folder))
        found = [_start_process(Path(folder)) for _ in range(runs)]
    if not all(times.pop("is_cached") for times in found):
        raise RuntimeError("a process did not find its kernel on disk")
    return {phase: statistics.median(times[phase] for times in found) for phase in found[0]}


def _start_process(folder: Path) -> Times:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DG_JIT_CACHE_DIR": str(folder / "kernels"),
        "PYTHONPYCACHEPREFIX": str(folder / "bytecode"),
    }
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "benchmarks.warm_start", "--child"]
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    times: Times = json.loads(result.stdout)
    return times


def child() -> Times:
    """The phases of this process, in ms; nothing of the library may be imported before."""
    clock = _Clock()
    import torch

    times = {"torch": clock.lap()}
    operands = None
    if torch.cuda.is_available():
        operands = _operands()
        torch.cuda.synchronize()
        times["context"] = clock.lap()
    import deep_gemm

    times["import"] = clock.lap()
    if operands is None:
        is_cached = _find_kernel()
    else:
        from deep_gemm.jit.build import forbid_compilation

        is_cached = any(Path(os.environ["DG_JIT_CACHE_DIR"]).glob("cache/*/*"))
        if is_cached:
            with forbid_compilation():
                deep_gemm.fp8_gemm_nt(*operands)
        else:
            deep_gemm.fp8_gemm_nt(*operands)
        torch.cuda.synchronize()
    times["first_call"] = clock.lap()
    times["ours"] = times["import"] + times["first_call"]
    return {**times, "is_cached": is_cached}


class _Clock:
    def __init__(self) -> None:
        self._last = time.perf_counter()

    def lap(self) -> float:
        """Milliseconds since the last call."""
        before, self._last = self._last, time.perf_counter()
        return (self._last - before) * 1e3


def _operands() -> tuple[object, ...]:
    import torch

    a = torch.zeros(M, K, device="cuda").to(torch.float8_e4m3fn)
    b = torch.zeros(N, K, device="cuda").to(torch.float8_e4m3fn)
    sfa = torch.ones(K // 128, M, device="cuda").T
    sfb = torch.ones(N // 128, K // 128, device="cuda")
    return (a, sfa), (b, sfb), torch.empty(M, N, device="cuda", dtype=torch.bfloat16)


def _find_kernel() -> bool:
    from deep_gemm.config.problem import GemmProblem
    from deep_gemm.config.select import select
    from deep_gemm.jit.build import build
    from deep_gemm.jit.codegen import generate

    return build(generate(select(GemmProblem(M, N, K, splits_k=True)).config, "90a")).from_cache


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.warm_start")
    parser.add_argument("--runs", type=int, default=5, help="processes after the first (5)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    print(json.dumps(child() if options.child else measure(options.runs)))


if __name__ == "__main__":
    main()
