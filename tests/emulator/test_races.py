"""Races against a model that searches the whole graph of what orders what."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_gemm.emulator.clocks import Clock, Meeting, PhaseClocks, Timeline
from deep_gemm.emulator.errors import Access, HazardError
from deep_gemm.emulator.races import Kind, Ledger, Operation, Races

NUM_WARPS, NUM_CHANNELS, NUM_BYTES = 3, 2, 6

WARPS = st.integers(0, NUM_WARPS - 1)
CHANNELS = st.integers(0, NUM_CHANNELS - 1)
BYTES = st.lists(st.integers(0, NUM_BYTES - 1), min_size=1, max_size=3, unique=True)
EVENTS = st.one_of(
    st.tuples(st.sampled_from(["read", "write", "product"]), WARPS, BYTES),
    st.tuples(st.sampled_from(["release", "acquire"]), WARPS, CHANNELS),
    st.tuples(st.sampled_from(["commit"]), WARPS, st.just(0)),
    st.tuples(st.sampled_from(["wait"]), WARPS, st.integers(0, 2)),
)


@dataclass
class Graph:
    """Every event is a node; who comes before whom is searched when asked."""

    before: list[set[int]] = field(default_factory=list)
    last: list[int | None] = field(default_factory=lambda: [None] * NUM_WARPS)
    released: list[set[int]] = field(default_factory=lambda: [set() for _ in range(NUM_CHANNELS)])
    groups: list[list[list[int]]] = field(default_factory=lambda: [[[]] for _ in range(NUM_WARPS)])
    accesses: list[tuple[int, bool, set[int]]] = field(default_factory=list)

    def add(self, event: tuple[str, int, object]) -> bool:
        """Whether the event is free of races with all before it."""
        name, warp, what = event
        node = len(self.before)
        self.before.append({self.last[warp]} - {None})
        if name == "product":
            self.groups[warp][-1].append(node)
        else:
            self.last[warp] = node
        if name == "release":
            self.released[what].add(node)
        elif name == "acquire":
            self.before[node] |= self.released[what]
        elif name == "commit":
            self.groups[warp].append([])
        elif name == "wait":
            *committed, _ = self.groups[warp]
            done = committed[: max(0, len(committed) - what)]
            self.before[node] |= {product for group in done for product in group}
        else:
            return self.access(node, name == "write", set(what))
        return True

    def access(self, node: int, writes: bool, where: set[int]) -> bool:
        known = self.ancestors(node)
        free = all(
            other in known or not (writes or wrote) or not where & there
            for other, wrote, there in self.accesses
        )
        self.accesses.append((node, writes, where))
        return free

    def ancestors(self, node: int) -> set[int]:
        found: set[int] = set()
        left = [node]
        while left:
            new = self.before[left.pop()] - found
            found |= new
            left += new
        return found


class Checker:
    """The same events, told to clocks."""

    def __init__(self) -> None:
        agents = count(1)
        self.races = Races(NUM_BYTES, 1024, Ledger())
        self.timelines = [Timeline(agents) for _ in range(NUM_WARPS)]
        self.channels = [Clock() for _ in range(NUM_CHANNELS)]

    def add(self, event: tuple[str, int, object]) -> None:
        name, warp, what = event
        line = self.timelines[warp]
        if name == "release":
            line.release(self.channels[what])
        elif name == "acquire":
            line.clock.join(self.channels[what])
        elif name == "commit":
            line.wgmma.close()
        elif name == "wait":
            line.wgmma.complete(line.clock, what)
        else:
            self.access(name, line, np.array(what), Access(warp, 0))

    def access(self, name: str, line: Timeline, index: np.ndarray, access: Access) -> None:
        own = Operation(Kind.THREAD, line.agent, line.time, access)
        if name == "write":
            self.races.write(index, [own], line.clock)
        elif name == "read":
            self.races.read(index, own, line.clock)
        else:
            product = Operation(Kind.WGMMA, line.wgmma.agent, line.wgmma.time, access)
            self.races.read(index, product, line.clock)


@settings(max_examples=400)
@given(st.lists(EVENTS, max_size=40))
def test_finds_what_a_search_of_the_graph_finds(events: list[tuple[str, int, object]]) -> None:
    graph, checker = Graph(), Checker()
    for event in events:
        if not graph.add(event):
            with pytest.raises(HazardError):
                checker.add(event)
            return
        checker.add(event)


# Rules

OTHER = Access(7, 3)


@pytest.mark.parametrize(
    ("before", "wrote", "after", "writes", "rule"),
    [
        (Kind.LOAD, True, Kind.THREAD, False, "R2"),
        (Kind.COPY, True, Kind.WGMMA, False, "R2"),
        (Kind.COPY, True, Kind.THREAD, True, "R2"),
        (Kind.LOAD, True, Kind.COPY, True, "R29"),
        (Kind.WGMMA, False, Kind.LOAD, True, "R3"),
        (Kind.WGMMA, False, Kind.THREAD, True, "R3"),
        (Kind.STORE, False, Kind.THREAD, True, "R4"),
        (Kind.THREAD, True, Kind.STORE, False, "R1"),
        (Kind.THREAD, True, Kind.LOAD, True, "R1"),
        (Kind.THREAD, True, Kind.THREAD, False, "race"),
        (Kind.THREAD, True, Kind.COPY, True, "race"),
        (Kind.THREAD, False, Kind.LOAD, True, "race"),
    ],
)
def test_a_race_has_the_rule_of_its_agents(
    before: Kind, wrote: bool, after: Kind, writes: bool, rule: str
) -> None:
    races, index = Races(64, 1024, Ledger()), np.arange(8)
    first, second = Operation(before, 1, 1, OTHER), Operation(after, 2, 1, Access(8, 4))
    clock = Clock()
    for operation, is_write in ((first, wrote), (second, writes)):
        if operation is second:
            with pytest.raises(HazardError, match="0x400.*nothing orders the two") as error:
                access(races, index, operation, is_write, clock)
            assert (error.value.rule, error.value.other) == (rule, OTHER)
            clock.advance(1, 1)
        access(races, index, operation, is_write, clock)


def access(
    races: Races, index: np.ndarray, operation: Operation, writes: bool, clock: Clock
) -> None:
    if writes:
        races.write(index, [operation], clock)
    else:
        races.read(index, operation, clock)


def test_threads_may_write_the_same_at_once() -> None:
    races, index = Races(64, 1024, Ledger()), np.arange(4)
    races.write(index, [Operation(Kind.THREAD, 1, 1, OTHER)], Clock())
    second = [Operation(Kind.THREAD, 2, 1, OTHER)]
    with pytest.raises(HazardError, match="^race: .*0x402"):
        races.write(index, second, Clock(), is_same=lambda: np.array([True, True, False, True]))
    races.write(index, second, Clock(), is_same=lambda: np.ones(4, dtype=bool))
    races.write(index + 8, [Operation(Kind.COPY, 1, 1, OTHER)], Clock())
    with pytest.raises(HazardError, match="^R2"):
        races.write(index + 8, second, Clock(), is_same=lambda: np.ones(4, dtype=bool))


# fence.proxy.async


def test_a_fence_shows_just_what_its_threads_have_written() -> None:
    races, clock = Races(64, 1024, Ledger()), Clock()
    clock.advance(1, 5)
    rows = np.arange(16).reshape(2, 8)
    races.write(rows, [Operation(Kind.THREAD, 1, 5, OTHER)], clock, threads=np.array([3, 4]))
    races.fence(np.array([3]), Operation(Kind.THREAD, 1, 5, OTHER), clock)
    store = Operation(Kind.STORE, 2, 1, OTHER)
    races.read(rows[0], store, clock)
    with pytest.raises(HazardError, match=r"^R1: .*0x408.*without a fence.proxy.async"):
        races.read(rows, store, clock)


def test_a_fence_must_be_ordered_before_the_asynchronous_access() -> None:
    races, writer, issuer = Races(64, 1024, Ledger()), Clock(), Clock()
    index = np.arange(8).reshape(1, 8)
    races.write(index, [Operation(Kind.THREAD, 1, 1, OTHER)], writer, threads=np.array([3]))
    issuer.advance(1, 1)
    writer.advance(1, 2)
    races.fence(np.array([3]), Operation(Kind.THREAD, 1, 2, OTHER), writer)
    store = Operation(Kind.STORE, 2, 1, OTHER)
    with pytest.raises(HazardError, match="^R1: .*nothing orders the writer's fence"):
        races.read(index, store, issuer)
    issuer.advance(1, 2)
    races.read(index, store, issuer)


def test_a_fence_before_the_end_of_a_copy_does_not_show_it() -> None:
    races, clock = Races(64, 1024, Ledger()), Clock()
    index = np.arange(8).reshape(1, 8)
    races.write(index, [Operation(Kind.COPY, 1, 1, OTHER)], clock, threads=np.array([3]))
    fence, store = Operation(Kind.THREAD, 2, 1, OTHER), Operation(Kind.STORE, 3, 1, OTHER)
    clock.advance(2, 1)
    races.fence(np.array([3]), fence, clock)
    clock.advance(1, 1)
    with pytest.raises(HazardError, match="^R1: .*without a fence.proxy.async"):
        races.read(index, store, clock)
    races.fence(np.array([3]), fence, clock)
    races.read(index, store, clock)


# What barriers tell


def test_a_meeting_tells_all_of_all() -> None:
    agents = count(1)
    lines, meeting = [Timeline(agents) for _ in range(3)], Meeting()
    times = [line.time for line in lines]
    for line in lines:
        meeting.arrive(line)
    assert lines[0].clock[lines[1].agent] == 0
    meeting.complete()
    for line in lines:
        known = zip(lines, times, strict=True)
        assert all(line.clock[other.agent] >= time for other, time in known)
        others = [other for other in lines if other is not line]
        assert all(line.clock[other.agent] < other.time for other in others)


def test_a_phase_tells_of_its_own_arrivals_and_of_all_copies() -> None:
    phases, first, second, waiter = PhaseClocks(9, (1, 1, 0)), Clock(), Clock(), Clock()
    first.advance(1, 4)
    second.advance(2, 5)
    phases.arriving(0).join(first)
    phases.arriving(1).join(second)
    waiter.join(phases.told(2))
    assert (waiter[1], waiter[2], waiter[9]) == (0, 5, 2)
    waiter.join(phases.told(1))
    assert (waiter[1], waiter[9]) == (4, 2)


def test_clocks_of_any_number_of_agents_join() -> None:
    few, many = Clock(), Clock()
    few.advance(3, 2)
    many.advance(1000, 7)
    few.join(many)
    many.join(few)
    assert few[1000] == 7 and many[3] == 2 and many[5000] == 0
    assert few.of(np.array([3, 1000, 4000])).tolist() == [2, 7, 0]
