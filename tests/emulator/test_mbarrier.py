"""Mbarrier against a model that recounts the whole history of events at every step."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.mbarrier import MAX_COUNT, Mbarrier

EVENTS = st.one_of(
    st.tuples(st.just("arrive"), st.integers(1, 3)),
    st.tuples(st.just("expect_tx"), st.sampled_from([0, 1, 2, 600_000])),
    st.tuples(st.just("complete_tx"), st.sampled_from([0, 1, 2, 600_000])),
)


class Recount:
    """The state as sums over the events of the present phase."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.phases: list[list[tuple[str, int]]] = [[]]

    def total(self, kind: str) -> int:
        return sum(amount for name, amount in self.phases[-1] if name == kind)

    @property
    def pending(self) -> int:
        return self.count - self.total("arrive")

    @property
    def tx(self) -> int:
        return self.total("expect_tx") - self.total("complete_tx")

    def is_legal(self, event: tuple[str, int]) -> bool:
        self.phases[-1].append(event)
        legal = (
            self.pending >= 0
            and -(2**20) < self.tx < 2**20
            and not (self.pending == 0 and self.tx < 0)
        )
        if legal and self.pending == 0 and self.tx == 0:
            self.phases.append([])
        return legal

    def is_complete(self, parity: int) -> bool:
        """Of the present phase and the one before, is the one of this parity complete?"""
        present = len(self.phases) - 1
        return next(phase for phase in (present, present - 1) if phase % 2 == parity) != present


@given(st.integers(1, 4), st.lists(EVENTS, max_size=40))
def test_equals_a_recount_of_all_events(count: int, events: list[tuple[str, int]]) -> None:
    barrier, model = Mbarrier(count), Recount(count)
    for event in events:
        name, amount = event
        if not model.is_legal(event):
            with pytest.raises(HazardError, match="^R10"):
                getattr(barrier, name)(amount)
            return
        getattr(barrier, name)(amount)
        assert (barrier.pending, barrier.tx) == (model.pending, model.tx)
        assert barrier.phase == len(model.phases) - 1 == len(barrier.arrivals) - 1
        for parity in (0, 1):
            assert barrier.test_parity(parity) == model.is_complete(parity)


def test_fresh_barrier_lets_a_producer_pass_and_a_consumer_wait() -> None:
    barrier = Mbarrier(1)
    assert barrier.test_parity(1)
    assert not barrier.test_parity(0)


def test_bytes_may_arrive_before_they_are_announced() -> None:
    barrier = Mbarrier(1)
    barrier.complete_tx(1024, agent=7, issue_phase=0)
    assert barrier.tx == -1024
    barrier.expect_tx(1024)
    assert barrier.phase == 0
    barrier.arrive(agent=3)
    assert (barrier.phase, barrier.pending, barrier.tx) == (1, 1, 0)
    assert barrier.arrivals == [[7, 3], []]


def test_phase_waits_for_its_last_byte() -> None:
    barrier = Mbarrier(1)
    barrier.expect_tx(1024)
    barrier.arrive()
    barrier.complete_tx(1000)
    assert "phase 0 (parity 0) lacks 0 of 1 arrivals and 24 bytes" in str(barrier)
    barrier.complete_tx(24)
    assert barrier.phase == 1


@pytest.mark.parametrize("count", [0, -1, MAX_COUNT + 1])
def test_init_refuses_a_count_out_of_range(count: int) -> None:
    with pytest.raises(HazardError, match="^R9.*count") as error:
        Mbarrier(count)
    assert error.value.rule == "R9"


def test_one_arrival_too_many() -> None:
    barrier = Mbarrier(2)
    with pytest.raises(HazardError, match="^R10: 3 arrivals"):
        barrier.arrive(3)


def test_arrival_while_only_bytes_are_missing() -> None:
    barrier = Mbarrier(1)
    barrier.expect_tx(16)
    barrier.arrive()
    with pytest.raises(HazardError, match="^R10: 1 arrivals .*lacks 0 of 1 arrivals and 16 bytes"):
        barrier.arrive()


@pytest.mark.parametrize("order", ["bytes first", "arrival first"])
def test_more_bytes_than_announced(order: str) -> None:
    barrier = Mbarrier(1)
    barrier.expect_tx(16)
    first, last = (barrier.complete_tx, 32), (barrier.arrive, 1)
    if order == "arrival first":
        first, last = last, first
    first[0](first[1])
    with pytest.raises(HazardError, match="^R10: 16 bytes more than announced"):
        last[0](last[1])


def test_bytes_that_arrive_one_phase_late() -> None:
    barrier = Mbarrier(1)
    issued = barrier.phase
    barrier.arrive()
    with pytest.raises(HazardError, match="^R10.*issued in phase 0 .* arrive in phase 1"):
        barrier.complete_tx(16, issue_phase=issued)


@pytest.mark.parametrize("operation", ["expect_tx", "complete_tx"])
def test_most_bytes_of_a_phase(operation: str) -> None:
    barrier = Mbarrier(1)
    getattr(barrier, operation)(MAX_COUNT)
    assert abs(barrier.tx) == 1_048_575
    with pytest.raises(HazardError, match="^R10"):
        getattr(barrier, operation)(1)


@pytest.mark.parametrize("operation", ["expect_tx", "complete_tx"])
def test_negative_bytes(operation: str) -> None:
    with pytest.raises(HazardError, match="^R10"):
        getattr(Mbarrier(1), operation)(-1)


def test_wait_two_phases_behind() -> None:
    barrier = Mbarrier(1)
    assert not barrier.test_parity(0, agent=1)
    barrier.arrive()
    assert barrier.test_parity(0, agent=1)
    barrier.arrive()
    barrier.arrive()
    with pytest.raises(HazardError, match="^R11: agent 1 .* 2 phases"):
        barrier.test_parity(1, agent=1)
    with pytest.raises(HazardError, match="^R11: agent 2 .* 3 phases"):
        barrier.test_parity(0, agent=2)


def test_wait_that_keeps_up_may_look_often() -> None:
    barrier = Mbarrier(1)
    for phase in range(5):
        assert not barrier.test_parity(phase % 2, agent=1)
        assert not barrier.test_parity(phase % 2, agent=1)
        barrier.arrive()
        assert barrier.test_parity(phase % 2, agent=1)


def test_wait_after_phases_that_are_known_from_others() -> None:
    barrier = Mbarrier(1)
    for _ in range(3):
        barrier.arrive()
    assert barrier.test_parity(0, agent=1, known=2)
    barrier.arrive()
    barrier.arrive()
    with pytest.raises(HazardError, match="^R11: agent 2 .* 2 phases"):
        barrier.test_parity(0, agent=2, known=3)


def test_parity_is_one_bit() -> None:
    with pytest.raises(HazardError, match="^R11.*parity 2"):
        Mbarrier(1).test_parity(2)
