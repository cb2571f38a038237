"""The driver library: what is said of one that is absent or too old."""

from __future__ import annotations

import ctypes
import re

import pytest

from deep_gemm.errors import MissingDependencyError
from deep_gemm.runtime.cuda import Driver


def test_an_old_driver_is_named_with_what_mends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Function:
        argtypes: object = None

    functions: dict[str, Function] = {}

    class Library:
        def __getattr__(self, name: str) -> Function:
            if name.startswith("cuTensorMap"):
                raise AttributeError(name)
            return functions.setdefault(name, Function())

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library())
    with pytest.raises(MissingDependencyError, match=r"cuTensorMapEncodeTiled.*CUDA 12 or newer"):
        Driver()


def test_a_driver_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> ctypes.CDLL:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(MissingDependencyError, match=re.escape("install the NVIDIA driver")):
        Driver()
