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
from deep_gemm.emulator.ir import Address, Kernel, Module, Symbol
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
    variable_at = VARIABLE_BASE
    for name, variable in module.variables.items():
        if variable.space != "shared":
            addresses[name] = variable_at
            variable_at += -(-max(variable.size, 1) // 256) * 256
    shared, static_bytes = _place_shared(module, kernel)
    symbols = Symbols({**addresses, **shared}, frozenset(shared))
    return compile_kernel(kernel, symbols, static_bytes)


def _place_shared(module: Module, kernel: Kernel) -> tuple[dict[str, int], int]:
    """Addresses of the kernel's shared variables, and the bytes before the dynamic ones."""
    named = {
        item.name
        for instruction in kernel.instructions
        for operand in instruction.operands
        for item in (operand.base if isinstance(operand, Address) else operand,)
        if isinstance(item, Symbol)
    }
    variables = [v for v in module.variables.values() if v.space == "shared" and v.name in named]
    addresses, end = {}, SHARED_BASE
    for variable in variables:
        if not variable.is_extern:
            addresses[variable.name] = -(-end // variable.alignment) * variable.alignment
            end = addresses[variable.name] + variable.size
    dynamic = [variable for variable in variables if variable.is_extern]
    alignment = max((variable.alignment for variable in dynamic), default=1)
    start = -(-end // alignment) * alignment
    # All dynamic ones are names of the same memory.
    return {**addresses, **{v.name: start for v in dynamic}}, start - SHARED_BASE


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
    pdl: bool = False,
    recorder: Recorder | None = None,
    implies_tensor_fences: bool = False,
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
        pdl: the kernel may start while the one before it is still at work.
        recorder: is told what happens, for a trace; the run is the same with it and without.
        implies_tensor_fences: tcgen05.fence is not asked for, nor fence.proxy.async between the
            address that tcgen05.alloc writes, or its readers, and a copy over it: Triton leaves
            them out.

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
        pdl,
        implies_tensor_fences,
    )
    return launch.run()
