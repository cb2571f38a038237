"""`python -m benchmarks.host_path`: what a call costs in Python, on any machine, without a GPU.

The driver's two calls are a function of libm that does nothing, so what is left is ours: from the
public function to the launch. Each variant is measured in turns with the others; the best pass of
each counts. Times are this machine's, so compare those of one run only.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

from deep_gemm import call_cache, fp8_gemm_nt, gemm, grouped_gemm, m_grouped_fp8_gemm_nt_masked
from deep_gemm import tensor_map as tensor_map_module
from deep_gemm.call_cache import CallCache
from deep_gemm.kernels import fp8_gemm as kernels
from deep_gemm.runtime import launch
from deep_gemm.runtime.cuda import Driver
from deep_gemm.runtime.launch import CudaPlan

CALLS, PASSES, BUFFERS = 2000, 15, 4

Call = Callable[[], None]


class IdleDriver(Driver):
    """Succeeds at once; maps begin with their address."""

    def __init__(self) -> None:
        library = ctypes.CDLL(ctypes.util.find_library("m"))
        # Returns 0, the status of success, and looks at no argument.
        self._library = {"cuLaunchKernelEx": library["fegetround"]}
        self.tensor_map_replace_address = self._store

    def encode_tensor_map(self, destination: int, dtype: int, address: int, **_: Any) -> None:
        self._store(destination, address)

    def load_kernel(self, cubin: bytes, entry: str) -> int:
        return 1

    def allow_dynamic_smem(self, kernel: int, device: int, num_bytes: int) -> None: ...

    def ensure_context(self, device: int) -> None: ...

    def _store(self, destination: int, address: int) -> int:
        ctypes.c_uint64.from_address(destination).value = address
        return 0


@contextmanager
def idle_driver() -> Iterator[None]:
    """CPU tensors take the way of CUDA tensors, to a driver that does nothing."""
    driver = IdleDriver()
    with ExitStack() as stack:

        def patch(target: object, name: str, value: object) -> None:
            stack.enter_context(mock.patch.object(target, name, value, create=True))

        for module in (launch, tensor_map_module):
            patch(module, "driver", lambda: driver)
        patch(launch, "_loaded", lambda kernel: 1)
        # In C, as PyTorch's own.
        patch(torch._C, "_cuda_getCurrentRawStream", (7).__add__)
        patch(kernels, "make_plan", lambda plan, addresses, device: CudaPlan(plan, addresses, 0))
        patch(kernels, "build", lambda source, purpose: None)
        for module in (gemm, grouped_gemm):
            patch(module, "_calls", CallCache())
        yield


def operand(*shape: int, gran: int) -> tuple[torch.Tensor, torch.Tensor]:
    *groups, rows, k = shape
    sf = torch.ones(*groups, -(-rows // gran), k // 128)
    return torch.empty(shape, dtype=torch.float8_e4m3fn), sf


def dense() -> Callable[[], object]:
    arguments = operand(64, 7168, gran=1), operand(2112, 7168, gran=128)
    d = torch.empty(64, 2112, dtype=torch.bfloat16)
    return lambda: fp8_gemm_nt(*arguments, d)


def masked() -> Callable[[], object]:
    arguments = operand(8, 64, 512, gran=1), operand(8, 256, 512, gran=128)
    d = torch.empty(8, 64, 256, dtype=torch.bfloat16)
    rows = torch.full((8,), 32, dtype=torch.int32)
    return lambda: m_grouped_fp8_gemm_nt_masked(*arguments, d, rows, 32)


def microseconds(calls: Sequence[Callable[[], object]]) -> float:
    """Of one call, over rotating buffers."""
    start = time.perf_counter()
    for _ in range(CALLS // len(calls)):
        for call in calls:
            call()
    return (time.perf_counter() - start) / CALLS * 1e6


def main() -> None:
    variants = {"short cut": call_cache._guard, "by key": lambda: None}
    for make in (dense, masked):
        best = dict.fromkeys(variants, float("inf"))
        calls = [make() for _ in range(BUFFERS)]
        for _ in range(PASSES):
            for name, guard in variants.items():
                with idle_driver(), mock.patch.object(call_cache, "_guard", guard):
                    microseconds(calls[:1])
                    best[name] = min(best[name], microseconds(calls))
        ratio = best["by key"] / best["short cut"]
        times = ", ".join(f"{name} {us:.2f} us" for name, us in best.items())
        print(f"{make.__name__}: {times}, {ratio:.2f} times")


if __name__ == "__main__":
    main()
