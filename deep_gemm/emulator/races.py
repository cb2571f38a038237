"""Races on shared memory: accesses in conflict that nothing orders, whatever order they ran in.

Of every byte the last write is kept, and the last read of every agent. An asynchronous operation
counts from its issue, not from the moment at which the emulator performs it: so what is found does
not depend on the timing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.clocks import Clock
from deep_gemm.emulator.errors import Access, HazardError
from deep_gemm.emulator.mbarrier import NO_AGENT
from deep_gemm.emulator.operands import LANES
from deep_gemm.emulator.read_fences import ReadFences

Index = NDArray[np.int64]


class Kind(enum.Enum):
    """Who accesses memory."""

    THREAD = "a thread"
    STRONG = "a strong access of a thread"
    COPY = "a cp.async"
    LOAD = "a TMA load"
    REMOTE_STORE = "a st.async"
    STORE = "a TMA store"
    SEND = "a bulk copy to another CTA"
    WGMMA = "a wgmma"
    MMA = "a tcgen05.mma"
    TENSOR_COPY = "a tcgen05.cp"
    TENSOR_LOAD = "a tcgen05.ld"
    TENSOR_STORE = "a tcgen05.st"


_READ_BY_TENSOR_CORES = (Kind.WGMMA, Kind.MMA, Kind.TENSOR_COPY)
_RULES_OF_READERS = {
    **dict.fromkeys(_READ_BY_TENSOR_CORES, "R3"),
    Kind.STORE: "R4",
    Kind.SEND: "R4",
}
_COPIES = (Kind.COPY, Kind.LOAD, Kind.REMOTE_STORE)
_ASYNC_PROXY = (Kind.LOAD, Kind.STORE, Kind.SEND, *_READ_BY_TENSOR_CORES)


class Operation(NamedTuple):
    """An access of one agent.

    Attributes:
        kind: of the agent.
        agent: by its number in clocks.
        time: the agent's.
        access: the instruction.
    """

    kind: Kind
    agent: int
    time: int
    access: Access


class Ledger:
    """The operations of a cluster, by number. Number 0 stands for none: everybody knows it."""

    def __init__(self) -> None:
        """Starts with none."""
        self._operations = [Operation(Kind.THREAD, 0, 0, Access(NO_AGENT, -1))]
        self._agents = np.zeros(1024, dtype=np.int64)
        self._times = np.zeros(1024, dtype=np.int64)

    def __getitem__(self, number: int) -> Operation:
        """The operation of a number."""
        return self._operations[number]

    def add(self, operation: Operation) -> int:
        """Returns the operation's number; later ones have larger numbers."""
        number = len(self._operations)
        if number == self._agents.size:
            self._agents = np.pad(self._agents, (0, number))
            self._times = np.pad(self._times, (0, number))
        self._operations.append(operation)
        self._agents[number] = operation.agent
        self._times[number] = operation.time
        return number

    def known(self, numbers: NDArray[np.int32], clock: Clock) -> NDArray[np.bool_]:
        """Which operations of an array a clock knows."""
        known: NDArray[np.bool_] = clock.of(self._agents[numbers]) >= self._times[numbers]
        return known

    def of_threads(self, numbers: NDArray[np.int32]) -> list[int]:
        """Those of the operations that threads did themselves."""
        return [int(n) for n in numbers if self._operations[n].kind is Kind.THREAD]

    def unknown(self, numbers: NDArray[np.int32], clock: Clock) -> int | None:
        """Position in an array of the first operation that a clock does not know, if any."""
        flat = numbers.reshape(-1)
        first = int(flat[0])
        if (flat == first).all():
            _, agent, time, _ = self._operations[first]
            return 0 if clock[agent] < time else None
        is_known = self.known(flat, clock)
        position = int(np.argmin(is_known))
        return None if is_known[position] else position


