"""A warp: 32 lanes that execute one program, diverge at branches and meet again.

Lanes that stand at the same instruction form a group. The group that is furthest behind runs first,
so groups meet again where the program's paths join. Where they join is not always further down, so
an instruction of the whole warp waits for groups whose every way leads to it. A group that must
wait (for a barrier, for the other lanes of its warp) names a condition; the warp is blocked when
all its groups wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.clocks import Timeline
from deep_gemm.emulator.errors import Access, EmulationError, HazardError
from deep_gemm.emulator.ir import Register
from deep_gemm.emulator.undefined import Undefined

if TYPE_CHECKING:
    from deep_gemm.emulator.cta import Cta
    from deep_gemm.emulator.program import Program, Step

LANES = 32
MAX_WARPS = 64
"""More than a CTA has: an agent is the CTA's index times this, plus the warp's."""

MAX_POLLS = 8
"""Of one turn, before the others have theirs."""

Mask = NDArray[np.bool_]

_DTYPES: dict[str, type] = {
    "pred": np.bool_,
    "b16": np.uint16,
    "b32": np.uint32,
    "b64": np.uint64,
    "f32": np.float32,
    "f64": np.float64,
}


@dataclass(slots=True)
class Wait:
    """Why a group cannot go on.

    Attributes:
        is_over: whether it can by now.
        what: for the report of a deadlock.
        repeats: whether the instruction is executed (again) once the wait is over.
    """

    is_over: Callable[[], bool]
    what: str
    repeats: bool = True


class LanesToComeError(Exception):
    """A warp-wide instruction has to wait for lanes that are on their way to it."""


# By identity: two groups of one warp are never equal, and masks are arrays.
@dataclass(slots=True, eq=False)
class Group:
    """Lanes at one program counter."""

    pc: int
    mask: Mask
    wait: Wait | None = None


@dataclass(slots=True)
class WgmmaState:
    """Asynchronous matrix products of a warp.

    Attributes:
        open_group: issued and not yet committed: (what to do, accumulator slots).
        groups: committed, oldest first.
        issued: descriptors of everything issued, to compare the warps of a warpgroup.
    """

    open_group: list[tuple[Callable[[], None], tuple[int, ...]]] = field(default_factory=list)
    groups: list[list[tuple[Callable[[], None], tuple[int, ...]]]] = field(default_factory=list)
    issued: list[tuple[int, int]] = field(default_factory=list)

    def in_flight(self) -> set[int]:
        """Accumulator slots of products that are not complete."""
        groups = [*self.groups, self.open_group]
        return {slot for group in groups for _, slots in group for slot in slots}


class Warp:
    """One warp of a CTA."""

    def __init__(self, program: Program, cta: Cta, index: int, num_threads: int) -> None:
        """Starts at the program's first instruction.

        Args:
            program: what to execute.
            cta: where.
            index: of the warp in its CTA.
            num_threads: of the CTA; lanes beyond it do not exist.
        """
        self.program = program
        self.cta = cta
        self.index = index
        thread = index * LANES + np.arange(LANES, dtype=np.uint32)
        self.registers: list[NDArray[np.generic]] = [
            np.zeros(LANES, dtype=_DTYPES[register.type]) for register in program.registers
        ]
        self.undefined = Undefined(len(self.registers))
        self.alive: Mask = thread < num_threads
        self.groups = [Group(0, self.alive.copy())]
        self.special = cta.special_registers(thread)
        self.agent = cta.index * MAX_WARPS + index
        self.wgmma = WgmmaState()
        self.in_flight: set[int] = set()
        self.written_since_fence: set[int] = set()
        self.stores: dict[int, list[Callable[[], None]]] = {}
        self.store_groups: dict[int, list[list[Callable[[], None]]]] = {}
        self.cluster_round = 0
        # Round of a bar.red that has not given its result yet.
        self.voted_in: int | None = None
        # Groups of cp.async in flight, by lane.
        self.open_copies = np.zeros(LANES, dtype=np.int64)
        self.timeline = Timeline(cta.cluster.order.agents)
        self.num_steps = 0
        self.gives_way = False
        self.spins = False
        self.polls = 0

    @property
    def has_exited(self) -> bool:
        """Whether no lane is left."""
        return not self.groups

    @property
    def warpgroup(self) -> int:
        """Index of the warpgroup that the warp belongs to."""
        return self.index // 4

    def read(self, register: Register) -> NDArray[np.generic]:
        """All lanes of a register, as they are."""
        return self.registers[register.slot]

    def write(self, slot: int, value: NDArray[np.generic], mask: Mask) -> None:
        """Sets the lanes of `mask`."""
        self.undefined.define(slot, mask)
        if mask.all():
            self.registers[slot] = value
        else:
            self.registers[slot] = np.where(mask, value, self.registers[slot])

    def run(self) -> bool:
        """Executes until every group waits or is gone, or the warp gives way to the others.

        Returns:
            Whether anything was executed.
        """
        progress = False
        self.gives_way = self.spins = False
        self.polls = 0
        while not self.gives_way and (group := self._next_group()) is not None:
            progress = True
            self._run_group(group)
        return progress and not self.spins

    def poll(self) -> None:
        """Counts a look at what others may change: many in one turn are a loop that waits."""
        self.polls += 1
        if self.polls >= MAX_POLLS:
            self.spin()

    def spin(self) -> None:
        """Lets the others go on, as what was executed is no progress by itself."""
        self.gives_way = self.spins = True

    def waits(self) -> list[str]:
        """What each group waits for, with its line."""
        return [
            f"line {self.program.lines[group.pc]}: {group.wait.what}"
            for group in self.groups
            if group.wait is not None
        ]

    def require_converged(self, mask: Mask, what: str) -> None:
        """Checks that all living lanes execute a warp-wide instruction together.

        Raises:
            HazardError: some are elsewhere, and need not come.
            LanesToComeError: the others will come.
        """
        if (mask == self.alive).all():
            return
        group = next(group for group in self.groups if (group.mask & mask).any())
        leads = self.program.paths.always_lead
        others = [leads(other.pc, group.pc) for other in self.groups if other is not group]
        if (mask == group.mask).all() and all(others):
            raise LanesToComeError(what)
        missing = np.flatnonzero(self.alive & ~mask).tolist()
        raise HazardError("R8", f"{what} without lanes {missing} of warp {self.index}")

    # WGMMA

    def issue_wgmma(self, descriptor_a: int, descriptor_b: int, slots: tuple[int, ...]) -> None:
        """Checks a product that is about to start.

        Raises:
            HazardError: registers were accessed since the fence, or the warpgroup disagrees.
        """
        if not self.written_since_fence.isdisjoint(slots):
            raise HazardError("R6", "accumulators accessed since the last wgmma.fence")
        self.wgmma.issued.append((descriptor_a, descriptor_b))
        place = len(self.wgmma.issued) - 1
        for peer in self.cta.warps[4 * self.warpgroup : 4 * self.warpgroup + 4]:
            issued = peer.wgmma.issued
            if len(issued) > place and issued[place] != self.wgmma.issued[place]:
                raise HazardError("R8", "the warps of a warpgroup gave different descriptors")
        self.in_flight |= set(slots)

    def finish_wgmma_early(self) -> None:
        """Computes what has been issued now rather than at the wait."""
        for i, (multiply, slots) in enumerate(self.wgmma.open_group):
            multiply()
            self.wgmma.open_group[i] = (_done, slots)

    def wait_wgmma(self, keep: int) -> None:
        """Completes all committed groups but the latest `keep`."""
        groups = self.wgmma.groups
        count = max(0, len(groups) - keep)
        for group in groups[:count]:
            for multiply, _ in group:
                multiply()
        del groups[:count]
        self.timeline.wgmma.complete(self.timeline.clock, keep)
        self.in_flight = self.wgmma.in_flight()

    def _next_group(self) -> Group | None:
        """The group furthest behind that can go on."""
        ready: Group | None = None
        for group in self.groups:
            if group.wait is not None and not self._is_over(group.wait, group.pc):
                continue
            if ready is None or group.pc < ready.pc:
                ready = group
        if ready is not None and ready.wait is not None:
            if not ready.wait.repeats:
                ready.pc += 1
            ready.wait = None
        return ready

    def _is_over(self, wait: Wait, pc: int) -> bool:
        try:
            return wait.is_over()
        except EmulationError as error:
            raise self.located(error, pc) from None

    def _run_group(self, group: Group) -> None:
        """Executes a group until it waits, ends, or another one is behind it."""
        self.cta.cluster.executing = self, group
        steps = self.program.steps
        while True:
            step = steps[group.pc]
            self.num_steps += 1
            try:
                alone = len(self.groups) == 1
                if not self._execute(step, group):
                    return
                if not (alone and len(self.groups) == 1) and self._meets_or_passes(group):
                    return
                if self.gives_way:
                    return
            except EmulationError as error:
                raise self.located(error, group.pc) from None

    def _execute(self, step: Step, group: Group) -> bool:
        """One instruction; False if the group cannot go on now."""
        if self.in_flight and not self.in_flight.isdisjoint(step.touched) and not step.is_wgmma:
            raise HazardError("R7", "accumulator accessed before wgmma.wait_group")
        mask = group.mask
        if step.guard is not None:
            self.undefined.require(frozenset((step.guard.register.slot,)), mask, "a predicate is")
            taken = self.registers[step.guard.register.slot] != step.guard.negated
            mask = mask & taken
        if step.target is not None:
            return self._branch(group, mask, step.target)
        if step.is_exit:
            return self._exit(group, mask)
        if step.accumulators:
            self.written_since_fence |= step.accumulators
        self.undefined.require(step.needs, mask, "an operand is")
        try:
            wait = step.execute(self, mask) if mask.any() else None
        except LanesToComeError as instruction:
            wait = Wait(lambda: len(self.groups) == 1, f"all lanes of the warp at {instruction}")
        if wait is not None:
            group.wait = wait
            return False
        group.pc += 1
        return True

    def _branch(self, group: Group, taken: Mask, target: int) -> bool:
        if not taken.any():
            group.pc += 1
        elif (taken == group.mask).all():
            group.pc = target
        else:
            self._send(group, taken, target)
            group.mask = group.mask & ~taken
            group.pc += 1
        return True

    def _send(self, group: Group, lanes: Mask, target: int) -> None:
        """Makes some lanes of a group one of their own, or part of one that waits at the target."""
        for other in self.groups:
            if other is not group and other.pc == target:
                other.mask = other.mask | lanes
                other.wait = None
                return
        self.groups.append(Group(target, lanes))

    def _exit(self, group: Group, leaving: Mask) -> bool:
        self.alive = self.alive & ~leaving
        group.mask = group.mask & ~leaving
        group.pc += 1
        if not group.mask.any():
            self.groups.remove(group)
            return False
        return True

    def _meets_or_passes(self, group: Group) -> bool:
        """Joins groups at the same instruction; True if another one should run first."""
        for other in self.groups:
            if other is not group and other.pc == group.pc:
                other.mask = other.mask | group.mask
                other.wait = None
                self.groups.remove(group)
                return True
        return any(other.pc < group.pc and other.wait is None for other in self.groups)

    def located(self, error: EmulationError, pc: int) -> EmulationError:
        """The error with the instruction that led to it, unless it names one already."""
        if error.is_located:
            return error
        place = f"kernel {self.program.kernel.name}, {self._described(Access(self.agent, pc))}"
        located: EmulationError
        if isinstance(error, HazardError):
            if error.other is not None:
                place += f"; other access: {self._described(error.other)}"
            text = str(error).partition(": ")[2]
            located = HazardError(error.rule, f"{text} [{place}]", error.other)
        else:
            located = type(error)(f"{error} [{place}]")
        located.is_located = True
        return located

    def _described(self, access: Access) -> str:
        cta, warp = divmod(access.agent, MAX_WARPS)
        return f"CTA {cta}, warp {warp}, {self.program.describe(access.pc)}"


def _done() -> None:
    """A product that has been computed already."""
