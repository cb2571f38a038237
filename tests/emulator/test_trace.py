"""Traces: the run is what it was, modelled times are consistent, and the files can be read."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from deep_gemm.cli import main, trace
from deep_gemm.config.cost_model import k_block_costs
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.emulator import run as emulator
from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.emulator.trace import chrome, picture, ring
from deep_gemm.emulator.trace.machine import Event
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
    Load,
    Mma,
    MmaWait,
    Phase,
    Record,
    Recorder,
    Store,
    StoreCommit,
    StoreWait,
    Wait,
)
from deep_gemm.emulator.trace.replay import replay
from tests.emulator.dense import ORDERS, Case, check_exact, integer_operands, run_case

Records = dict[tuple[int, int], list[Record]]
EARLY = (Timing.EARLY, 0)

PAIR = Case(GemmConfig(128, 64, 3, 2, cluster_m=2), 512, 64, 912)
"""Two blocks of eight k blocks by a cluster, whose CTAs share B; a ring of three."""

CASES = [
    PAIR,
    Case(GemmConfig(64, 32, 4, 1), 128, 32, 1024, num_sms=1),
    Case(GemmConfig(128, 160, 3, 2, cluster_n=2), 128, 320, 640),
    Case(GemmConfig(256, 64, 2, 2), 256, 64, 512, num_sms=1),
]


def traced(case: Case, order: tuple[Timing, int] = EARLY) -> tuple[Recorder, int, torch.Tensor]:
    """A recorded run: records, warp instructions and the result."""
    recorder, run, counts = Recorder(), emulator.run, []

    def recorded(*args: Any, **kwargs: Any) -> int:
        counts.append(run(*args, **{**kwargs, "recorder": recorder}))
        return counts[-1]

    with mock.patch.object(emulator, "run", recorded):
        out = run_case(case, order)
    return recorder, counts[0], out


def counted(case: Case, order: tuple[Timing, int]) -> tuple[int, torch.Tensor]:
    """A run without a recorder: warp instructions and the result."""
    run, counts = emulator.run, []

    def count(*args: Any, **kwargs: Any) -> int:
        counts.append(run(*args, **kwargs))
        return counts[-1]

    with mock.patch.object(emulator, "run", count):
        out = run_case(case, order)
    return counts[0], out


@functools.cache
def events_of(case: Case) -> tuple[Event, ...]:
    return tuple(replay(traced(case)[0].records))


@functools.cache
def records_of(case: Case) -> Records:
    return traced(case)[0].records


def of_kind(events: tuple[Event, ...], kind: str, **where: int) -> list[Event]:
    return [
        event
        for event in events
        if event.kind == kind
        and all(getattr(event, name) == value for name, value in where.items())
    ]


# The run


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: f"{order[0].value}-{order[1]}")
def test_a_recorder_changes_nothing(order: tuple[Timing, int]) -> None:
    recorder, steps, out = traced(PAIR, order)
    expected_steps, expected = counted(PAIR, order)
    assert steps == expected_steps
    assert torch.equal(out.view(torch.int16), expected.view(torch.int16))
    check_exact(out, *integer_operands(PAIR.m, PAIR.n, PAIR.k))
    assert len(recorder.records) == 2 * PAIR.config.num_threads // 32


def test_all_that_the_kernel_did_is_recorded() -> None:
    records = records_of(PAIR)
    operations = [record.operation for own in records.values() for record in own]
    loads = [operation for operation in operations if isinstance(operation, Load)]
    num_k_blocks, num_blocks, num_ctas = 8, 2, 2
    assert len(loads) == 2 * num_k_blocks * num_blocks * num_ctas
    # A of its own, half of B for both.
    assert sorted({(load.num_bytes, len(load.phases)) for load in loads}) == [(4096, 2), (16384, 1)]
    products = [operation for operation in operations if isinstance(operation, Mma)]
    assert len(products) == 4 * 8 * num_k_blocks * num_blocks * num_ctas
    # The CTA's own A and both halves of B; the warpgroups read 64 of the 128 rows of A.
    assert {len(product.loads) for product in products} == {3}
    for own in records.values():
        waits = [r.operation for r in own if isinstance(r.operation, Wait)]
        phases = [phase for wait in waits for phase in wait.phases]
        assert [phase.turn for phase in phases if phase.kind == "barrier.cluster"] == [0, 1]
        assert [record.num_steps for record in own] == sorted(record.num_steps for record in own)


@pytest.mark.parametrize("order", ORDERS[1:], ids=lambda order: f"{order[0].value}-{order[1]}")
def test_times_do_not_depend_on_the_order_of_the_run(order: tuple[Timing, int]) -> None:
    end = max(event.end for event in events_of(PAIR))
    other = max(event.end for event in replay(traced(PAIR, order)[0].records))
    # A test of an mbarrier that fails costs some instructions more.
    assert other == pytest.approx(end, rel=0.01)


# Consistency


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_event_ends_before_it_begins(case: Case) -> None:
    assert all(0 <= event.start <= event.end for event in events_of(case))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_warp_does_one_thing_at_a_time(case: Case) -> None:
    kinds = ("wait", "promotion", "epilogue", "issue", "other")
    by_warp: dict[tuple[int, int], list[Event]] = {}
    for event in events_of(case):
        if event.kind.startswith(kinds):
            by_warp.setdefault((event.cta, event.warp), []).append(event)
    for own in by_warp.values():
        ends = [0.0, *(event.end for event in own)]
        assert [event.start for event in own] == pytest.approx(ends[:-1])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wgmma_begins_after_its_operands_have_landed(case: Case) -> None:
    events = events_of(case)
    landed = {event.args["number"]: event.end for event in of_kind(events, "load")}
    products = of_kind(events, "wgmma")
    assert products
    for product in products:
        loads: tuple[int, ...] = product.args["loads"]  # type: ignore[assignment]
        assert len(loads) >= 2
        assert all(landed[number] <= product.start for number in loads)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_stage_is_loaded_after_it_was_released(case: Case) -> None:
    num_stages, num_ctas = case.config.num_stages, case.config.cluster_size
    uses = {(use.cta, use.stage, use.index): use for use in ring.rounds(events_of(case))}
    assert {stage for _, stage, _ in uses} == set(range(num_stages))
    pairs = [
        (use, uses[cta, stage, index + 1])
        for (cta, stage, index), use in uses.items()
        if (cta, stage, index + 1) in uses
    ]
    assert len(pairs) == len(uses) - num_stages * num_ctas
    for use, later in pairs:
        assert use.issued < use.landed <= use.first_read < use.last_read < later.issued
        # A peer's release takes its way through the cluster.
        if num_ctas == 2:
            assert later.issued >= use.last_read + REMOTE_CLOCKS


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_load_warp_runs_ahead_until_the_ring_is_full(case: Case) -> None:
    events, num_stages = events_of(case), case.config.num_stages
    load_warp = of_kind(events, "load", cta=0)[0].warp
    starts = sorted({event.start for event in of_kind(events, "load", cta=0)})
    first_landing = min(event.end for event in of_kind(events, "load"))
    # A and B of each stage are issued before anything has landed, and then no more.
    assert sum(start < first_landing for start in starts) == 2 * num_stages
    first_release = min(use.last_read for use in ring.rounds(events))
    assert starts[2 * num_stages] > first_release
    waits = of_kind(events, "wait for a barrier", cta=0, warp=load_warp)
    stalled = sum(wait.end - wait.start for wait in waits)
    assert stalled > (starts[-1] - starts[0]) / 2


@pytest.mark.parametrize("case", CASES, ids=str)
def test_tensor_cores_do_one_wgmma_at_a_time(case: Case) -> None:
    for cta in range(case.config.cluster_size):
        products = of_kind(events_of(case), "wgmma", cta=cta)
        free_at = 0.0
        for product in products:
            assert product.start >= free_at
            assert product.end - product.start == pytest.approx(case.config.block_n / 2)
            free_at = product.end


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wait_for_a_full_stage_ends_with_its_last_load(case: Case) -> None:
    events = events_of(case)
    landed: dict[Phase, float] = {}
    for event in of_kind(events, "load"):
        for phase in ring.phases_of(event):
            landed[phase] = max(landed.get(phase, 0.0), event.end)
    num_long = 0
    for wait in of_kind(events, "wait for a barrier"):
        for phase in ring.phases_of(wait):
            if phase in landed:
                assert wait.end == max(wait.start, landed[phase])
                num_long += wait.end > wait.start
    assert num_long
    uses = [use for use in ring.rounds(events) if use.cta == 0]
    assert {use.landed for use in uses} == {t for phase, t in landed.items() if phase.cta == 0}


def test_the_next_block_is_loaded_under_the_epilogue() -> None:
    events = events_of(PAIR)
    epilogue = of_kind(events, "epilogue", cta=0)[0]
    stores = of_kind(events, "store", cta=0)
    following = [
        use
        for use in ring.rounds(events)
        if use.cta == 0 and use.index * PAIR.config.num_stages + use.stage >= 8
    ]
    assert any(use.issued < epilogue.start < use.landed for use in following)
    assert min(use.first_read for use in following) < stores[1].end


@pytest.mark.parametrize("config", ["128x128_s5_w2_c1x1", "256x128_s3_w2_c1x1"])
def test_a_k_block_takes_about_what_the_cost_model_was_fitted_to(config: str) -> None:
    parsed = trace.parse_config(config)
    case = Case(parsed, parsed.block_m, parsed.block_n, 2048, num_sms=1)
    products = of_kind(events_of(case), "wgmma")
    first, last = products[0].start, products[-1].end
    assert (last - first) / 16 == pytest.approx(max(k_block_costs(parsed).values()), rel=0.15)


# The model on records made by hand

FULL = Phase(0, "mbarrier", 1024, 0)
MATH = range(4)


def records(*operations: Any, steps: int = 10) -> list[Record]:
    return [Record(steps * (i + 1), i, operation) for i, operation in enumerate(operations)]


def test_a_load_lands_after_its_transfer_and_its_latency() -> None:
    loads = [Load(number, (FULL,), (0, 4660)) for number in range(2)]
    waiting = records(Wait((FULL,)))
    events = tuple(replay({(0, 4): records(*loads), (0, 0): waiting}))
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
    events = tuple(replay({(0, 5): copying, (0, 0): records(Wait((FULL,)))}))
    first, second = of_kind(events, "copy")
    assert first.end == pytest.approx(10 * INSTRUCTION_CLOCKS + 10 + LOAD_LATENCY)
    (wait,) = of_kind(events, "wait for a barrier")
    assert wait.end == second.end > first.end


def test_a_wgmma_begins_when_the_slowest_warp_has_issued_it() -> None:
    product = (Mma(128, ()), Mma(128, ()), Commit(), MmaWait(0))
    made = {(0, warp): records(*product, steps=10 + warp) for warp in MATH}
    events = tuple(replay(made))
    first, second = of_kind(events, "wgmma")
    assert first.start == pytest.approx(13 * INSTRUCTION_CLOCKS)
    assert (first.end, second.start) == (first.start + 64, first.end)
    assert {wait.end for wait in of_kind(events, "wait for wgmma")} == {second.end}


def test_warpgroups_share_the_tensor_cores_in_the_order_of_their_requests() -> None:
    product = (Mma(256, ()), Mma(256, ()), Commit(), MmaWait(0))
    made = {(0, warp): records(*product, steps=10 + warp // 4) for warp in range(8)}
    order = [event.args["warpgroup"] for event in of_kind(tuple(replay(made)), "wgmma")]
    assert order == [0, 1, 0, 1]


def test_a_phase_that_a_test_found_over_is_awaited_before_the_next_wgmma() -> None:
    math = records(Wait((FULL,), is_test=True), Mma(64, (0,)), Commit(), MmaWait(0))
    made = {(0, 4): records(Load(0, (FULL,), (0, 466))), **{(0, warp): math for warp in MATH}}
    events = tuple(replay(made))
    (load,) = of_kind(events, "load")
    (product,) = of_kind(events, "wgmma")
    assert product.start == load.end > 20 * INSTRUCTION_CLOCKS


def test_an_arrival_in_a_peer_takes_its_way() -> None:
    for phase, delay in ((Phase(0, "mbarrier", 8, 0), 0.0), (Phase(1, "mbarrier", 8, 0), 180.0)):
        made = {(0, 0): records(Arrive((phase,))), (phase.cta, 1): records(Wait((phase,)), steps=0)}
        (wait,) = of_kind(tuple(replay(made)), "wait for a barrier")
        assert wait.end == pytest.approx(10 * INSTRUCTION_CLOCKS + delay)
    assert REMOTE_CLOCKS == 180.0


def test_stores_are_waited_for_in_groups() -> None:
    store = (Store(8192), StoreCommit())
    events = tuple(replay({(0, 0): records(*store, *store, StoreWait(1), StoreWait(0))}))
    first, second = of_kind(events, "store")
    assert second.end == pytest.approx(first.end + STORE_CLOCKS)
    assert [wait.end for wait in of_kind(events, "wait for stores")] == [first.end, second.end]


# Files


def test_the_json_holds_every_event(tmp_path: Path) -> None:
    events = events_of(PAIR)
    chrome.write(tmp_path / "x.json", events, records_of(PAIR), {"times": picture.NOTE})
    document = json.loads((tmp_path / "x.json").read_text())
    assert document["otherData"] == {"times": picture.NOTE}
    rows = document["traceEvents"]
    begun = [row for row in rows if row["ph"] == "b"]
    assert len(begun) == sum(row["ph"] == "e" for row in rows)
    assert sum(row["ph"] in ("X", "b", "i") for row in rows) == len(events)
    assert all(row.get("dur", 0) >= 0 and row.get("ts", 0) >= 0 for row in rows)
    names = {row["args"]["name"] for row in rows if row["ph"] == "M"}
    assert {"CTA 0", "CTA 1", "tensor cores", "warp 8: load warp 8 (TMA)"} <= names
    waits = {row["name"] for row in rows if row.get("cat") == "wait for a barrier"}
    assert {*(f"wait for {word} {i}" for word in ("full", "empty") for i in range(3))} <= waits
    assert {"wait for SF full 0", "wait for SF empty 0"} <= waits


def test_rows_of_the_picture() -> None:
    rows = picture.rows_of(events_of(PAIR), 1, lambda i: f"k {i}")
    assert [row.label for row in rows] == [
        "load warp 8 (TMA)",
        "SF warp 9 (cp.async)",
        *(f"stage {i}" for i in range(3)),
        "tensor cores",
        "math warpgroup 0",
        "math warpgroup 1",
        "TMA stores",
    ]
    shown = {key for row in rows for key, spans in row.spans.items() if spans}
    assert shown == set(picture.COLOURS)
    texts = [text for row in rows for _, text in row.texts]
    assert sorted(texts) == sorted(f"k {i}" for i in range(16))


def test_spans_are_joined_where_they_nearly_touch() -> None:
    spans = [(5.0, 6.0), (0.0, 1.0), (1.5, 2.0), (3.0, 3.0)]
    assert picture.joined(spans, 0.5) == [(0.0, 2.0), (5.0, 6.0)]


def test_the_same_trace_is_the_same_svg(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        picture.draw(events_of(PAIR), "some title", tmp_path / name)
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    assert all(word in text for word in ("some title", picture.NOTE, "stage full", "CTA 1"))


# The verb


def test_the_verb_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    stem = tmp_path / "x.png"
    assert main.main(["trace", "128", "64", "256", "--out", str(stem)]) == 0
    out = capsys.readouterr().out
    assert "modelled, not measured" in out and str(stem) in out
    assert stem.read_bytes().startswith(b"\x89PNG")
    assert json.loads(stem.with_suffix(".json").read_text())["traceEvents"]


def test_the_verb_without_matplotlib_still_writes_the_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    config = "64x32_s4_w1_c1x1"
    out = str(tmp_path / "x")
    assert main.main(["trace", "64", "32", "512", "--config", config, "--out", out]) == 0
    assert "pip install" in capsys.readouterr().out
    document = json.loads((tmp_path / "x.json").read_text())
    assert document["otherData"]["kernel"] == f"sm90_fp8_gemm_1d2d_{config}"
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_the_part_that_is_traced() -> None:
    config = trace.parse_config("128x128_s5_w2_c2x1")
    part = trace.part_of(GemmProblem(4096, 7168, 16384), config)
    assert (part.num_blocks, part.whole_num_blocks, part.num_clusters) == (3, 14, 66)
    assert (part.problem.m, part.problem.n, part.problem.k) == (768, 128, 2048)
    assert part.problem.num_sms == 2
    wide = trace.part_of(GemmProblem(200, 32768, 512), config)
    assert (wide.problem.m, wide.problem.n, wide.num_blocks) == (200, 384, 3)
    small = trace.part_of(GemmProblem(8, 64, 48), config)
    assert (small.problem.m, small.problem.n, small.problem.k) == (8, 64, 48)
