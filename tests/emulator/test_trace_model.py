"""The timing model on records made by hand, where every time can be told beforehand."""

from __future__ import annotations

from typing import Any

import pytest

from deep_gemm.emulator.errors import EmulationError
from deep_gemm.emulator.trace.model import (
    INSTRUCTION_CLOCKS,
    LOAD_BYTES_PER_CLOCK,
    LOAD_LATENCY,
    REMOTE_CLOCKS,
    STORE_CLOCKS,
)
from deep_gemm.emulator.trace.recorder import (
    Arrive,
    Commit,
    Copy,
    CopyArrive,
    CopyCommit,
    CopyWait,
    Load,
    Mma,
    MmaWait,
    Phase,
    Record,
    Store,
    StoreCommit,
    StoreWait,
    Wait,
)
from deep_gemm.emulator.trace.replay import replay
from tests.emulator.traces import of_kind

FULL = Phase(0, "mbarrier", 1024, 0)
MATH = range(4)


def records(*operations: Any, steps: int = 10) -> list[Record]:
    return [Record(steps * (i + 1), i, operation) for i, operation in enumerate(operations)]


def test_a_load_lands_after_its_transfer_and_its_latency() -> None:
    loads = [Load(number, (FULL,), (0, 4660)) for number in range(2)]
    waiting = records(Wait((FULL,)))
    events = replay({(0, 4): records(*loads), (0, 0): waiting})
    step = 10 * INSTRUCTION_CLOCKS
    transfer = 4660 / LOAD_BYTES_PER_CLOCK
    assert transfer > step
    first, second = of_kind(events, "load")
    assert (first.start, first.end) == pytest.approx((step, step + transfer + LOAD_LATENCY))
    # The second one waits for its turn, not for the first one's latency.
    assert second.end == pytest.approx(step + 2 * transfer + LOAD_LATENCY)
    (wait,) = of_kind(events, "wait for a barrier")
    assert (wait.start, wait.end) == pytest.approx((step, second.end))


def test_copies_count_for_their_phase_when_the_last_has_landed() -> None:
    copying = records(Copy(466), Copy(466), CopyArrive((FULL,)))
    events = replay({(0, 5): copying, (0, 0): records(Wait((FULL,)))})
    first, second = of_kind(events, "copy")
    assert first.end == pytest.approx(10 * INSTRUCTION_CLOCKS + 10 + LOAD_LATENCY)
    (wait,) = of_kind(events, "wait for a barrier")
    assert wait.end == second.end > first.end


def test_a_wgmma_begins_when_the_slowest_warp_has_issued_it() -> None:
    product = (Mma(128, ()), Mma(128, ()), Commit(), MmaWait(0))
    made = {(0, warp): records(*product, steps=10 + warp) for warp in MATH}
    events = replay(made)
    first, second = of_kind(events, "wgmma")
    assert first.start == pytest.approx(13 * INSTRUCTION_CLOCKS)
    assert (first.end, second.start) == (first.start + 64, first.end)
    assert {wait.end for wait in of_kind(events, "wait for wgmma")} == {second.end}


def test_warpgroups_share_the_tensor_cores_in_the_order_of_their_requests() -> None:
    product = (Mma(256, ()), Mma(256, ()), Commit(), MmaWait(0))
    made = {(0, warp): records(*product, steps=10 + warp // 4) for warp in range(8)}
    order = [event.args["warpgroup"] for event in of_kind(replay(made), "wgmma")]
    assert order == [0, 1, 0, 1]


def test_a_phase_that_a_test_found_over_is_awaited_before_the_next_wgmma() -> None:
    math = records(Wait((FULL,), is_test=True), Mma(64, (0,)), Commit(), MmaWait(0))
    made = {(0, 4): records(Load(0, (FULL,), (0, 466))), **{(0, warp): math for warp in MATH}}
    events = replay(made)
    (load,) = of_kind(events, "load")
    (product,) = of_kind(events, "wgmma")
    assert product.start == load.end > 20 * INSTRUCTION_CLOCKS


def test_an_arrival_in_a_peer_takes_its_way() -> None:
    for phase, delay in ((Phase(0, "mbarrier", 8, 0), 0.0), (Phase(1, "mbarrier", 8, 0), 180.0)):
        made = {(0, 0): records(Arrive((phase,))), (phase.cta, 1): records(Wait((phase,)), steps=0)}
        (wait,) = of_kind(replay(made), "wait for a barrier")
        assert wait.end == pytest.approx(10 * INSTRUCTION_CLOCKS + delay)
    assert REMOTE_CLOCKS == 180.0


def test_stores_are_waited_for_in_groups() -> None:
    store = (Store(8192), StoreCommit())
    events = replay({(0, 0): records(*store, *store, StoreWait(1), StoreWait(0))})
    first, second = of_kind(events, "store")
    assert second.end == pytest.approx(first.end + STORE_CLOCKS)
    assert [wait.end for wait in of_kind(events, "wait for stores")] == [first.end, second.end]


def test_records_without_what_a_wait_needs_are_refused() -> None:
    product = (Mma(8, ()), Commit(), MmaWait(0))
    with pytest.raises(EmulationError, match="lack what ends the waits for .*kind='wgmma'"):
        replay({(0, warp): records(*product) for warp in range(3)})


def test_a_phase_that_nothing_was_recorded_for_delays_nobody() -> None:
    (wait,) = of_kind(replay({(0, 0): records(Wait((FULL,)))}), "wait for a barrier")
    assert wait.start == wait.end == 10 * INSTRUCTION_CLOCKS


def test_copies_are_waited_for_in_groups() -> None:
    copying = (Copy(466), CopyCommit(), Copy(466), CopyCommit(), Copy(466))
    for last, waited_for in ((CopyWait(1), 0), (CopyWait(0), 1), (CopyWait(None), 2)):
        events = replay({(0, 0): records(*copying, last)})
        (wait,) = of_kind(events, "wait for copies")
        assert wait.end == of_kind(events, "copy")[waited_for].end > wait.start