class Races:
    """The shared memory of one CTA. Bytes are given by their index, in arrays of any shape."""

    def __init__(self, size: int, base: int, ledger: Ledger) -> None:
        """Starts without accesses.

        Args:
            size: in bytes.
            base: address of the first byte, for reports.
            ledger: of the cluster.
        """
        self._base = base
        self._ledger = ledger
        self._writes = np.zeros(size, dtype=np.int32)
        # The fence that shows a thread's write to the async proxy; before it, minus the thread - 1.
        self._fences = np.zeros(size, dtype=np.int32)
        # By agent and whether the reads are strong.
        self._reads: dict[tuple[int, bool], NDArray[np.int32]] = {}
        # By the same, of threads: the fences that let the async proxy overwrite what they read.
        self._read_fences: dict[tuple[int, bool], ReadFences] = {}
        # Writes whose readers need no such fence.
        self._freely_read: list[int] = []
        # Strong writes by agent: one does not hide another, as nothing orders them.
        self._strong: dict[int, NDArray[np.int32]] = {}

    def read(
        self, index: Index, operation: Operation, clock: Clock, lanes: Index | None = None
    ) -> None:
        """Notes a read.

        Args:
            index: of the bytes; [n, bytes] if there are n lanes.
            operation: that reads them.
            clock: what was known when it was issued.
            lanes: [n], those of the warp that read, unless it is the async proxy.

        Raises:
            HazardError: a race: R2 if a copy wrote the bytes, R1 if a thread wrote them for the
                async proxy, else "race".
        """
        if not index.size:
            return
        self._check_writes(index, operation, clock, "reads")
        key = operation.agent, operation.kind is Kind.STRONG
        if key not in self._reads:
            self._reads[key] = np.zeros_like(self._writes)
        self._reads[key][index] = self._ledger.add(operation)
        if lanes is not None:
            if key not in self._read_fences:
                self._read_fences[key] = ReadFences(self._writes.size)
            self._read_fences[key].read(index, lanes)

    def write(
        self,
        index: Index,
        operations: list[Operation],
        clock: Clock,
        threads: Index | None = None,
        is_same: Callable[[], NDArray[np.bool_]] | None = None,
    ) -> None:
        """Notes a write.

        Args:
            index: of the bytes; [n, bytes] if there are n operations.
            operations: one for all bytes, or one for each row, all of one kind.
            clock: what was known when they were issued.
            threads: [n], the threads that write, unless it is the async proxy.
            is_same: tells, in the shape of `index`, which bytes already have their new values.
                Threads may write the same at once: compilers do, where all threads know a value.

        Raises:
            HazardError: a race: R29 of two copies, R2 over a copy, R3 over what wgmma reads, R4
                over what a TMA store reads, R1 of a TMA load over what a thread wrote, R35 of one
                over what a thread has read, else "race".
        """
        if not index.size:
            return
        # Reads first: they come after what is overwritten, and tell more.
        is_strong, readers = operations[0].kind is Kind.STRONG, []
        for key, reads in self._reads.items():
            if key[1] and is_strong:
                continue
            # Numbers of one agent grow with its time: if the last one is known, all are.
            last = self._ledger[int(reads[index].max())]
            if clock[last.agent] < last.time:
                position = int(np.argmax(~self._ledger.known(reads[index], clock)))
                self._refuse(index, position, reads, operations[0], "writes", "reads")
            if last.time and key in self._read_fences:
                readers.append(key)
        self._check_writes(index, operations[0], clock, "writes", is_same)
        for key in readers if operations[0].kind in _ASYNC_PROXY else ():
            self._check_read_fences(index.reshape(-1), key, operations[0], clock)
        numbers = [self._ledger.add(operation) for operation in operations]
        writes = self._writes_of(operations[0])
        writes[index] = np.array(numbers, dtype=np.int32)[:, None] if numbers[1:] else numbers
        self._fences[index] = 0 if threads is None else -1 - threads[:, None]

    def _writes_of(self, operation: Operation) -> NDArray[np.int32]:
        if operation.kind is not Kind.STRONG:
            return self._writes
        return self._strong.setdefault(operation.agent, np.zeros_like(self._writes))

    def fence(self, threads: Index, operation: Operation, clock: Clock) -> None:
        """fence.proxy.async: shows what threads of a warp wrote so far to the async proxy.

        What their cp.async write is written once they know it. What they have read so far may be
        overwritten by the async proxy.
        """
        unfenced = np.flatnonzero(self._fences < 0)
        seen = unfenced[np.isin(-1 - self._fences[unfenced], threads)]
        seen = seen[self._ledger.known(self._writes[seen], clock)]
        number = self._ledger.add(operation)
        self._fences[seen] = number
        for is_strong in (False, True):
            if (operation.agent, is_strong) in self._read_fences:
                self._read_fences[operation.agent, is_strong].fence(threads % LANES, number)

    def imply_read_fences(self, index: Index) -> None:
        """What was written last may be read without a fence, and then overwritten."""
        self._freely_read += np.unique(self._writes[index]).tolist()

    def _check_writes(
        self,
        index: Index,
        operation: Operation,
        clock: Clock,
        does: str,
        is_same: Callable[[], NDArray[np.bool_]] | None = None,
    ) -> None:
        numbers = self._writes[index]
        position = self._ledger.unknown(numbers, clock)
        if position is not None and is_same is not None:
            by_threads = np.isin(numbers, self._ledger.of_threads(np.unique(numbers)))
            numbers = np.where(by_threads & is_same(), 0, numbers)
            position = self._ledger.unknown(numbers, clock)
        if position is not None:
            self._refuse(index, position, self._writes, operation, does, "writes")
        for writes in self._strong.values() if operation.kind is not Kind.STRONG else ():
            position = self._ledger.unknown(writes[index], clock)
            if position is not None:
                self._refuse(index, position, writes, operation, does, "writes")
        if operation.kind in _ASYNC_PROXY:
            self._check_fences(index, operation, clock, does)

    def _check_fences(self, index: Index, operation: Operation, clock: Clock, does: str) -> None:
        fences = self._fences[index].reshape(-1)
        unfenced = fences < 0
        if unfenced.any():
            position, why = int(np.argmax(unfenced)), "without a fence.proxy.async since"
        else:
            unknown = self._ledger.unknown(fences, clock)
            if unknown is None:
                return
            position, why = unknown, "and nothing orders the writer's fence.proxy.async before this"
        at = int(index.reshape(-1)[position])
        # Later operations have larger numbers.
        last = max(int(writes[at]) for writes in (self._writes, *self._strong.values()))
        writer = self._ledger[last]
        raise HazardError(
            "R1",
            f"{operation.kind.value} {does} {self.place(at)}, which a thread has written {why}",
            writer.access,
        )

    def _check_read_fences(
        self, index: Index, key: tuple[int, bool], operation: Operation, clock: Clock
    ) -> None:
        lacking = self._read_fences[key].lacking(index, self._ledger, clock)
        if not lacking.any():
            return
        # What was written since needs a fence for that: R1.
        for writes in (self._writes, *self._strong.values()):
            lacking &= writes[index] < self._reads[key][index]
        lacking &= ~np.isin(self._writes[index], self._freely_read)
        if lacking.any():
            at = int(index[np.argmax(lacking)])
            raise HazardError(
                "R35",
                f"{operation.kind.value} writes {self.place(at)}, which a thread has read without a"
                " fence.proxy.async between that and what orders the two",
                self._ledger[int(self._reads[key][at])].access,
            )

    def _refuse(
        self,
        index: Index,
        position: int,
        numbers: NDArray[np.int32],
        after: Operation,
        does: str,
        did: str,
    ) -> None:
        at = int(index.reshape(-1)[position])
        before = self._ledger[int(numbers[at])]
        raise HazardError(
            self.rule(before.kind, did, after.kind, does),
            f"{after.kind.value} {does} {self.place(at)}, which {before.kind.value} {did}, and"
            " nothing orders the two",
            before.access,
        )

    def place(self, at: int) -> str:
        """What an index stands for, for reports."""
        return f"shared memory at {at + self._base:#x}"

    def rule(self, before: Kind, did: str, after: Kind, does: str) -> str:
        """Name of the rule that two accesses break if nothing orders them."""
        if did == "reads":
            return _RULES_OF_READERS.get(before, "race")
        if before in _COPIES:
            return "R29" if does == "writes" and after in _COPIES else "R2"
        return "R1" if after in _ASYNC_PROXY else "race"
