"""A program that does what it did, and tells a recorder.

Only the few opcodes that matter for timing are wrapped; all others count as plain instructions.
Programs without a recorder are not touched, so recording costs nothing where it is off.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from deep_gemm.emulator import matrices, wgmma
from deep_gemm.emulator.errors import EmulationError
from deep_gemm.emulator.ir import (
    Address,
    Immediate,
    Instruction,
    Register,
    Symbol,
    TensorAddress,
    Vector,
)
from deep_gemm.emulator.memory import OFFSET_MASK, RANK_SHIFT
from deep_gemm.emulator.operands import Fetch, Symbols, address, fetcher
from deep_gemm.emulator.program import Program, Step
from deep_gemm.emulator.trace import other_forms
from deep_gemm.emulator.trace.notes import Build, Note, always, named_phase, phase_at, places
from deep_gemm.emulator.trace.recorder import (
    Arrive,
    Commit,
    Copy,
    CopyArrive,
    Interval,
    Mma,
    MmaWait,
    Operation,
    Phase,
    Record,
    Recorder,
    Store,
    StoreCommit,
    StoreMatrix,
    StoreWait,
    Sync,
    Wait,
)
from deep_gemm.emulator.warp import Mask, Warp


def instrument(program: Program, recorder: Recorder) -> Program:
    """The same program, which records what it does."""
    steps = list(program.steps)
    for pc, instruction in enumerate(program.kernel.instructions):
        build = _find(instruction.name)
        if build is not None:
            note = build(instruction, program.symbols, recorder)
            steps[pc] = _recording(steps[pc], instruction.line, note, recorder)
    return replace(program, steps=tuple(steps))


def _find(name: str) -> Build | None:
    matching = (
        build for prefix, build in _TABLE.items() if name == prefix or name.startswith(prefix + ".")
    )
    return next(matching, None)


def _recording(step: Step, line: int, note: Note, recorder: Recorder) -> Step:
    perform = step.execute

    def execute(warp: Warp, mask: Mask) -> object:
        operation = note(warp, mask)
        wait = perform(warp, mask)
        # An instruction that is executed again after its wait is recorded then.
        if operation is not None and (wait is None or not wait.repeats):
            recorder.add(warp.cta.index, warp.index, Record(warp.num_steps, line, operation))
        return wait

    return replace(step, execute=execute)  # type: ignore[arg-type]


def _mbarrier_wait(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    if "parity" not in instruction.modifiers:
        return other_forms.wait_for_state(instruction, symbols, recorder)
    where = address(instruction.operands[1], symbols)
    fetch_parity = fetcher(instruction.operands[2], symbols, np.uint32)
    is_test = instruction.modifiers[0] == "test_wait"

    def note(warp: Warp, mask: Mask) -> Operation | None:
        places = {(int(where(warp)[i]), int(fetch_parity(warp)[i])) for i in np.flatnonzero(mask)}
        phases = []
        for place, parity in sorted(places):
            present = phase_at(warp, place)
            if present.turn & 1 == parity:
                return None
            # What is over is the phase before; a new barrier has none, which nobody waits for.
            if present.turn:
                phases.append(present._replace(turn=present.turn - 1))
        return Wait(tuple(phases), is_test)

    return note


def _mbarrier_arrive(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    where = address(instruction.operands[1], symbols)
    return lambda warp, mask: Arrive(
        tuple(phase_at(warp, place) for place in places(warp, mask, where))
    )


def _cp_async_arrive(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    where = address(instruction.operands[0], symbols)
    return lambda warp, mask: CopyArrive(
        tuple(phase_at(warp, place) for place in places(warp, mask, where))
    )


def _cp_async(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    sizes = fetcher(instruction.operands[-1], symbols, np.uint32)
    return lambda warp, mask: Copy(int(sizes(warp)[mask].sum()))


def _map_address(operand: object, symbols: Symbols) -> Fetch:
    """Where the tensor map of a `[map, {coordinates}]` lies."""
    match operand:
        case TensorAddress(base=Register() | Symbol() | Immediate() as base):
            return address(Address(base, 0), symbols)
        case _:
            raise EmulationError(f"operand {operand} is not a tensor map with coordinates")


def _box_bytes(warp: Warp, map_address: int) -> int:
    tensor_map = warp.cta.grid.map_at(map_address)
    return tensor_map.rows * tensor_map.row_bytes


def _tma(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    if isinstance(instruction.operands[0], TensorAddress):
        return _tma_store(instruction, symbols, recorder)
    return _tma_load(instruction, symbols, recorder)


def _tma_load(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    destination, source, barrier, *rest = instruction.operands
    where, completes = address(destination, symbols), address(barrier, symbols)
    fetch_map = _map_address(source, symbols)
    is_multicast = "multicast::cluster" in instruction.modifiers
    fetch_ranks = fetcher(rest[0], symbols, np.uint16) if is_multicast else None

    def note(warp: Warp, mask: Mask) -> Operation:
        lane = int(np.argmax(mask))
        bits = 1 << warp.cta.rank if fetch_ranks is None else int(fetch_ranks(warp)[lane])
        ranks = [rank for rank in range(len(warp.cta.cluster.ctas)) if bits >> rank & 1]
        offset = int(completes(warp)[lane]) & OFFSET_MASK
        phases = tuple(phase_at(warp, rank << RANK_SHIFT | offset) for rank in ranks)
        target = int(where(warp)[lane]) & OFFSET_MASK
        num_bytes = _box_bytes(warp, int(fetch_map(warp)[lane]))
        return recorder.new_load(phases, (target, target + num_bytes))

    return note


def _tma_store(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    fetch_map = _map_address(instruction.operands[0], symbols)
    return lambda warp, mask: Store(_box_bytes(warp, int(fetch_map(warp)[np.argmax(mask)])))


@functools.lru_cache(maxsize=4096)
def _operand(descriptor: int, rows: int) -> Interval:
    """The shared memory between an operand's first and last byte."""
    offsets = wgmma.operand_offsets(wgmma.decode_descriptor(descriptor), rows, matrices.K_BYTES)
    return int(offsets.min()), int(offsets.max()) + 1


