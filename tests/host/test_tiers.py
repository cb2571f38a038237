"""tests/conftest.py itself, copied over a tree of tiny tests and run by a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

PASSES = "def test_it(): pass\n"
SKIPS = "import pytest\n@pytest.mark.skip(reason='not today')\ndef test_it(): pass\n"
WRITES_CACHE = """
import os, pathlib
def test_it(): pathlib.Path(os.environ["DG_JIT_CACHE_DIR"], str(os.getpid())).touch()
"""


# A GPU of which a test has taken much; what a failed one had is collected before the next.
FAKE_GPU = """
import torch
torch.cuda.is_available = torch.cuda.is_initialized = lambda: True
torch.cuda.get_device_capability = lambda: (9, 0)
torch.cuda.memory_reserved = lambda: RESERVED
torch._C._cuda_clearCublasWorkspaces = lambda: None
torch.cuda.empty_cache = lambda: print("memory was given back")
"""
HOLDS = """
import gc, weakref
import pytest
class Tensor: pass
tensors = weakref.WeakSet()
gc.disable()
def take():
    tensor = Tensor()
    tensors.add(tensor)
    return tensor
def test_that_fails():
    tensor = take()
    raise OSError
def test_that_catches():
    assert len(tensors) == WANTED
    tensor = take()
    with pytest.raises(OSError) as caught:
        raise OSError
def test_that_looks():
    assert len(tensors) == 2 * WANTED
"""


def run(folder: Path, tests: dict[str, str], *options: str, **environ: str) -> tuple[int, str]:
    """Exit status and output of a session over `tests`, a map of file to text."""
    (folder / "pyproject.toml").write_text((TESTS.parent / "pyproject.toml").read_text())
    for name, text in {**tests, "conftest.py": (TESTS / "conftest.py").read_text()}.items():
        path = folder / "tests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent), "CUDA_VISIBLE_DEVICES": "", **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout


@pytest.mark.parametrize("workers", ["-n0", "-n2"])
def test_a_run_of_nothing_fails_and_says_why(tmp_path: Path, workers: str) -> None:
    tests = {"host/test_a.py": SKIPS, "gpu/test_b.py": PASSES}
    status, output = run(tmp_path, tests, workers)
    assert status == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "No test ran" in output
    assert "1 skipped: not today" in output
    assert "1 skipped: torch sees no CUDA device" in output


def test_one_test_that_ran_is_enough(tmp_path: Path) -> None:
    status, output = run(tmp_path, {"host/test_a.py": PASSES, "host/test_b.py": SKIPS})
    assert status == 0
    assert "host          1 ran" in output


def test_a_failure_stays_a_failure(tmp_path: Path) -> None:
    status, _ = run(tmp_path, {"host/test_a.py": "def test_it(): raise OSError"})
    assert status == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize(("reserved", "left"), [(2**33, 0), (2**20, 1)])
def test_much_gpu_memory_is_given_back_before_the_next_test(
    tmp_path: Path, reserved: int, left: int
) -> None:
    """Little is not worth a collection: then failures and caught exceptions keep what they had."""
    tests = {
        "gpu/conftest.py": FAKE_GPU.replace("RESERVED", str(reserved)),
        "gpu/test_a.py": HOLDS.replace("WANTED", str(left)),
    }
    _, output = run(tmp_path, tests, "-s", "-n0")
    assert "1 failed, 2 passed" in output, output
    assert output.count("memory was given back") == (0 if left else 3)


def test_markers_follow_the_directory(tmp_path: Path) -> None:
    tests = {"host/test_a.py": PASSES, "emulator/test_b.py": PASSES}
    status, output = run(tmp_path, tests, "-m", "emulator")
    assert status == 0
    assert "1 passed, 1 deselected" in output


def test_workers_share_one_cache_that_is_not_the_users(tmp_path: Path) -> None:
    tests = {f"host/test_{i}.py": WRITES_CACHE for i in range(4)}
    users, given = tmp_path / "users", tmp_path / "given"
    users.mkdir()
    given.mkdir()
    status, _ = run(tmp_path, tests, "-n2", DG_JIT_CACHE_DIR=str(users))
    assert (status, list(users.iterdir())) == (0, [])
    status, _ = run(tmp_path, tests, "-n2", DG_TEST_CACHE_DIR=str(given))
    assert status == 0
    assert list(given.iterdir())
