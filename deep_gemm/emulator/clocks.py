"""Happens-before as vector clocks: who knows how much of what the others have done.

Agents are the warps of a cluster and their asynchronous operations. Lanes of a warp are one agent:
within a warp program order is taken for granted. An agent's time is a number that only grows; what
an agent did at a time happens before a point of the program if the clock there has come so far.
"""

from __future__ import annotations

from itertools import count

import numpy as np
from numpy.typing import NDArray

_FIRST_AGENTS = 64


class Clock:
    """The time of every agent up to which what it did is known here; 0 is before everything."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        """Knows nothing."""
        self._times = np.zeros(_FIRST_AGENTS, dtype=np.int64)

    def __getitem__(self, agent: int) -> int:
        """The agent's time as far as it is known."""
        return int(self._times[agent]) if agent < self._times.size else 0

    def of(self, agents: NDArray[np.int64]) -> NDArray[np.int64]:
        """The times of agents, in their array's shape."""
        self._fit(int(agents.max(initial=0)) + 1)
        times: NDArray[np.int64] = self._times[agents]
        return times

    def advance(self, agent: int, time: int) -> None:
        """Comes to know an agent's doings up to a time."""
        self._fit(agent + 1)
        if time > self._times[agent]:
            self._times[agent] = time

    def join(self, other: Clock) -> None:
        """Comes to know what another clock knows."""
        size = other._times.size
        self._fit(size)
        np.maximum(self._times[:size], other._times, out=self._times[:size])

    def _fit(self, num_agents: int) -> None:
        size = wanted = self._times.size
        # By doubling alone: of two clocks that learn from each other, each would otherwise grow
        # beyond the other's size, again and again.
        while wanted < num_agents:
            wanted *= 2
        if wanted > size:
            self._times = np.pad(self._times, (0, wanted - size))


class Stream:
    """Asynchronous operations of a thread or warp that are waited for group by group, in order.

    Attributes:
        agent: stands for them.
        time: of what is issued now.
    """

    def __init__(self, agent: int) -> None:
        """Starts with an empty group."""
        self.agent = agent
        self.time = 1
        # Of the groups that nobody has waited for: the time of what came last.
        self._groups: list[int] = []

    def cut(self) -> int:
        """Later operations have a later time; returns that of the ones until now."""
        self.time += 1
        return self.time - 1

    def close(self) -> None:
        """Ends the group."""
        self._groups.append(self.cut())

    def complete(self, clock: Clock, keep: int = 0) -> None:
        """Lets a clock know all closed groups but the latest `keep`."""
        over = self._groups[: max(0, len(self._groups) - keep)]
        if over:
            clock.advance(self.agent, over[-1])
            del self._groups[: len(over)]


class Timeline:
    """Where a warp stands.

    Attributes:
        clock: what it knows; of itself, everything.
        agent: stands for what its threads do themselves.
        wgmma: its matrix products.
        inits: agent that stands for its fence.mbarrier_init.
        maps: agent that stands for its releases of tensor maps.
        executed: what is over; that it can be seen here takes more.
    """

    def __init__(self, agents: count[int]) -> None:
        """Starts a warp.

        Args:
            agents: yields numbers that no agent has.
        """
        self._agents = agents
        self.agent = next(agents)
        self.clock = Clock()
        self.clock.advance(self.agent, 1)
        self.wgmma = Stream(next(agents))
        self.inits = next(agents)
        self.maps = next(agents)
        self.executed = Clock()
        # What relaxed operations tell, and what they have learnt: a fence makes it count.
        self._fenced, self._learnt = Clock(), Clock()
        self._of_lanes: dict[tuple[str, int], Stream] = {}

    @property
    def time(self) -> int:
        """Of what the warp's threads do now."""
        return self.clock[self.agent]

    def stream(self, kind: str, lane: int) -> Stream:
        """A lane's operations of one kind."""
        if (kind, lane) not in self._of_lanes:
            self._of_lanes[kind, lane] = Stream(next(self._agents))
        return self._of_lanes[kind, lane]

    def release(self, to: Clock, relaxed: bool = False) -> None:
        """Tells what the warp knows, or if relaxed, what it knew at its last fence.

        What it does from now on is not part of it.
        """
        to.join(self._fenced if relaxed else self.clock)
        self.clock.advance(self.agent, self.time + 1)

    def acquire(self, told: Clock, relaxed: bool = False) -> None:
        """Learns what was told; if relaxed, it counts from the next fence on."""
        (self._learnt if relaxed else self.clock).join(told)

    def fence(self) -> None:
        """fence.acq_rel or fence.sc."""
        self.clock.join(self._learnt)
        self.release(self._fenced)

    def has_learnt(self, agent: int, time: int) -> bool:
        """Whether a fence here comes after what an agent did at a time."""
        return self.clock[agent] >= time or self._learnt[agent] >= time

    def fence_inits(self) -> int:
        """fence.mbarrier_init; returns its time."""
        return self._fence_of(self.inits)

    def fence_maps(self) -> int:
        """fence.proxy.tensormap::generic.release; returns its time."""
        return self._fence_of(self.maps)

    def _fence_of(self, agent: int) -> int:
        """A fence that an agent stands for, and of which relaxed operations tell, too."""
        time = self.clock[agent] + 1
        self.clock.advance(agent, time)
        self._fenced.advance(agent, time)
        return time


class PhaseClocks:
    """What waiting on an mbarrier tells.

    Attributes:
        agent: stands for the copies that complete on the barrier; their time is the number of
            phases that are complete once they are.
        initialiser: agent, time and lane of the mbarrier.init.
        fenced: agent and time of the initialiser's fence.mbarrier_init, if there was one.
    """

    def __init__(self, agent: int, initialiser: tuple[int, int, int]) -> None:
        """Starts with phase 0."""
        self.agent = agent
        self.initialiser = initialiser
        self.fenced: tuple[int, int] | None = None
        self._by_phase: dict[int, Clock] = {}

    def is_initialised(self, clock: Clock) -> bool:
        """Whether a clock knows the init, or its fence."""
        agent, time, _ = self.initialiser
        return clock[agent] >= time or self.is_fenced(clock)

    def is_fenced(self, clock: Clock) -> bool:
        """Whether a clock knows the fence.mbarrier_init."""
        return self.fenced is not None and clock[self.fenced[0]] >= self.fenced[1]

    def arriving(self, phase: int) -> Clock:
        """What those who wait for the phase will know; arrivals add to it."""
        if phase not in self._by_phase:
            self._by_phase = {
                old: clock for old, clock in self._by_phase.items() if old >= phase - 1
            }
            self._by_phase[phase] = Clock()
        return self._by_phase[phase]

    def told(self, num_complete: int) -> Clock:
        """What the last of `num_complete` phases tells, and of the copies of all of them."""
        clock = Clock()
        if num_complete - 1 in self._by_phase:
            clock.join(self._by_phase[num_complete - 1])
        clock.advance(self.agent, num_complete)
        return clock


class Meeting:
    """A barrier of warps, one round of it at a time: all who leave know what all who came knew."""

    def __init__(self) -> None:
        """Starts with nobody there."""
        self._clock = Clock()
        self._waiting: list[Timeline] = []

    def arrive(self, timeline: Timeline, waits: bool = True) -> None:
        """A warp comes, and may wait for the others."""
        timeline.release(self._clock)
        if waits:
            self._waiting.append(timeline)

    def complete(self) -> None:
        """All are there."""
        for timeline in self._waiting:
            timeline.clock.join(self._clock)
        self._clock = Clock()
        self._waiting = []
