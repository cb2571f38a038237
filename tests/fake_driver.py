"""A driver that launches nothing: for tests of the path to a launch, and for measuring it."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch

from deep_gemm import tensor_map
from deep_gemm.runtime import cuda, launch
from deep_gemm.runtime.cuda import ERROR_INVALID_CONTEXT, Driver, LaunchConfig
from deep_gemm.tensor_map import TensorMap

KERNEL = 1234
"""What stands for a loaded kernel."""

MAP_WORDS = ctypes.sizeof(TensorMap) // 8

Encode = Callable[[int], dict[int, int]]
"""The words of a map that depend on its address."""


class Launched(NamedTuple):
    """A launch, as the driver saw it when it was called.

    Attributes:
        stream, kernel: where and what.
        words: of the parameter.
        thread: that called.
    """

    stream: int
    kernel: int
    words: tuple[int, ...]
    thread: str


class FakeDriver(Driver):
    """Encodes maps as it is told, and notes what it is to launch.

    Attributes:
        launched: all launches.
        num_replaced: calls of cuTensorMapReplaceAddress.
        has_context: whether the calling thread has one.
        before_launch: is called before a launch looks at its parameter.
    """

    def __init__(self, encode: Encode = lambda address: {0: address}, num_words: int = 16) -> None:
        self.launched: list[Launched] = []
        self.num_replaced = 0
        self.has_context = True
        self.before_launch: Callable[[], object] = lambda: None
        self._encode = encode
        self._num_words = num_words
        self.tensor_map_replace_address = self._replace
        # Each function pointer must live as long as ctypes may call it.
        self._launch_prototype = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4)
        self._function = self._launch_prototype(self._launch)

    def prepared_launch(self, config: Any, kernel: int, parameter: Any) -> Callable[[], int]:
        """As the driver's, with our function in its library's place."""
        self._library = {"cuLaunchKernelEx": self._function}
        return super().prepared_launch(config, kernel, parameter)

    def encode_tensor_map(self, destination: int, dtype: int, address: int, **_: Any) -> None:
        self._replace(destination, address)
        self.num_replaced -= 1

    def allow_dynamic_smem(self, kernel: int, device: int, num_bytes: int) -> None: ...

    def ensure_context(self, device: int) -> None:
        self.has_context = True

    def check(self, call: str, status: int) -> None:
        if status:
            raise cuda.CudaError(f"{call} failed: {status}")

    def _replace(self, destination: int, address: int) -> int:
        if not self.has_context:
            return ERROR_INVALID_CONTEXT
        self.num_replaced += 1
        words = (ctypes.c_uint64 * 16).from_address(destination)
        for i, word in self._encode(address).items():
            words[i] = word
        return 0

    def _launch(self, config: int, kernel: int, parameters: int, extra: int | None) -> int:
        if not self.has_context:
            return ERROR_INVALID_CONTEXT
        self.before_launch()
        stream = LaunchConfig.from_address(config).stream
        (parameter,) = (ctypes.c_void_p * 1).from_address(parameters)
        words = (ctypes.c_uint64 * self._num_words).from_address(parameter or 0)
        name = threading.current_thread().name
        self.launched.append(Launched(stream or 0, kernel, tuple(words), name))
        return 0


def install(monkeypatch: pytest.MonkeyPatch, driver: Driver, stream: Callable[[int], int]) -> None:
    """Makes it the process's driver, and `stream` what says a device's current stream."""
    for module in (cuda, launch, tensor_map):
        monkeypatch.setattr(module, "driver", lambda: driver)
    monkeypatch.setattr(launch, "_loaded", lambda kernel: KERNEL)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", stream, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: 0, raising=False)
