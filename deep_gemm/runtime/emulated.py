"""The other tenant: the same kernel for tensors on the CPU, run by the emulator."""

from __future__ import annotations

import ctypes
import functools
import threading
import warnings
from typing import TYPE_CHECKING

from deep_gemm import knobs
from deep_gemm.runtime.launch import KernelLaunch

if TYPE_CHECKING:
    from deep_gemm.emulator.trace.recorder import Recorder


@functools.cache
def _warn_once() -> None:
    text = "CPU tensors: the CUDA kernel runs in deep_gemm's emulator, exactly and very slowly"
    warnings.warn(text, RuntimeWarning, stacklevel=4)


class EmulatedPlan:
    """A launch of one kernel for one problem, on NumPy."""

    def __init__(self, launch: KernelLaunch) -> None:
        """Parses the kernel's PTX.

        Raises:
            EmulationError: it has something that the emulator does not know.
        """
        # Imported here: a process with a GPU never needs the emulator.
        from deep_gemm.emulator.run import load

        self._launch = launch
        self._program = load(launch.kernel.ptx, launch.kernel.entry)
        self._lock = threading.Lock()

    def launch(self, *addresses: int, recorder: Recorder | None = None) -> None:
        """Runs the kernel to its end.

        Args:
            addresses: of the tensors.
            recorder: is told what happens, for a trace.

        Raises:
            EmulationError: the kernel broke a rule of PTX.
        """
        from deep_gemm.emulator.asynchrony import Timing
        from deep_gemm.emulator.map_bytes import encode
        from deep_gemm.emulator.run import run

        _warn_once()
        launch = self._launch
        arguments = launch.arguments
        extents = []
        with self._lock:
            for (field, box_map), address in zip(launch.maps, addresses, strict=False):
                encoded = encode(box_map.for_emulator(address))
                ctypes.memmove(arguments.address_of(field), encoded, len(encoded))
                extents.append((address, box_map.num_bytes))
            pointers = zip(launch.pointers, addresses[len(launch.maps) :], strict=True)
            for (field, num_bytes), address in pointers:
                if field:
                    setattr(arguments, field, address)
                extents.append((address, num_bytes))
            parameters = bytes(arguments).ljust(type(arguments).cxx_size(), b"\0")
        run(
            self._program,
            grid=launch.grid,
            cluster_size=launch.cluster_size,
            num_threads=launch.num_threads,
            smem_bytes=launch.smem_bytes,
            parameters=parameters,
            extents=extents,
            timing=Timing(knobs.emulator_timing.get()),
            pdl=launch.pdl,
            recorder=recorder,
        )
