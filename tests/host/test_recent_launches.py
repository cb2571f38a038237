"""The short cut before a call's key: it finds what is alike in everything, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from deep_gemm import call_cache, fp8_gemm_nt, gemm, override
from deep_gemm.call_cache import CallCache, RecentLaunches
from deep_gemm.errors import ArgumentError
from deep_gemm.kernels import fp8_gemm as kernels
from deep_gemm.runtime.launch import CudaPlan, KernelLaunch
from tests.fake_driver import FakeDriver, install
from tests.grouped_operands import exact_operand

Tensors = tuple[torch.Tensor, ...]

CHANGES: dict[str, Callable[[torch.Tensor], object]] = {
    "rows": lambda x: x[:-1],
    "columns": lambda x: x[:, :-1],
    "strides": lambda x: torch.empty_strided(x.shape, (1, x.shape[0]), dtype=x.dtype),
    "row stride": lambda x: torch.empty(x.shape[0], x.shape[1] + 16, dtype=x.dtype)[:, :-16],
    "dtype": lambda x: x.view(torch.uint8),
    "dimensions": lambda x: x[None],
    "device": lambda x: x.to("meta"),
    "a subclass": lambda x: x.as_subclass(type("Mine", (torch.Tensor,), {})),
    "a list": lambda x: x.float().tolist(),
    "none": lambda x: None,
}


def tensors() -> Tensors:
    a, b = exact_operand((32, 144), 1, "cpu"), exact_operand((48, 144), 128, "cpu", 1)
    return a[0], b[0], torch.empty(32, 48, dtype=torch.bfloat16), a[1], b[1]


def nothing(*addresses: int) -> None: ...


@pytest.fixture
def known() -> tuple[RecentLaunches, Tensors]:
    recent, mine = RecentLaunches(), tensors()
    recent.remember("hint", mine, (1, None), nothing)
    return recent, mine


def test_like_tensors_are_found(known: tuple[RecentLaunches, Tensors]) -> None:
    recent, _ = known
    assert recent.find("hint", tensors(), (1, None)) is nothing
    assert recent.find("hint", tensors(), (2, None)) is None
    assert recent.find("other", tensors(), (1, None)) is None


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("place", range(5))
def test_other_tensors_are_not(
    known: tuple[RecentLaunches, Tensors], change: str, place: int
) -> None:
    recent, mine = known
    others: list[object] = list(mine)
    others[place] = CHANGES[change](mine[place])
    assert recent.find("hint", tuple(others), (1, None)) is None


def test_a_hint_has_a_few_launches_and_the_newest_stay() -> None:
    recent = RecentLaunches()
    mine = tensors()
    launches = [lambda *_, i=i: i for i in range(call_cache.CALLS_OF_HINT + 1)]
    for i, launch in enumerate(launches):
        recent.remember("hint", mine, i, launch)
    assert recent.find("hint", mine, 0) is None
    for i, launch in enumerate(launches[1:], 1):
        assert recent.find("hint", mine, i) is launch


def test_the_number_of_hints_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_cache, "MAX_HINTS", 3)
    recent = RecentLaunches()
    for hint in range(100):
        recent.remember(hint, tensors(), None, nothing)
        assert recent.find(hint, tensors(), None) is nothing
        assert len(recent._launches) <= 3


def test_without_guards_nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_cache, "_guard", lambda: None)
    recent = RecentLaunches()
    recent.remember("hint", tensors(), None, nothing)
    assert recent.find("hint", tensors(), None) is None


def test_guards_that_see_too_little_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    class Blind:
        def __init__(self, *tensors: torch.Tensor, **_: object) -> None: ...

        def check(self, *tensors: object) -> bool:
            return True

    monkeypatch.setattr("torch._C._dynamo.guards.TensorGuards", Blind)
    assert call_cache._guard.__wrapped__() is None


class Path:
    """fp8_gemm_nt down to a driver that launches nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.driver = FakeDriver()
        install(monkeypatch, self.driver, lambda device: 7)
        monkeypatch.setattr(gemm, "_calls", CallCache())
        monkeypatch.setattr(kernels, "make_plan", self.make_plan)
        monkeypatch.setattr(kernels, "build", lambda source, purpose: None)

    def make_plan(self, launch: KernelLaunch, addresses: list[int], device: object) -> CudaPlan:
        return CudaPlan(launch, addresses, 0)

    def is_found(self, mine: Tensors) -> bool:
        """Whether the short cut has a launch for these now."""
        options = gemm.current(), (None, None, None), gemm.NO_HEADS
        return gemm._calls.recent.find(mine[2].shape, mine, options) is not None


def call(mine: Tensors, **options: object) -> None:
    x, y, d, sfa, sfb = mine
    fp8_gemm_nt((x, sfa), (y, sfb), d, **options)  # type: ignore[arg-type]


def shifted(tensor: torch.Tensor, num_bytes: int) -> torch.Tensor:
    """The same values so many bytes behind a multiple of 64."""
    memory = torch.empty(tensor.numel() * tensor.element_size() + 192, dtype=torch.uint8)
    begin = -memory.data_ptr() % 64 + num_bytes
    inside = memory[begin : begin + tensor.numel() * tensor.element_size()]
    return inside.view(tensor.dtype).view(tensor.shape).copy_(tensor)


def test_the_second_call_is_short_and_has_the_new_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path, first, second = Path(monkeypatch), tensors(), tensors()
    call(first)
    assert path.is_found(second)
    monkeypatch.setattr(gemm, "_run_any", None)
    call(second)
    for mine, launched in zip((first, second), path.driver.launched, strict=True):
        assert launched.words[0] == mine[0].data_ptr()


@pytest.mark.parametrize("place", range(3))
def test_alignment_is_checked_at_every_call(monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    path, mine = Path(monkeypatch), list(tensors())
    call(tuple(mine))
    mine[place] = shifted(mine[place], 8)
    assert path.is_found(tuple(mine)), "alike but for the address"
    with pytest.raises(ArgumentError, match="must start at a multiple of 16 bytes"):
        call(tuple(mine))
    assert len(path.driver.launched) == 1


def test_unaligned_scale_factors_have_a_launch_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where SFA begins decides how it is loaded; either order of calls."""
    for order in ((0, 4), (4, 0)):
        path = Path(monkeypatch)
        for num_bytes in (*order, *order):
            x, y, d, sfa, sfb = tensors()
            call((x, y, d, shifted(sfa.t().contiguous(), num_bytes).t(), sfb))
        assert len(path.driver.launched) == 4
        assert len(gemm._calls._calls) == 2


def test_settings_and_recipes_are_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    path, mine = Path(monkeypatch), tensors()
    call(mine)
    with override(num_sms=4):
        assert not path.is_found(mine)
        call(mine)
        assert path.is_found(mine)
    call(mine, recipe=[1, 128, 128])
    with pytest.raises(ArgumentError, match="recipe"):
        call(mine, recipe=(1, 1, 64))
    assert len(path.driver.launched) == 3
