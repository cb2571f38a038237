"""What orders tcgen05 instructions, against a model that searches the whole graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_gemm.emulator.clocks import Clock, Timeline
from deep_gemm.emulator.errors import Access, HazardError
from deep_gemm.emulator.races import Kind, Ledger
from deep_gemm.emulator.tensor_order import TensorOrder, TensorRaces

NUM_WARPS, NUM_CHANNELS, NUM_CELLS = 3, 2, 3
MOVES = {"ld": Kind.TENSOR_LOAD, "st": Kind.TENSOR_STORE}
ISSUED = ("mma", "other mma", "reads", "cp")
"""A mma that writes a cell, one of another shape, one that reads a cell, and a cp into it."""

WARP = st.integers(0, NUM_WARPS - 1)
CHANNEL = st.integers(0, NUM_CHANNELS - 1)
ACCESS = st.tuples(st.sampled_from([*MOVES, *ISSUED]), WARP, st.integers(0, NUM_CELLS - 1))
Event = tuple[str, int, int]


@st.composite
def handovers(draw: st.DrawFn) -> list[Event]:
    """What makes one warp's accesses known to another, or to itself; perhaps without one step."""
    giver, taker, channel = draw(WARP), draw(WARP), draw(CHANNEL)
    tells = draw(st.sampled_from(["release", "commit"]))
    steps = [
        ("wait ld", giver, 0),
        ("wait st", giver, 0),
        ("before", giver, 0),
        (tells, giver, channel),
        ("acquire", taker, channel),
        ("after", taker, 0),
    ]
    missing = draw(st.sampled_from([None, None, None, *range(len(steps))]))
    return [step for i, step in enumerate(steps) if i != missing]


@st.composite
def programs(draw: st.DrawFn) -> list[Event]:
    """Accesses, with handovers between them."""
    pieces = draw(st.lists(st.one_of(ACCESS.map(lambda event: [event]), handovers()), max_size=16))
    return [event for piece in pieces for event in piece]


