"""Where a recorded program runs: on a GPU or in the emulator. One launch, described for both."""

from __future__ import annotations

import ctypes
import functools
import struct
import time
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from deep_gemm.emulator import run as emulator
from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.emulator.tma import TensorMap
from deep_gemm.runtime.cuda import driver, launch_config
from tests.emulator.maps import with_maps

Bytes = NDArray[np.uint8]

ENTRY = "program"
NUMBERS_AT, MAPS_AT = 16, 64
MAX_MAPS = 2
MAP_BYTES = 128
PARAMETER_BYTES = MAPS_AT + MAX_MAPS * MAP_BYTES
ALIGNMENT = 64
UNTOUCHED = 0xA5
"""Fills the output before a launch, so that bytes which nobody writes are recorded too."""

HUNG_SECONDS = 10


@dataclass(frozen=True)
class Map:
    """A tensor map in the parameters; the fields are those of cuTensorMapEncodeTiled.

    Attributes:
        buffer: where the tensor lies, from byte `offset` on.
    """

    buffer: Literal["input", "output"]
    dtype: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int
    offset: int = 0


@dataclass(frozen=True)
class Launch:
    """A program and what it is run on.

    Its only parameter is `.param .align 64 .b8 arguments[320]`: the addresses of the input and of
    the output, then up to twelve 32-bit numbers, then at byte 64 up to two tensor maps.

    Attributes:
        ptx: the text, with an entry named `program`.
        inputs: content of the input buffer.
        output_bytes: size of the output buffer.
        smem_bytes: dynamic shared memory of a CTA.
    """

    ptx: str
    inputs: Bytes
    output_bytes: int
    num_ctas: int = 1
    cluster_size: int = 1
    num_threads: int = 32
    smem_bytes: int = 0
    numbers: tuple[int, ...] = ()
    maps: tuple[Map, ...] = ()

    def buffers(self, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        """The input, and the output before the launch."""
        output = torch.full((self.output_bytes,), UNTOUCHED, dtype=torch.uint8, device=device)
        return torch.from_numpy(self.inputs).to(device), output

    def parameters(self, addresses: tuple[int, int]) -> bytes:
        """The parameter block, zeros where the tensor maps are."""
        numbers = [number & 0xFFFFFFFF for number in self.numbers]
        block = struct.pack(f"<QQ{len(numbers)}I", *addresses, *numbers)
        return block.ljust(PARAMETER_BYTES, b"\0")


class Machine(Protocol):
    """Runs launches on tensors of its device."""

    device: str

    def run(self, launch: Launch) -> Bytes:
        """The output buffer after the launch."""

    def synchronise(self) -> None:
        """Waits for all that was launched."""


@dataclass(frozen=True)
class Emulator:
    """The emulator; its device is the CPU. The library's own launches take no timing from here."""

    timing: Timing = Timing.EARLY
    seed: int = 0
    device: str = "cpu"

    def run(self, launch: Launch) -> Bytes:
        inputs, output = launch.buffers(self.device)
        addresses = inputs.data_ptr(), output.data_ptr()
        maps = {
            MAPS_AT + i * MAP_BYTES: TensorMap.from_fields(
                spec.dtype,
                addresses[spec.buffer == "output"] + spec.offset,
                spec.dims,
                spec.strides,
                spec.box,
                spec.swizzle,
            )
            for i, spec in enumerate(launch.maps)
        }
        emulator.run(
            emulator.load(launch.ptx, ENTRY),
            launch.num_ctas,
            launch.cluster_size,
            launch.num_threads,
            launch.smem_bytes,
            with_maps(launch.parameters(addresses), maps),
            [(addresses[0], inputs.numel()), (addresses[1], output.numel())],
            self.timing,
            self.seed,
        )
        return output.numpy()

    def synchronise(self) -> None:
        pass


class Gpu:
    """The first CUDA device, through the library's own driver calls."""

    device = "cuda:0"

    def __init__(self) -> None:
        torch.zeros(1, device=self.device)
        driver().ensure_context(0)

    def run(self, launch: Launch) -> Bytes:
        inputs, output = launch.buffers(self.device)
        addresses = inputs.data_ptr(), output.data_ptr()
        kernel = _loaded(launch.ptx)
        if launch.smem_bytes:
            driver().allow_dynamic_smem(kernel, 0, launch.smem_bytes)
        memory = (ctypes.c_char * (PARAMETER_BYTES + ALIGNMENT))()
        block = ctypes.addressof(memory) + -ctypes.addressof(memory) % ALIGNMENT
        ctypes.memmove(block, launch.parameters(addresses), PARAMETER_BYTES)
        for i, spec in enumerate(launch.maps):
            driver().encode_tensor_map(
                block + MAPS_AT + i * MAP_BYTES,
                spec.dtype,
                addresses[spec.buffer == "output"] + spec.offset,
                spec.dims,
                spec.strides,
                spec.box,
                spec.swizzle,
                l2_promotion=0,
            )
        config = launch_config(
            launch.num_ctas, launch.num_threads, launch.smem_bytes, launch.cluster_size
        )
        config.stream = torch.cuda.current_stream(0).cuda_stream
        status = driver().launch_kernel(config, kernel, (ctypes.c_void_p * 1)(block), None)
        driver().check("the launch", status)
        self.synchronise()
        return output.cpu().numpy()

    def synchronise(self) -> None:
        """Waits for the device, but not for ever.

        Raises:
            TimeoutError: the kernel hangs; only the end of the process gets rid of it.
        """
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(0))
        deadline = time.monotonic() + HUNG_SECONDS
        while not done.query():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the kernel has not ended after {HUNG_SECONDS} s")
            time.sleep(0.001)


@functools.cache
def _loaded(ptx: str) -> int:
    """The CUkernel of a text, which the driver assembles."""
    return driver().load_kernel(ptx.encode(), ENTRY)
