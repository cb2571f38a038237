"""From a compiled kernel and a caller's memory to an emulated launch."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence

import numpy as np

from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.emulator.cta import PARAMETER_BASE, SHARED_BASE
from deep_gemm.emulator.global_memory import GlobalMemory
from deep_gemm.emulator.grid import Launch
from deep_gemm.emulator.operands import Symbols
from deep_gemm.emulator.program import Program, compile_kernel
from deep_gemm.emulator.ptx import parse
from deep_gemm.emulator.trace.instrument import instrument
from deep_gemm.emulator.trace.recorder import Recorder

VARIABLE_BASE = 0x7100_0000_0000
"""Generic address of the module's global and constant variables."""


@functools.lru_cache(maxsize=64)
def load(ptx: str, entry: str) -> Program:
    """Parses a kernel and resolves its instructions.

    Raises:
        EmulationError: the text has something that the emulator does not know.
    """
    module = parse(ptx)
    kernel = module.kernels[entry]
    addresses: dict[str, int] = {}
    for parameter in kernel.parameters:
        addresses[parameter.name] = PARAMETER_BASE + parameter.offset
    variable_at, shared_at = VARIABLE_BASE, SHARED_BASE
    shared = []
    for name, variable in module.variables.items():
        if variable.space == "shared":
            addresses[name] = shared_at
            shared.append(name)
            shared_at += variable.size
        else:
            addresses[name] = variable_at
            variable_at += -(-max(variable.size, 1) // 256) * 256
    return compile_kernel(kernel, Symbols(addresses, frozenset(shared)))


def run(
    program: Program,
    grid: int,
    cluster_size: int,
    num_threads: int,
    smem_bytes: int,
    parameters: bytes,
    extents: Sequence[tuple[int, int]],
    timing: Timing = Timing.EARLY,
    seed: int = 0,
    recorder: Recorder | None = None,
) -> int:
    """Executes a launch on the caller's memory.

    Args:
        program: from `load`.
        grid: number of CTAs.
        cluster_size: CTAs of a cluster.
        num_threads: of a CTA.
        smem_bytes: dynamic shared memory of a CTA.
        parameters: the kernel's parameter space, with tensor maps as `map_bytes.encode` has them.
        extents: (address, bytes) of every tensor that the kernel may touch.
        timing: when asynchronous operations happen.
        seed: of random timing.
        recorder: is told what happens, for a trace; the run is the same with it and without.

    Returns:
        The number of warp instructions executed.

    Raises:
        EmulationError: the program breaks a rule of PTX.
    """
    if recorder is not None:
        program = instrument(program, recorder)
    memory = GlobalMemory()
    for address, num_bytes in extents:
        buffer = (ctypes.c_uint8 * num_bytes).from_address(address)
        memory.map(np.ctypeslib.as_array(buffer), address)
    launch = Launch(
        program,
        grid,
        cluster_size,
        num_threads,
        smem_bytes,
        parameters,
        memory,
        timing,
        seed,
    )
    return launch.run()
