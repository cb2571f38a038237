"""Tiers by directory: what each needs, what is skipped and why, and that something ran.

A test belongs to the tier of its directory (tests/host, compile, emulator, gpu) and carries the
marker of that name. All GPU tests run in one process, however many workers pytest-xdist starts.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

TESTS = Path(__file__).parent
TIERS = ("host", "compile", "emulator", "gpu")

MUCH_GPU_MEMORY = 2**30
"""Bytes that a process may keep from one GPU test to the next."""

# A deadline would fail tests at random on a machine that does other things too.
settings.register_profile("deep_gemm", deadline=None, derandomize=True)
settings.load_profile("deep_gemm")


def pytest_configure(config: pytest.Config) -> None:
    """Point the kernel cache and tables of measured configurations away from the user's; xdist's
    workers inherit the variables."""
    if hasattr(config, "workerinput"):
        return
    given = os.environ.get("DG_TEST_CACHE_DIR")
    if given is None:
        folder = tempfile.TemporaryDirectory(prefix="deep_gemm_tests_")
        config.add_cleanup(folder.cleanup)
        given = folder.name
    os.environ["DG_JIT_CACHE_DIR"] = given
    os.environ["DG_TUNED_DIR"] = str(Path(given) / "tuned")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        tier = item.path.relative_to(TESTS).parts[0]
        if tier in TIERS:
            item.add_marker(tier)
        if tier == "gpu":
            item.add_marker(pytest.mark.xdist_group("gpu"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("compile") and (reason := no_compiler()):
        pytest.skip(reason)
    wanted = (10, 0) if item.get_closest_marker("sm100") else (9, 0)
    if item.get_closest_marker("gpu") and (reason := no_gpu(wanted)):
        pytest.skip(reason)


@cache
def no_compiler() -> str | None:
    """Why no kernel can be compiled here, or None."""
    from deep_gemm.errors import MissingDependencyError
    from deep_gemm.jit.compiler import select_compiler

    try:
        select_compiler()
    except MissingDependencyError as error:
        return str(error)
    return None


@cache
def no_gpu(wanted: tuple[int, int]) -> str | None:
    """Why no kernel for a compute capability can run here, or None."""
    import torch

    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    capability = torch.cuda.get_device_capability()
    if capability != wanted:
        found = f"{capability[0]}.{capability[1]}"
        return f"needs an SM{wanted[0]}{wanted[1]} GPU, found compute capability {found}"
    return None


def pytest_runtest_logfinish(nodeid: str) -> None:
    """A test, its fixtures and its report are done: let go of the GPU memory that it took."""
    if tier_of(nodeid) == "gpu":
        give_memory_back()


def give_memory_back() -> None:
    """Returns to the GPU what PyTorch's allocator keeps, if it is much: other processes need it.

    `empty_cache` alone is not enough. The traceback of a failed test, and a caught exception in any
    test, hold all that their functions had, in cycles that only a collection finds; pytest keeps
    the last failure besides, for a debugger. And a block in use keeps all of its segment: that of a
    workspace of cuBLAS, which lives as long as the process, may have been cut from one of many GB.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return
    if torch.cuda.memory_reserved() < MUCH_GPU_MEMORY:
        return
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            delattr(sys, name)
    gc.collect()
    # After an error of the device, which has failed its test, nothing can be given back.
    with suppress(RuntimeError):
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A green run in which nothing ran proves nothing: make it red."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or session.config.option.collectonly:
        return
    if session.exitstatus == pytest.ExitCode.OK and not num_run(reporter):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many ran in each tier, and why the others did not."""
    if terminalreporter.config.option.collectonly:
        return
    run, skipped = num_run(terminalreporter), skip_reasons(terminalreporter)
    terminalreporter.section("tiers")
    for tier in dict.fromkeys([*TIERS, *run, *skipped]):
        terminalreporter.line(f"{tier:<10}{run[tier]:>5} ran")
        for reason, count in skipped.get(tier, Counter()).items():
            terminalreporter.line(f"{count:>15} skipped: {reason}")
    if not run:
        terminalreporter.line("No test ran, so this run fails: it has shown nothing.", red=True)


def num_run(reporter: pytest.TerminalReporter) -> Counter[str]:
    outcomes = ("passed", "failed", "error", "xfailed", "xpassed")
    reports = [report for outcome in outcomes for report in reporter.stats.get(outcome, [])]
    return Counter(tier_of(report.nodeid) for report in reports)


def skip_reasons(reporter: pytest.TerminalReporter) -> dict[str, Counter[str]]:
    reasons: dict[str, Counter[str]] = {}
    for report in reporter.stats.get("skipped", []):
        _, _, text = report.longrepr
        tier = reasons.setdefault(tier_of(report.nodeid), Counter())
        tier[text.removeprefix("Skipped: ")] += 1
    return reasons


def tier_of(nodeid: str) -> str:
    """`tests/gpu/test_a.py::test_b` -> `gpu`."""
    folders = nodeid.partition("::")[0].split("/")[1:-1]
    return folders[0] if folders else "other"
