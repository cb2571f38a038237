"""What holds for calls: for the whole process, or inside a with block."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch

from deep_gemm import (
    fp8_gemm_nt,
    get_batch_invariant,
    get_deterministic_algorithms,
    get_mk_alignment_for_contiguous_layout,
    get_num_sms,
    get_pdl,
    get_tc_util,
    get_theoretical_mk_alignment_for_contiguous_layout,
    override,
    set_batch_invariant,
    set_block_size_multiple_of,
    set_ignore_compile_dims,
    set_mk_alignment_for_contiguous_layout,
    set_num_sms,
    set_pdl,
    set_tc_util,
    use_deterministic_algorithms,
)
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.sm90 import candidates
from deep_gemm.settings import current, usable_sms
from tests.host.refusals import refuses


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The H100 that CPU tensors are run for, on machines with a GPU too."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


def test_the_alignment_is_128_unless_set() -> None:
    """vLLM compares it with its block size before it uses the library at all."""
    alignment = get_mk_alignment_for_contiguous_layout()
    assert type(alignment) is int and alignment == 128


@pytest.mark.parametrize("alignment", [1, 16, 32, 48, 112, 128, 256])
def test_alignments(alignment: int) -> None:
    set_mk_alignment_for_contiguous_layout(alignment)
    try:
        assert get_mk_alignment_for_contiguous_layout() == alignment
    finally:
        set_mk_alignment_for_contiguous_layout(128)


@pytest.mark.parametrize("value", [0, -1, -16, 2, 8, 15, 17, 100])
def test_refuses_an_alignment(value: int) -> None:
    with refuses("alignment", "1 or a multiple of 16", str(value)):
        set_mk_alignment_for_contiguous_layout(value)
    assert get_mk_alignment_for_contiguous_layout() == 128


@pytest.mark.parametrize("value", [16.0, "16", None, True, (16,)])
def test_refuses_an_alignment_that_is_no_int(value: object) -> None:
    with refuses("alignment", "must be an int", ""):
        set_mk_alignment_for_contiguous_layout(value)  # type: ignore[arg-type]
    assert get_mk_alignment_for_contiguous_layout() == 128


def test_the_alignment_holds_in_every_thread() -> None:
    seen = []
    set_mk_alignment_for_contiguous_layout(16)
    try:
        reader = threading.Thread(
            target=lambda: seen.append(get_mk_alignment_for_contiguous_layout())
        )
        reader.start()
        reader.join()
    finally:
        set_mk_alignment_for_contiguous_layout(128)
    assert seen == [16]


@pytest.mark.parametrize("expected_m", [None, 1, 16, 17, 64, 100, 128, 4096, 10**7])
@pytest.mark.parametrize("num_groups", [None, 1, 8, 1024])
def test_theoretical_alignments_are_taken(expected_m: int | None, num_groups: int | None) -> None:
    alignment = get_theoretical_mk_alignment_for_contiguous_layout(expected_m, num_groups)
    assert type(alignment) is int
    # Engines use only values up to the one that is set.
    assert 1 <= alignment <= 128
    set_mk_alignment_for_contiguous_layout(alignment)
    set_mk_alignment_for_contiguous_layout(128)


def test_theoretical_alignment_of_what_is_not_known_is_the_default() -> None:
    assert get_theoretical_mk_alignment_for_contiguous_layout() == 128


@pytest.mark.parametrize("value", [0, -1])
def test_refuses_expectations(value: int) -> None:
    with refuses("expected_m", "positive", str(value)):
        get_theoretical_mk_alignment_for_contiguous_layout(value)
    with refuses("num_groups", "positive", str(value)):
        get_theoretical_mk_alignment_for_contiguous_layout(64, value)
    with refuses("expected_m", "must be an int", "0.5"):
        get_theoretical_mk_alignment_for_contiguous_layout(0.5)  # type: ignore[arg-type]


def test_num_sms() -> None:
    assert get_num_sms() == 132
    for num_sms in (1, 7, 131, 132):
        set_num_sms(num_sms)
        assert get_num_sms() == num_sms
    set_num_sms(0)
    assert get_num_sms() == 132


@pytest.mark.parametrize("value", [-1, 133, 10**6])
def test_refuses_a_number_of_sms(value: int) -> None:
    with refuses("num_sms", r"0\.\.132", str(value)):
        set_num_sms(value)
    assert get_num_sms() == 132


@pytest.mark.parametrize("value", [66.0, "66", None, True])
def test_refuses_a_number_of_sms_that_is_no_int(value: object) -> None:
    with refuses("num_sms", "must be an int", ""):
        set_num_sms(value)  # type: ignore[arg-type]
    assert get_num_sms() == 132


# Settings of a `with` block, and the others.


def test_settings_of_a_block_end_with_it() -> None:
    before = current()
    with override(
        num_sms=7,
        tc_util=50,
        pdl=True,
        mk_alignment=16,
        block_size_multiple_of=(64, 32),
        batch_invariant=True,
    ):
        assert current() == (7, 50, True, 16, (64, 32), True)
        assert (get_num_sms(), get_tc_util(), get_pdl()) == (7, 50, True)
        with override(tc_util=25):
            assert current() == (7, 25, True, 16, (64, 32), True)
        set_num_sms(5)
        assert get_num_sms() == 5
    assert current() == before


def test_settings_of_a_block_end_with_an_error() -> None:
    before = current()
    with pytest.raises(ZeroDivisionError), override(num_sms=7):
        raise ZeroDivisionError
    with refuses("tc_util", "0..100", "101"), override(num_sms=7, tc_util=101):
        pass
    assert current() == before


def test_settings_of_a_block_are_those_of_its_thread() -> None:
    """And what one thread sets for all, all see."""
    seen: list[int] = []
    with override(num_sms=7):
        thread = threading.Thread(target=lambda: seen.append(get_num_sms()))
        thread.start()
        thread.join()
    assert seen == [get_num_sms()] and seen[0] != 7


def test_threads_with_blocks_do_not_disturb_each_other() -> None:
    wrong: list[tuple[int, int]] = []

    def repeat(num_sms: int) -> None:
        for _ in range(300):
            with override(num_sms=num_sms):
                if get_num_sms() != num_sms:
                    wrong.append((num_sms, get_num_sms()))

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_share_of_the_tensor_cores_is_one_of_the_multiprocessors() -> None:
    cpu = torch.device("cpu")
    every = usable_sms(cpu)
    with override(tc_util=50):
        assert usable_sms(cpu) == every // 2 and get_num_sms() == every
    with override(tc_util=1, num_sms=3):
        assert usable_sms(cpu) == 1
    with override(tc_util=0):
        assert get_tc_util() == 100 and usable_sms(cpu) == every


@pytest.mark.parametrize("value", [-1, 101, 2.5, True, None, "50"])
def test_refuses_a_share(value: object) -> None:
    with refuses("tc_util", "", ""):
        set_tc_util(value)  # type: ignore[arg-type]
    assert get_tc_util() == 100


@pytest.mark.parametrize("setter", [set_pdl, set_ignore_compile_dims, set_batch_invariant])
@pytest.mark.parametrize("value", [1, None, "on"])
def test_refuses_what_is_no_bool(setter: Callable[[object], None], value: object) -> None:
    with refuses("enabled", "must be a bool", repr(value)):
        setter(value)


def test_what_always_holds_says_so() -> None:
    """An engine saves such a setting, changes it and restores it."""
    use_deterministic_algorithms(False)
    assert get_deterministic_algorithms() is True
    use_deterministic_algorithms(get_deterministic_algorithms())


def test_batch_invariance_is_chosen() -> None:
    assert get_batch_invariant() is False
    with override():
        set_batch_invariant(True)
        assert get_batch_invariant() is True
    assert get_batch_invariant() is False


@pytest.mark.parametrize("value", [1, 16, 128, (64, 16), (1, 48), (256, 256)])
def test_blocks_are_multiples(value: int | tuple[int, int]) -> None:
    rows, columns = (value, value) if isinstance(value, int) else value
    with override(block_size_multiple_of=value):
        multiple = current().block_multiple
    for m in (1, 40, 4096):
        problem = GemmProblem(m, 2112, 7168, block_multiple=multiple)
        found = list(candidates(problem))
        assert all(not c.block_m % rows and not c.block_n % columns for c in found)
        assert bool(found) == (value != (256, 256)), "64 x 256 of FP32 sums per warpgroup never fit"


@pytest.mark.parametrize("value", [0, -1, 512, 96, (16,), (1, 2, 3), (48, 16), (16, 17), (1.5, 1)])
def test_refuses_a_multiple(value: object) -> None:
    with refuses("value", "", ""):
        set_block_size_multiple_of(value)  # type: ignore[arg-type]
    assert current().block_multiple == (1, 1)


def test_a_multiple_that_no_kernel_has_is_refused_by_the_call() -> None:
    a = (torch.zeros(16, 128).to(torch.float8_e4m3fn), torch.ones(16, 1))
    b = (torch.zeros(256, 128).to(torch.float8_e4m3fn), torch.ones(2, 1))
    with (
        override(block_size_multiple_of=256),
        refuses("block_size_multiple_of", "leaves no kernel", ""),
    ):
        fp8_gemm_nt(a, b, torch.empty(16, 256, dtype=torch.bfloat16))
