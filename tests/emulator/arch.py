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
