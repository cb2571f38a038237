"""A driver that launches nothing: for tests of the path to a launch, and for measuring it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch

from deep_gemm import tensor_map
from deep_gemm.runtime import cuda, launch
from deep_gemm.runtime.cuda import ERROR_INVALID_CONTEXT, Driver, LaunchConfig
from deep_gemm.tensor_map import TensorMap

Encode = Callable[[int], dict[int, int]]
"""The words of a map that depend on its address."""


class FakeDriver(Driver):
    """Encodes maps as it is told, and notes what it is to launch.

    Attributes:
        launched: for each launch its stream, kernel, and the words of its parameter.
        num_replaced: calls of cuTensorMapReplaceAddress.
        has_context: whether the calling thread has one.
    """

    def __init__(self, encode: Encode = lambda address: {0: address}, num_words: int = 16) -> None:
        self.launched: list[tuple[int, int, tuple[int, ...]]] = []
        self.num_replaced = 0
        self.has_context = True
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

    def load_kernel(self, cubin: bytes, entry: str) -> int:
        return 1234

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
        stream = LaunchConfig.from_address(config).stream
        (parameter,) = (ctypes.c_void_p * 1).from_address(parameters)
        words = (ctypes.c_uint64 * self._num_words).from_address(parameter or 0)
        self.launched.append((stream or 0, kernel, tuple(words)))
        return 0


def install(monkeypatch: pytest.MonkeyPatch, driver: Driver, stream: Callable[[int], int]) -> None:
    """Makes it the process's driver, and `stream` what says a device's current stream."""
    for module in (cuda, launch, tensor_map):
        monkeypatch.setattr(module, "driver", lambda: driver)
    launch._loaded.cache_clear()
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", stream, raising=False)
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: 0, raising=False)


MAP_WORDS = ctypes.sizeof(TensorMap) // 8