def _mma(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    n = int(instruction.modifiers[3].partition("n")[2].partition("k")[0])
    _, a, b, *_ = instruction.operands
    operands = [
        (fetcher(operand, symbols, np.uint64), rows)
        for operand, rows in ((a, matrices.MMA_M), (b, n))
        if not isinstance(operand, Vector)
    ]

    def note(warp: Warp, mask: Mask) -> Operation:
        wanted = [_operand(int(fetch(warp)[0]), rows) for fetch, rows in operands]
        return Mma(n, recorder.loads_of(warp.cta.index, *wanted))

    return note


def _mma_wait(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    keep = fetcher(instruction.operands[0], symbols, np.uint32)
    return lambda warp, mask: MmaWait(int(keep(warp)[0]))


def _store_wait(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    keep = fetcher(instruction.operands[0], symbols, np.uint32)
    return lambda warp, mask: StoreWait(int(keep(warp)[0]))


def _bar_sync(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    fetch_id = fetcher(instruction.operands[0], symbols, np.uint32)

    return lambda warp, mask: Sync(named_phase(warp, int(fetch_id(warp)[np.argmax(mask)])))


def _cluster_barrier(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    arrives = instruction.modifiers[1] == "arrive"

    def note(warp: Warp, mask: Mask) -> Operation:
        cluster = warp.cta.cluster
        index = cluster.round if arrives else warp.cluster_round
        phase = Phase(cluster.ctas[0].index, "barrier.cluster", 0, index)
        return Arrive((phase,)) if arrives else Wait((phase,))

    return note


_TABLE: dict[str, Build] = {
    "mbarrier.test_wait": _mbarrier_wait,
    "mbarrier.try_wait": _mbarrier_wait,
    "mbarrier.arrive": _mbarrier_arrive,
    "mbarrier.arrive_drop": _mbarrier_arrive,
    "cp.async.mbarrier.arrive": _cp_async_arrive,
    "cp.async.bulk.tensor": _tma,
    "cp.reduce.async.bulk.tensor": _tma,
    "cp.async.bulk.commit_group": always(StoreCommit()),
    "cp.async.bulk.wait_group": _store_wait,
    "cp.async.ca": _cp_async,
    "cp.async.cg": _cp_async,
    "wgmma.mma_async": _mma,
    "wgmma.commit_group": always(Commit()),
    "wgmma.wait_group": _mma_wait,
    "stmatrix": always(StoreMatrix()),
    **{f"{name}.sync": _bar_sync for name in ("bar", "bar.cta", "barrier", "barrier.cta")},
    "barrier.cluster": _cluster_barrier,
    **other_forms.TABLE,
}
