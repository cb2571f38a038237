"""Which GPU the emulator stands for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deep_gemm.call_cache import forget_calls


@contextmanager
def on_arch(arch: str) -> Iterator[None]:
    """It is a GPU of this architecture, and plans for another one are forgotten."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DG_EMULATOR_ARCH", arch)
        forget_calls()
        yield
    forget_calls()


@pytest.fixture(params=["90a", "100a"], scope="module", autouse=True)
def each_arch(request: pytest.FixtureRequest) -> Iterator[None]:
    """All tests of a module that imports this run on SM90 and on SM100: the API is the same."""
    with on_arch(request.param):
        yield


sm90_only = pytest.mark.parametrize("each_arch", ["90a"], indirect=True, scope="module")
"""A test of what is different by design: scale factors that are no powers of two, or that SM90
loads as they are; or of what is slow, and has nothing to do with the architecture."""
