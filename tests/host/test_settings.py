"""What holds for all calls: the number of multiprocessors and the groups' alignment."""

from __future__ import annotations

import threading

import pytest

from deep_gemm import (
    get_mk_alignment_for_contiguous_layout,
    get_num_sms,
    get_theoretical_mk_alignment_for_contiguous_layout,
    set_mk_alignment_for_contiguous_layout,
    set_num_sms,
)
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
