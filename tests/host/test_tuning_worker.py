"""The process that checks and times configurations, with pretended kernels."""

from __future__ import annotations

from collections.abc import Sequence
from unittest import mock

import pytest
import torch

from deep_gemm.config.as_json import to_json
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection
from deep_gemm.kernels.fp8_gemm import GemmTensors, plan_dense
from deep_gemm.testing.profiler import DeviceEvent
from deep_gemm.testing.reference import fp8_gemm_nt_yardstick
from deep_gemm.tuning import operands
from deep_gemm.tuning.operands import make_operands
from deep_gemm.tuning.problems import KINDS
from deep_gemm.tuning.worker import Launch, Worker, make_worker

CPU = torch.device("cpu")


class PretendedPlan:
    """Computes with whatever operands it is launched on, found again by their addresses."""

    def __init__(self, writes: bool) -> None:
        self.writes = writes
        self.seen: list[tuple[int, ...]] = []

    def launch(self, *addresses: int) -> None:
        self.seen.append(addresses)
        x = next(x for x in MADE if x.tensors[0].data_ptr() == addresses[0])
        a, b, d, sfa, sfb = x.tensors
        assert addresses == tuple(tensor.data_ptr() for tensor in x.tensors)
        if self.writes:
            d.copy_(fp8_gemm_nt_yardstick((a, sfa), (b, sfb)))


MADE: list[operands.Operands] = []
PLANS: dict[int, PretendedPlan] = {}


def plan(
    problem: GemmProblem, selection: Selection, tensors: GemmTensors, accumulates: bool
) -> PretendedPlan:
    """No kernel for a width of 32; one that writes nothing for 48."""
    assert (problem.m, problem.n, problem.k, accumulates) == (8, 48, 256, False)
    assert selection.band == 1
    width = selection.config.block_n
    if width == 32:
        raise ValueError("no such kernel")
    return PLANS.setdefault(width, PretendedPlan(writes=width != 48))


def record(calls: Sequence[Launch], flush_l2: bool) -> list[list[DeviceEvent]]:
    """Each call's two kernels take as long as its place in the line."""
    assert flush_l2
    for call in calls:
        call()
    return [
        [DeviceEvent("gemm", 0, 1.0 * index), DeviceEvent("copy", 0, 5)]
        for index in range(len(calls))
    ]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    # Refuses to be called otherwise than the real one.
    monkeypatch.setattr(operands, "plan_dense", mock.create_autospec(plan_dense, side_effect=plan))

    def make(*arguments: object) -> operands.Operands:
        MADE.append(make_operands(*arguments))
        return MADE[-1]

    monkeypatch.setattr("deep_gemm.tuning.worker.make_operands", make)
    MADE.clear()
    PLANS.clear()
    return Worker(CPU, record)


def test_what_is_right_is_timed_in_turn_on_all_operands(worker: Worker) -> None:
    configs = [to_json(GemmConfig(16, block_n, 4, 1)) for block_n in (16, 32, 48, 64)]
    first, refused, unwritten, last = worker.check(to_json(GemmProblem(8, 48, 256)), configs)
    assert 0 < first["max_error"] < 0.02
    assert refused == {"error": "ValueError: no such kernel"}
    assert "NaN" in unwritten["error"]
    assert last["max_error"] == first["max_error"]
    assert len({addresses for plan in PLANS.values() for addresses in plan.seen}) == 2
    for plan in PLANS.values():
        plan.seen.clear()
    # Of two calls in a round the mean: those at 5 and 7 in the line, at 9 and 11.
    assert worker.measure([0, 1], repeats=2) == {"us": [[6, 10], [7, 11]]}
    assert worker.measure([1], repeats=1) == {"us": [[5.5]]}
    # Both sets in turn.
    sets = [x.tensors[0].data_ptr() for x in MADE]
    assert [addresses[0] for addresses in PLANS[64].seen] == [*sets, *sets, *sets]
    assert len(PLANS[16].seen) == 4


def test_a_kernel_that_is_wrong_on_the_second_set_only_is_found(worker: Worker) -> None:
    problem, config = GemmProblem(8, 48, 256), GemmConfig(16, 16, 4, 1)
    ours = worker.check(to_json(problem), [to_json(config)])
    launch = PretendedPlan.launch

    def wrong(self: PretendedPlan, *addresses: int) -> None:
        launch(self, *addresses)
        if addresses[0] == MADE[1].tensors[0].data_ptr():
            MADE[1].d[3, 5] += 40

    with mock.patch.object(PretendedPlan, "launch", wrong):
        (reply,) = ours
    assert "wrong result: max_error" in reply["error"]


def test_a_fault_of_the_gpu_is_the_process_s(worker: Worker) -> None:
    configs = [to_json(GemmConfig(16, 32, 4, 1))]
    with (
        mock.patch.object(Worker, "is_healthy", lambda self: False),
        pytest.raises(ValueError, match="no such kernel"),
    ):
        list(worker.check(to_json(GemmProblem(8, 48, 256)), configs))


def test_the_emulator_says_who_it_is() -> None:
    assert make_worker("cpu").hello() == {"gpu": "the emulator", "arch": "90a", "num_sms": 132}


def test_nothing_is_tuned_for_sm100(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DG_EMULATOR_ARCH", "100a")
    with pytest.raises(RuntimeError, match="SM90 only"):
        make_worker("cpu").hello()


@pytest.mark.parametrize("kind", KINDS)
def test_operands_are_the_same_for_the_same_set_and_no_other(kind: str) -> None:
    from dataclasses import replace

    groups = 1 if kind in ("dense", "wgrad") else 3
    problem = replace(KINDS[kind], m=40, n=24, k=256, num_groups=groups)
    first, again, other = (make_operands(problem, index, CPU) for index in (0, 0, 1))
    bits = [
        [t.contiguous().view(torch.uint8) for t in x.tensors[:2]] for x in (first, again, other)
    ]
    for one, same, different in zip(*bits, strict=True):
        assert one.equal(same)
        assert not one.equal(different)
    assert first.expected.equal(again.expected)
    # A D that nobody has written fails, wherever that is.
    with pytest.raises(AssertionError):
        first.check(lambda: None)
    assert first.check(lambda: [first.d.copy_(first.expected), None][1]) < 0.02


def test_rows_of_no_group_must_be_zero() -> None:
    from dataclasses import replace

    for kind in ("masked", "contiguous"):
        problem = replace(KINDS[kind], m=40, n=24, k=256, num_groups=3)
        x = make_operands(problem, 0, CPU)
        assert x.rows is not None
        assert 0 < x.rows.count_nonzero() < x.rows.numel()

        def launch(x: operands.Operands = x) -> None:
            x.d.copy_(x.expected)
            x.d[~x.rows] = 1e-3

        with pytest.raises(AssertionError, match="belong to no group"):
            x.check(launch)
