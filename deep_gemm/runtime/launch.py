"""Plan: a kernel launch, packed once per problem; a call only fills in addresses."""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch

from deep_gemm import knobs
from deep_gemm.jit.compiler import CompiledKernel
from deep_gemm.jit.diagnostics import asks, tell
from deep_gemm.kernels.arguments import KernelArguments
from deep_gemm.runtime.cuda import ERROR_INVALID_CONTEXT, driver, launch_config
from deep_gemm.tensor_map import BoxMap, word_of_address

Slot = Callable[[int], int]
"""Writes an address into a tensor map; a status other than 0 is a driver's failure."""


class KernelLaunch(NamedTuple):
    """Everything about a launch but the addresses of the tensors.

    Attributes:
        kernel: what to launch.
        arguments: its only parameter, complete but for what addresses decide.
        maps: fields of the arguments that are tensor maps, with what they map.
        pointers: fields that are plain pointers, with the bytes behind them; "" for memory that the
            kernel reaches by another way.
        grid: number of CTAs.
        num_threads: threads of a CTA.
        smem_bytes: dynamic shared memory of a CTA.
        cluster_size: CTAs of a cluster.
        pdl: programmatic dependent launch: it may start while the kernel before it ends.
    """

    kernel: CompiledKernel
    arguments: KernelArguments
    maps: tuple[tuple[str, BoxMap], ...]
    pointers: tuple[tuple[str, int], ...]
    grid: int
    num_threads: int
    smem_bytes: int
    cluster_size: int
    pdl: bool = False


class Plan(Protocol):
    """A launch that only lacks addresses: those of the maps, then those of the pointers."""

    def launch(self, *addresses: int) -> None:
        """Runs the kernel on tensors at these addresses."""


@functools.cache
def _loaded(kernel: CompiledKernel) -> int:
    """The CUkernel of a compiled kernel, loaded once per process; it serves every device."""
    start = time.perf_counter()
    loaded = driver().load_kernel(kernel.cubin, kernel.entry)
    if asks(knobs.jit_print_load_time):
        milliseconds = (time.perf_counter() - start) * 1e3
        tell(f"kernel {kernel.name}: loaded by the driver in {milliseconds:.2f} ms")
    return loaded


class CudaPlan:
    """A launch of one kernel for one problem on one device.

    Calls from several threads take turns: the parameters are shared, and the driver copies them
    before a launch returns.
    """

    def __init__(self, launch: KernelLaunch, addresses: Sequence[int], device: int) -> None:
        """Loads the kernel and encodes the tensor maps.

        Args:
            launch: what to launch.
            addresses: of the first call's tensors.
            device: index of the CUDA device.

        Raises:
            CudaError: the driver refused the kernel or a map.
        """
        driver().ensure_context(device)
        arguments = launch.arguments
        fields: list[tuple[int, int]] = []
        opaque: list[tuple[int, Slot]] = []
        for i, ((field, box_map), address) in enumerate(zip(launch.maps, addresses, strict=False)):
            destination = arguments.address_of(field)
            box_map.encode(destination, address)
            word = word_of_address(destination, address)
            if word is None:
                replace = driver().tensor_map_replace_address
                opaque.append((i, functools.partial(replace, destination)))
            else:
                fields.append((i, arguments.word_of(field) + word))
        for i, (field, _) in enumerate(launch.pointers, len(launch.maps)):
            if field:
                fields.append((i, arguments.word_of(field)))
        num_words = ctypes.sizeof(arguments) // ctypes.sizeof(ctypes.c_uint64)
        # Keeps the arguments alive.
        self._words = (ctypes.c_uint64 * num_words).from_buffer(arguments)
        self._fields, self._opaque = tuple(fields), tuple(opaque)
        self._config = launch_config(
            launch.grid, launch.num_threads, launch.smem_bytes, launch.cluster_size, launch.pdl
        )
        self._stream = 0
        self._current_stream = torch._C._cuda_getCurrentRawStream
        kernel = _loaded(launch.kernel)
        self._call = driver().prepared_launch(self._config, kernel, arguments)
        self._device = device
        lock = threading.Lock()
        self._acquire, self._release = lock.acquire, lock.release
        driver().allow_dynamic_smem(kernel, device, launch.smem_bytes)

    def launch(self, *addresses: int) -> None:
        """Enqueues the kernel on the device's current stream; one address per slot.

        Raises:
            CudaError: the driver refused the launch.
        """
        stream = self._current_stream(self._device)
        if stream == 0 and torch._C._cuda_getDevice() != self._device:
            # The null stream is that of the current device, whatever the tensors' device is.
            with torch.cuda.device(self._device):
                status = self._enqueue(stream, addresses)
        else:
            status = self._enqueue(stream, addresses)
        if status:
            self._after_failure(status, stream, addresses)

    def _enqueue(self, stream: int, addresses: tuple[int, ...]) -> int:
        """Fills in the addresses, and launches; the first failure's status."""
        # Not a with block, which takes twice as long.
        self._acquire()
        try:
            words = self._words
            for i, word in self._fields:
                words[word] = addresses[i]
            for i, replace in self._opaque:
                status = replace(addresses[i])
                if status:
                    return status
            if stream != self._stream:
                self._stream = self._config.stream = stream
            return self._call()
        finally:
            self._release()

    def _after_failure(self, status: int, stream: int, addresses: tuple[int, ...]) -> None:
        """Once more if only the thread's context was wanting."""
        if status == ERROR_INVALID_CONTEXT:
            driver().ensure_context(self._device)
            status = self._enqueue(stream, addresses)
        driver().check("the launch", status)
