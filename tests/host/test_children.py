"""Child processes that answer, are late, or end."""

from __future__ import annotations

from pathlib import Path

import pytest

from deep_gemm.tuning.children import Child, ChildDied
from tests.host.pretended_children import write_modules

ECHO = """
import os, sys, time
from deep_gemm.tuning.children import serve

def echo(x):
    os.write(1, b"noise\\n")
    return {"x": x}

def count(n):
    for i in range(n):
        if i == 3:
            raise ValueError("three\\nis too many")
        yield {"i": i}

def sleep():
    time.sleep(60)

def die():
    os._exit(7)

serve({f.__name__: f for f in (echo, count, sleep, die)})
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child's module, importable by name."""
    write_modules(tmp_path, {"an_echo": ECHO}, monkeypatch)


def test_a_child_answers_and_its_noise_does_not_reach_us() -> None:
    child = Child("an_echo")
    assert child.ask("echo", 30, x=[1, 2]) == {"x": [1, 2]}
    assert list(child.stream("count", 30, n=2)) == [{"i": 0}, {"i": 1}]
    *some, last = child.stream("count", 30, n=9)
    assert (len(some), last["error"], last["fatal"]) == (3, "ValueError: three is too many", False)
    assert child.ask("echo", 30, x=3) == {"x": 3}
    child.close()


def test_a_child_that_is_late_is_killed() -> None:
    child = Child("an_echo")
    child.ask("echo", 30, x=0)
    with pytest.raises(ChildDied, match="no answer within 0 s, killed"):
        child.ask("sleep", 0.2)
    with pytest.raises(ChildDied, match="exit code -9"):
        child.ask("echo", 30, x=0)


def test_a_child_that_ends_says_how() -> None:
    child = Child("an_echo")
    with pytest.raises(ChildDied, match="exit code 7"):
        child.ask("die", 30)
    child.close()
