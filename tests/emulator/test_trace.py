"""Traced runs: the run is what it was, and the times modelled for it are consistent."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from deep_gemm.cli import trace
from deep_gemm.config.cost_model import k_block_costs
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.emulator.trace import ring
from deep_gemm.emulator.trace.machine import Event
from deep_gemm.emulator.trace.model import REMOTE_CLOCKS
from deep_gemm.emulator.trace.recorder import Load, Mma, Phase, Wait
from deep_gemm.emulator.trace.replay import replay
from tests.emulator.dense import ORDERS, Case, check_exact, integer_operands
from tests.emulator.traces import PAIR, counted, events_of, of_kind, traced

CASES = [
    PAIR,
    Case(GemmConfig(64, 32, 4, 1), 128, 32, 1024, num_sms=1),
    Case(GemmConfig(128, 160, 3, 2, cluster_n=2), 128, 320, 640),
    Case(GemmConfig(256, 64, 2, 2), 256, 64, 512, num_sms=1),
]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: f"{order[0].value}-{order[1]}")
def test_a_recorder_changes_nothing(order: tuple[Timing, int]) -> None:
    recorder, steps, out = traced(PAIR, order)
    expected_steps, expected = counted(PAIR, order)
    assert steps == expected_steps
    assert torch.equal(out.view(torch.int16), expected.view(torch.int16))
    check_exact(out, *integer_operands(PAIR.m, PAIR.n, PAIR.k))
    assert len(recorder.records) == 2 * PAIR.config.num_threads // 32


def test_all_that_the_kernel_did_is_recorded() -> None:
    records = traced(PAIR)[0].records
    operations = [record.operation for own in records.values() for record in own]
    loads = [operation for operation in operations if isinstance(operation, Load)]
    num_k_blocks, num_blocks, num_ctas = 8, 2, 2
    shares = Counter((load.num_bytes, len(load.phases)) for load in loads)
    # A of its own, half of B for both, and scale factors of A for four k blocks.
    num_uses = num_k_blocks * num_blocks * num_ctas
    assert shares == {(4096, 2): num_uses, (16384, 1): num_uses, (2048, 1): num_uses / 4}
    products = [operation for operation in operations if isinstance(operation, Mma)]
    assert len(products) == 4 * 8 * num_k_blocks * num_blocks * num_ctas
    # The CTA's own A and both halves of B; the warpgroups read 64 of the 128 rows of A.
    assert {len(product.loads) for product in products} == {3}
    for own in records.values():
        waits = [r.operation for r in own if isinstance(r.operation, Wait)]
        phases = [phase for wait in waits for phase in wait.phases]
        assert [phase.turn for phase in phases if phase.kind == "barrier.cluster"] == [0]
        assert [record.num_steps for record in own] == sorted(record.num_steps for record in own)


@pytest.mark.parametrize("order", ORDERS[1:], ids=lambda order: f"{order[0].value}-{order[1]}")
def test_times_do_not_depend_on_the_order_of_the_run(order: tuple[Timing, int]) -> None:
    end = max(event.end for event in events_of(PAIR))
    other = max(event.end for event in replay(traced(PAIR, order)[0].records))
    # A test of an mbarrier that fails costs some instructions more.
    assert other == pytest.approx(end, rel=0.01)


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
        loads = ring.loads_of(product)
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
    starts = sorted({event.start for event in of_kind(events, "load", cta=0, warp=load_warp)})
    first_landing = min(event.end for event in of_kind(events, "load", warp=load_warp))
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
    stages = ring.stages(events)
    for event in of_kind(events, "load"):
        for phase in ring.phases_of(event):
            if (phase.cta, phase.barrier) not in stages:
                continue
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


@pytest.mark.parametrize("config", ["64x128_s8_w1_c1x1", "256x128_s3_w2_c1x1"])
def test_a_k_block_takes_about_what_the_cost_model_was_fitted_to(config: str) -> None:
    parsed = trace.parse_config(config)
    case = Case(parsed, parsed.block_m, parsed.block_n, 2048, num_sms=1)
    products = of_kind(events_of(case), "wgmma")
    first, last = products[0].start, products[-1].end
    assert (last - first) / 16 == pytest.approx(max(k_block_costs(parsed).values()), rel=0.15)
