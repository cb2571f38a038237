"""Tensor maps in global memory: who changes them, and whether TMA may use them.

TMA reads maps through the tensormap proxy. A thread's write reaches it by the writer's release, by
fence.proxy.tensormap::generic, something that orders this before an acquire of the map, and the
acquire, by a thread of the CTA that uses the map. The end of an earlier launch releases what it
wrote, but the start of a kernel acquires nothing (PTX ISA, memory consistency model, CUDA API
synchronisation), so that a map in global memory always takes an acquire; one in the parameters
never does. Scopes are not checked, nor what orders two clusters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.errors import Access, HazardError
from deep_gemm.emulator.map_bytes import MAP_BYTES
from deep_gemm.emulator.races import Operation
from deep_gemm.emulator.spaces import PARAMETER_WINDOW, is_within

if TYPE_CHECKING:
    from deep_gemm.emulator.grid import Cluster
    from deep_gemm.emulator.warp import Warp

_LINE_SHIFT = 6
"""Writes are tracked by line of 64 bytes: maps consist of two."""


@dataclass(slots=True)
class _Write:
    """The last write of an agent to a line, and the fence that released it: its agent and time."""

    operation: Operation
    release: tuple[int, int] | None = None


@dataclass(slots=True)
class _Line:
    """Writes of this launch, by agent; how many there were; copies that use the map, by agent."""

    writes: dict[int, _Write] = field(default_factory=dict)
    num_writes: int = 0
    uses: dict[int, Operation] = field(default_factory=dict)


class _Acquire(NamedTuple):
    """An acquire of a map: the warp's time, the writes until then, and whether it came to know."""

    time: int
    num_writes: int
    is_complete: bool


class MapOrder:
    """What one cluster does with tensor maps in global memory."""

    def __init__(self, cluster: Cluster) -> None:
        """Starts with nothing done."""
        self._launch = cluster.launch
        # Without an acquire, no map in global memory may be used: writes need not be followed.
        self._is_active = cluster.launch.program.acquires_maps
        self._lines: dict[int, _Line] = {}
        self._unreleased: list[_Write] = []
        # By CTA and address, then by agent.
        self._acquires: dict[tuple[int, int], dict[int, _Acquire]] = {}

    def write(
        self, warp: Warp, addresses: NDArray[np.uint64], size: int, operation: Operation
    ) -> None:
        """A warp writes words to global memory, itself or by a bulk copy that it issues.

        Raises:
            HazardError: R32, a copy that uses a map there may be in flight.
        """
        if not self._is_active:
            return
        first, last = addresses >> _LINE_SHIFT, (addresses + np.uint64(size - 1)) >> _LINE_SHIFT
        for number in np.unique(np.concatenate([first, last])):
            line = self._lines.setdefault(int(number), _Line())
            self._check_unused(line, warp)
            write = _Write(operation)
            line.writes[operation.agent] = write
            line.num_writes += 1
            self._unreleased.append(write)

    def _check_unused(self, line: _Line, warp: Warp) -> None:
        for use in line.uses.values():
            if warp.timeline.clock[use.agent] < use.time:
                text = "a tensor map is changed, and nothing orders the end of"
                raise HazardError("R32", f"{text} {use.kind.value} that uses it before", use.access)
        line.uses.clear()

    def release(self, warp: Warp, address: int | None = None) -> None:
        """A release of all that the warp knows to be written, or only of the map at an address."""
        fence = warp.timeline.maps, warp.timeline.fence_maps()
        writes: Iterable[_Write] = self._unreleased
        if address is not None:
            writes = [write for line in self._of(address) for write in line.writes.values()]
        for write in writes:
            if warp.timeline.clock[write.operation.agent] >= write.operation.time:
                write.release = write.release or fence
        self._unreleased = [write for write in self._unreleased if write.release is None]

    def acquire(self, warp: Warp, address: int) -> None:
        """An acquire of the map at an address."""
        writes = [write for line in self._of(address) for write in line.writes.values()]
        is_complete = self._foreign(address) is None and all(
            write.release is not None and warp.timeline.has_learnt(*write.release)
            for write in writes
        )
        acquires = self._acquires.setdefault((warp.cta.index, address), {})
        acquires[warp.timeline.agent] = _Acquire(
            warp.timeline.time, self._num_writes(address), is_complete
        )

    def check(self, warp: Warp, address: int) -> None:
        """A warp is about to use the map at an address.

        Raises:
            HazardError: R31, it is in global memory and not released and acquired.
        """
        if is_within(address, PARAMETER_WINDOW):
            return
        clock = warp.timeline.clock
        acquires = self._acquires.get((warp.cta.index, address), {})
        known = [acquire for agent, acquire in acquires.items() if clock[agent] >= acquire.time]
        present = [a for a in known if a.num_writes == self._num_writes(address)]
        if any(acquire.is_complete for acquire in present):
            return
        if present:
            why = "nothing orders its writer's fence.proxy.tensormap release before the acquire"
        elif known:
            why = "it was written since it was acquired"
        else:
            why = "nothing orders a fence.proxy.tensormap acquire of it by this CTA before"
        text = f"TMA uses the tensor map at {address:#x} in global memory, and {why}"
        raise HazardError("R31", text, self._last_write(address))

    def use(self, address: int, operation: Operation) -> None:
        """A copy is issued that uses the map at an address until it is complete."""
        if self._is_active:
            for line in self._of(address):
                line.uses[operation.agent] = operation

    def close(self) -> None:
        """The cluster has left: later ones of the launch know what it has released."""
        for number, line in self._lines.items():
            open_writes = [write for write in line.writes.values() if write.release is None]
            if open_writes:
                self._launch.unreleased[number] = open_writes[-1].operation.access
            elif line.writes:
                self._launch.unreleased.pop(number, None)

    def _of(self, address: int) -> list[_Line]:
        return [self._lines.setdefault(number, _Line()) for number in _numbers(address)]

    def _num_writes(self, address: int) -> int:
        return sum(line.num_writes for line in self._of(address))

    def _foreign(self, address: int) -> Access | None:
        """A write by an earlier cluster that was not released, nor overwritten here."""
        for number in _numbers(address):
            line = self._lines.get(number)
            if number in self._launch.unreleased and not (line and line.writes):
                return self._launch.unreleased[number]
        return None

    def _last_write(self, address: int) -> Access | None:
        writes = [write for line in self._of(address) for write in line.writes.values()]
        return writes[-1].operation.access if writes else self._foreign(address)


def _numbers(address: int) -> range:
    """Of the lines of the map at an address."""
    return range(address >> _LINE_SHIFT, address + MAP_BYTES >> _LINE_SHIFT)
