"""Plan: a kernel launch, packed once per problem; a call only fills in addresses."""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Sequence

import torch

from deep_gemm.jit.compiler import CompiledKernel
from deep_gemm.runtime.cuda import ERROR_INVALID_CONTEXT, LaunchConfig, driver

Slot = Callable[[int], int | None]
"""Writes an address into the parameters; a status other than 0 or None is a driver's failure."""


@functools.cache
def _loaded(kernel: CompiledKernel) -> int:
    """The CUkernel of a compiled kernel, loaded once per process; it serves every device."""
    return driver().load_kernel(kernel.cubin, kernel.entry)


class Plan:
    """A launch of one kernel for one problem on one device.

    Calls from several threads take turns: the parameters are shared, and the driver copies them
    before a launch returns.
    """

    def __init__(
        self,
        kernel: CompiledKernel,
        arguments: ctypes.Structure,
        slots: Sequence[Slot],
        config: LaunchConfig,
        device: int,
    ) -> None:
        """Loads the kernel.

        Args:
            kernel: what to launch.
            arguments: its only parameter, complete but for the addresses.
            slots: for each address of a call, how it gets into the arguments.
            config: grid, threads, shared memory and cluster.
            device: index of the CUDA device.
        """
        self._function = _loaded(kernel)
        self._arguments = arguments
        self._parameters = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
        self._slots = slots
        self._addresses: list[int] = [0] * len(slots)
        self._config = config
        self._device = device
        self._lock = threading.Lock()
        self._launch_kernel = driver().launch_kernel
        driver().allow_dynamic_smem(self._function, device, config.smem_bytes)

    def launch(self, *addresses: int) -> None:
        """Enqueues the kernel on the device's current stream; one address per slot.

        Raises:
            CudaError: the driver refused the launch.
        """
        stream = torch._C._cuda_getCurrentRawStream(self._device)
        if stream == 0 and torch._C._cuda_getDevice() != self._device:
            # The null stream is that of the current device, whatever the tensors' device is.
            with torch.cuda.device(self._device):
                self._launch(stream, addresses)
        else:
            self._launch(stream, addresses)

    def _launch(self, stream: int, addresses: tuple[int, ...]) -> None:
        with self._lock:
            status = self._enqueue(stream, addresses)
            if status == ERROR_INVALID_CONTEXT:
                driver().ensure_context(self._device)
                status = self._enqueue(stream, addresses)
        if status:
            driver().check("the launch", status)

    def _enqueue(self, stream: int, addresses: tuple[int, ...]) -> int:
        """Fills in the addresses that have changed, and launches; the first failure's status."""
        known = self._addresses
        for i, address in enumerate(addresses):
            if known[i] != address:
                status = self._slots[i](address)
                if status:
                    return status
                known[i] = address
        self._config.stream = stream
        return int(self._launch_kernel(self._config, self._function, self._parameters, None))
