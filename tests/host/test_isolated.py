"""What guards the GPU tests against kernels that hang."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.gpu.isolated import Isolated


@pytest.fixture(scope="module")
def isolated() -> Iterator[Isolated]:
    process = Isolated()
    yield process
    process.stop()


def fail() -> None:
    raise ValueError("this went wrong")


def check_process(pid: int) -> None:
    assert os.getpid() != pid


def test_what_hangs_is_ended_and_the_next_call_runs(isolated: Isolated) -> None:
    start = time.monotonic()
    with pytest.raises(AssertionError, match="no end after 0.2 s"):
        isolated.run(time.sleep, 1000, seconds=0.2)
    isolated.run(check_process, os.getpid())
    assert time.monotonic() - start < 60


def test_what_fails_shows_its_traceback(isolated: Isolated) -> None:
    with pytest.raises(AssertionError, match=r"ValueError: this went wrong"):
        isolated.run(fail)


def test_a_process_that_dies_is_a_failure(isolated: Isolated) -> None:
    with pytest.raises(AssertionError, match="the process died"):
        isolated.run(os._exit, 3)
