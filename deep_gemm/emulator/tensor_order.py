"""What orders accesses to tensor memory: the rules of tcgen05's asynchronous instructions.

An access happens before another one, by PTX's memory consistency model for tcgen05, through these:

- tcgen05.wait::ld and ::st, in the warp that issued the ld or st;
- tcgen05.commit and a wait on its mbarrier, for what the committing thread has issued;
- issue order of tcgen05.mma and tcgen05.cp by one thread ("pipelined"), or by threads that are
  ordered, with tcgen05 fences on both sides; not of two mma of different shape or kind on one
  accumulator. That cp comes after an earlier mma, which reads the scale factors that cp overwrites,
  is not in PTX's list: CUTLASS and DeepGEMM rely on it;
- between warps, ordinary synchronisation between tcgen05.fence::before_thread_sync (which commit
  implies) and tcgen05.fence::after_thread_sync. Triton leaves both out, so a launch can imply them.

What a warp knows of ordinary memory is in its clock. What its tcgen05 instructions may rely on is
in a clock of their own here, which fence::after_thread_sync brings up to date.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deep_gemm.emulator.clocks import Clock
from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.races import Kind, Ledger, Operation, Races
from deep_gemm.emulator.tensor_memory import NUM_COLUMNS, NUM_LANES, Cells

if TYPE_CHECKING:
    from deep_gemm.emulator.cta import Cta
    from deep_gemm.emulator.grid import Cluster
    from deep_gemm.emulator.warp import Warp

_ISSUED = (Kind.MMA, Kind.TENSOR_COPY)
_BY_WARP = (Kind.TENSOR_LOAD, Kind.TENSOR_STORE)

Signature = tuple[object, ...]
"""What two mma on one accumulator must share to be ordered by their issue."""


class Moves(NamedTuple):
    """A warp's tcgen05.ld, or its tcgen05.st.

    Attributes:
        done: agent that stands for those that are known to be over.
        agent: stands for them; what is known of it has passed fence::before_thread_sync.
    """

    done: int
    agent: int


@dataclass
class Issuer:
    """What one thread has issued: tcgen05.mma and tcgen05.cp.

    Attributes:
        agent: stands for what is complete.
        issued: agent that stands for what is issued.
        time: of the last one.
        committed: of the last one when it was last committed.
        known: what the thread knew when it issued the last one.
    """

    agent: int
    issued: int
    time: int = 0
    committed: int = 0
    known: Clock = field(default_factory=Clock)


@dataclass
class _Of:
    """What a warp has issued, and what its tcgen05 instructions know."""

    seen: Clock
    moves: dict[Kind, Moves]
    times: dict[Kind, int]
    issuers: dict[int, Issuer] = field(default_factory=dict)


class TensorRaces(Races):
    """The tensor memory of one CTA."""

    def __init__(self, ledger: Ledger) -> None:
        """Starts without accesses."""
        super().__init__(NUM_LANES * NUM_COLUMNS, 0, ledger)

    def forget(self, cells: Cells) -> None:
        """Cells are freed: what comes later has nothing to do with what was."""
        self._writes[cells] = 0
        for reads in self._reads.values():
            reads[cells] = 0

    def writers(self, cells: Cells) -> list[Operation]:
        """The last writers of cells."""
        return [self._ledger[int(number)] for number in np.unique(self._writes[cells])]

    def place(self, at: int) -> str:
        """A cell, for reports."""
        return f"tensor memory, lane {at // NUM_COLUMNS}, column {at % NUM_COLUMNS}"

    def rule(self, before: Kind, did: str, after: Kind, does: str) -> str:
        """Name of the rule that two accesses break if nothing orders them."""
        if after is Kind.THREAD:
            return "R19"
        if did == "reads":
            return "R22" if before is Kind.TENSOR_LOAD else "R33"
        if does == "reads":
            return "R21" if after is Kind.TENSOR_LOAD else "R23"
        return "R24"


class TensorOrder:
    """The tcgen05 instructions of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        """Starts with none."""
        self._cluster = cluster
        self._warps: dict[int, _Of] = {}
        self._moves: list[Moves] = []
        self._issuers: list[Issuer] = []
        self._signatures: dict[tuple[int, int], Signature] = {}
        # Agent and time of each tcgen05.dealloc: those of a pair are one.
        self._frees: list[tuple[int, int]] = []

    # What threads wait for and tell

    def before_sync(self, warp: Warp) -> None:
        """tcgen05.fence::before_thread_sync: what is over, or issued, may be told from now on."""
        clock, own = warp.timeline.clock, self._of(warp)
        for moves in own.moves.values():
            clock.advance(moves.agent, clock[moves.done])
        for issuer in own.issuers.values():
            clock.advance(issuer.issued, issuer.time)

    def after_sync(self, warp: Warp) -> None:
        """tcgen05.fence::after_thread_sync: what was learnt counts from now on."""
        self._of(warp).seen.join(warp.timeline.clock)

    def wait(self, warp: Warp, kind: Kind) -> None:
        """tcgen05.wait::ld or ::st: the warp's are over."""
        own = self._of(warp)
        moves = own.moves[kind]
        warp.timeline.clock.advance(moves.done, own.times[kind])
        own.seen.advance(moves.agent, own.times[kind])
        self._imply(warp)

    def commit(self, warp: Warp, lane: int) -> Clock:
        """tcgen05.commit: what those know who see its arrival.

        Raises:
            HazardError: R25, the thread has issued nothing, and another one of the warp has.
        """
        own = self._of(warp)
        self.before_sync(warp)
        told, issuer = Clock(), own.issuers.get(lane)
        for moves in own.moves.values():
            told.advance(moves.agent, warp.timeline.clock[moves.agent])
        if issuer is None:
            for other, idle in own.issuers.items():
                if idle.committed < idle.time:
                    text = f"tcgen05.commit by lane {lane}, which has issued nothing; lane {other}"
                    raise HazardError("R25", f"{text} has, and commits for itself only")
            return told
        issuer.committed = issuer.time
        told.join(issuer.known)
        told.advance(issuer.agent, issuer.time)
        told.advance(issuer.issued, issuer.time)
        return told

    # What is accessed

    def move(self, warp: Warp, kind: Kind, cells: Cells) -> None:
        """A warp's tcgen05.ld or tcgen05.st of cells of its CTA.

        Raises:
            HazardError: R19, R21, R22, R24 or R33.
        """
        self._imply(warp)
        own, cta = self._of(warp), warp.cta
        cta.tensor.check(cells)
        own.times[kind] += 1
        operation = self._operation(kind, own.moves[kind].agent, own.times[kind])
        if kind is Kind.TENSOR_LOAD:
            cta.tensor_races.read(cells, operation, own.seen)
        else:
            cta.tensor_races.write(cells, [operation], own.seen)

    def issue(self, warp: Warp, lane: int, kind: Kind, signature: Signature = ()) -> Operation:
        """A thread issues a tcgen05.mma or tcgen05.cp, whose accesses are noted after this."""
        self._imply(warp)
        own = self._of(warp)
        if lane not in own.issuers:
            own.issuers[lane] = Issuer(
                next(self._cluster.order.agents), next(self._cluster.order.agents)
            )
            self._issuers.append(own.issuers[lane])
        issuer = own.issuers[lane]
        issuer.time += 1
        issuer.known = Clock()
        warp.timeline.release(issuer.known)
        # Threads of a warp are one agent: they know what the others have issued.
        own.seen.advance(issuer.issued, issuer.time)
        self._signatures[issuer.agent, issuer.time] = signature
        return self._operation(kind, issuer.agent, issuer.time)

    def read(self, warp: Warp, cta: Cta, operation: Operation, cells: Cells) -> None:
        """What was issued reads cells of a CTA. Raises R19 and R23."""
        cta.tensor.check(cells)
        cta.tensor_races.read(cells, operation, self._pipelined(warp))

    def write(self, warp: Warp, cta: Cta, operation: Operation, cells: Cells) -> None:
        """What was issued writes cells of a CTA. Raises R19, R22, R24 and R33."""
        cta.tensor.check(cells)
        seen, signature = self._of(warp).seen, self._signatures[operation.agent, operation.time]
        for writer in cta.tensor_races.writers(cells):
            if writer.kind is not Kind.MMA or operation.kind is not Kind.MMA:
                continue
            is_over = seen[writer.agent] >= writer.time
            if not is_over and self._signatures[writer.agent, writer.time] != signature:
                text = "an accumulator that a tcgen05.mma of another shape or kind may still write"
                raise HazardError("R24", f"a tcgen05.mma writes {text}", writer.access)
        cta.tensor_races.write(cells, [operation], self._pipelined(warp))

    def free(self, warp: Warp, ctas: list[Cta], cells: Cells, is_last: bool) -> None:
        """tcgen05.dealloc of cells of a CTA, or of both CTAs of a pair, by the last or only one.

        Raises:
            HazardError: R19, nothing orders the end of an access before.
        """
        # It is no asynchronous instruction, so that it takes no fences; nor does it look at what is
        # there, so that it is enough if others are through.
        known = Clock()
        known.join(warp.timeline.clock)
        known.join(warp.timeline.executed)
        for moves in self._moves:
            known.advance(moves.agent, known[moves.done])
        for agent, time in self._frees:
            known.advance(agent, time)
        agent, time = warp.timeline.agent, warp.timeline.time
        self._frees.append((agent, time))
        operation = Operation(Kind.THREAD, agent, time, self._cluster.access())
        for cta in ctas:
            cta.tensor_races.write(cells, [operation], known)
            if is_last:
                cta.tensor_races.forget(cells)

    def _operation(self, kind: Kind, agent: int, time: int) -> Operation:
        return Operation(kind, agent, time, self._cluster.access())

    def _pipelined(self, warp: Warp) -> Clock:
        """What a tcgen05.mma or tcgen05.cp comes after: also what was issued before."""
        seen = Clock()
        seen.join(self._of(warp).seen)
        for issuer in self._issuers:
            seen.advance(issuer.agent, seen[issuer.issued])
        return seen

    def _imply(self, warp: Warp) -> None:
        if self._cluster.launch.implies_tensor_fences:
            self.before_sync(warp)
            self.after_sync(warp)

    def _of(self, warp: Warp) -> _Of:
        if warp.agent not in self._warps:
            agents = self._cluster.order.agents
            moves = {kind: Moves(next(agents), next(agents)) for kind in _BY_WARP}
            self._warps[warp.agent] = _Of(Clock(), moves, dict.fromkeys(_BY_WARP, 0))
            self._moves += moves.values()
        return self._warps[warp.agent]