@dataclass
class Graph:
    """Nodes are what is known: that something was issued, or is over. Edges lead to the earlier.

    Every warp has a node for what it may tell, `told`, and one for what its tcgen05 instructions
    may rely on, `seen`; an event makes new ones.
    """

    before: list[set[int]] = field(default_factory=list)
    told: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    # By warp, of what it has done: (what, node of its issue or None, node of its end).
    done: list[list[tuple[str, int, int]]] = field(default_factory=list)
    waited: list[set[int]] = field(default_factory=list)
    channels: list[set[int]] = field(default_factory=list)
    snapshot: list[int | None] = field(default_factory=list)
    accesses: list[tuple[str, int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.told = [self.node() for _ in range(NUM_WARPS)]
        self.seen = [self.node() for _ in range(NUM_WARPS)]
        self.done = [[] for _ in range(NUM_WARPS)]
        self.waited = [set() for _ in range(NUM_WARPS)]
        self.channels = [set() for _ in range(NUM_CHANNELS)]
        self.snapshot = [None] * NUM_WARPS

    def node(self, *earlier: int) -> int:
        self.before.append(set(earlier))
        return len(self.before) - 1

    def reaches(self, late: int, early: int) -> bool:
        todo, met = [late], set()
        while todo:
            node = todo.pop()
            if node == early:
                return True
            if node not in met:
                met.add(node)
                todo += self.before[node]
        return False

    def tell_what_is_over(self, warp: int) -> None:
        issues = {issue for what, issue, _ in self.done[warp] if what in ISSUED}
        self.told[warp] = self.node(self.told[warp], *self.waited[warp], *issues)

    def add(self, event: Event) -> bool:
        """Whether the event conflicts with nothing that is not ordered before it."""
        name, warp, what = event
        if name in MOVES or name in ISSUED:
            return self.access(name, warp, what)
        if name.startswith("wait"):
            ends = {end for kind, _, end in self.done[warp] if kind == name[5:]}
            self.waited[warp] |= ends
            self.seen[warp] = self.node(self.seen[warp], *ends)
        elif name == "before":
            self.tell_what_is_over(warp)
        elif name == "after":
            self.seen[warp] = self.node(self.seen[warp], self.told[warp])
        elif name == "release":
            self.channels[what].add(self.told[warp])
        elif name == "acquire":
            self.told[warp] = self.node(self.told[warp], *self.channels[what])
        else:
            self.commit(warp, what)
        return True

    def commit(self, warp: int, channel: int) -> None:
        self.tell_what_is_over(warp)
        issued = {n for what, *nodes in self.done[warp] if what in ISSUED for n in nodes}
        last = self.snapshot[warp]
        self.channels[channel] |= issued | self.waited[warp] | ({last} - {None})

    def access(self, name: str, warp: int, cell: int) -> bool:
        start = self.seen[warp]
        is_free = all(
            self.is_ordered(before, name, start)
            for before in self.accesses
            if before[1] == cell and not self.agree(before[0], name)
        )
        issue = self.node()
        end = self.node()
        self.accesses.append((name, cell, issue, end))
        self.done[warp].append((name, issue, end))
        if name in ISSUED:
            self.snapshot[warp] = self.told[warp]
            self.seen[warp] = self.node(self.seen[warp], issue)
        return is_free

    @staticmethod
    def agree(before: str, after: str) -> bool:
        """Whether both only read."""
        return {before, after} <= {"ld", "reads"}

    def is_ordered(self, before: tuple[str, int, int, int], after: str, start: int) -> bool:
        name, _, issue, end = before
        if self.reaches(start, end):
            return True
        shapes = {"mma", "other mma"}
        is_pipelined = name in ISSUED and after in ISSUED
        if {name, after} == shapes:
            is_pipelined = False
        return is_pipelined and self.reaches(start, issue)


class Checked:
    """The emulator's order, with just what it needs around it."""

    def __init__(self) -> None:
        agents: Iterator[int] = count(1)
        ledger = Ledger()
        cluster: Any = SimpleNamespace(
            order=SimpleNamespace(ledger=ledger, agents=agents),
            launch=SimpleNamespace(implies_tensor_fences=False),
            access=lambda: Access(0, 0),
        )
        cta = SimpleNamespace(
            tensor=SimpleNamespace(check=lambda cells: None), tensor_races=TensorRaces(ledger)
        )
        self.order, self.cta = TensorOrder(cluster), cta
        self.warps: list[Any] = [
            SimpleNamespace(agent=i, cta=cta, timeline=Timeline(agents))  # type: ignore[arg-type]
            for i in range(NUM_WARPS)
        ]
        self.channels = [Clock() for _ in range(NUM_CHANNELS)]

    def add(self, event: Event) -> bool:
        name, index, what = event
        warp = self.warps[index]
        try:
            self.perform(name, warp, what)
        except HazardError:
            return False
        return True

    def perform(self, name: str, warp: Any, what: int) -> None:
        cells = np.array([what], dtype=np.int64)
        if name in MOVES:
            self.order.move(warp, MOVES[name], cells)
        elif name in ISSUED:
            kind = Kind.TENSOR_COPY if name == "cp" else Kind.MMA
            operation = self.order.issue(warp, 0, kind, (name,))
            access = self.order.read if name == "reads" else self.order.write
            access(warp, self.cta, operation, cells)
        elif name in ("before", "after"):
            (self.order.before_sync if name == "before" else self.order.after_sync)(warp)
        elif name.startswith("wait"):
            self.order.wait(warp, MOVES[name[5:]])
        elif name == "commit":
            self.channels[what].join(self.order.commit(warp, 0))
        elif name == "release":
            warp.timeline.release(self.channels[what])
        else:
            warp.timeline.acquire(self.channels[what])


def outcome(checker: Any, events: list[Event]) -> int:
    """How many events go well before one does not."""
    return next((i for i, event in enumerate(events) if not checker.add(event)), len(events))


@settings(max_examples=1500)
@given(programs())
def test_any_program_is_judged_as_the_graph_judges_it(events: list[Event]) -> None:
    assert outcome(Checked(), events) == outcome(Graph(), events)


HANDED_OVER = [("commit", 0, 0), ("acquire", 1, 0), ("after", 1, 0)]
SOUND = {
    "a product that is read": [("mma", 0, 0), *HANDED_OVER, ("ld", 1, 0)],
    "read, and written again": [
        ("mma", 0, 0),
        *HANDED_OVER,
        ("ld", 1, 0),
        ("wait ld", 1, 0),
        ("before", 1, 0),
        ("release", 1, 1),
        ("acquire", 0, 1),
        ("after", 0, 0),
        ("mma", 0, 0),
    ],
    "stored, and used by a product": [
        ("st", 1, 1),
        ("wait st", 1, 0),
        ("before", 1, 0),
        ("release", 1, 1),
        ("acquire", 0, 1),
        ("after", 0, 0),
        ("reads", 0, 1),
    ],
    "copied, used, and copied again": [("cp", 0, 1), ("reads", 0, 1), ("cp", 0, 1)],
    "two shapes with a wait": [
        ("mma", 0, 0),
        ("commit", 0, 0),
        ("acquire", 0, 0),
        ("after", 0, 0),
        ("other mma", 0, 0),
    ],
    "issued by two warps in turn": [
        ("cp", 0, 0),
        ("before", 0, 0),
        ("release", 0, 0),
        ("acquire", 1, 0),
        ("after", 1, 0),
        ("reads", 1, 0),
    ],
    "a wait that a commit tells of": [
        ("ld", 0, 2),
        ("wait ld", 0, 0),
        ("mma", 0, 0),
        *HANDED_OVER,
        ("st", 1, 2),
    ],
}


@pytest.mark.parametrize("name", SOUND)
def test_each_step_of_a_sound_program_counts(name: str) -> None:
    """It is sound, and no longer so without any one step between its accesses."""
    events = SOUND[name]
    for checker in (Checked, Graph):
        assert outcome(checker(), events) == len(events)
        for i, event in enumerate(events):
            if event[0] not in MOVES and event[0] not in ISSUED:
                less = events[:i] + events[i + 1 :]
                assert outcome(checker(), less) < len(less)
