"""The emulator against what an H100 computed, bit for bit (tools/record_goldens.py)."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from goldens import dense, excuses, programs, recording, tma
from goldens.case import Case
from goldens.cases import CASES
from goldens.machines import Emulator

from deep_gemm.emulator.asynchrony import Timing


@cache
def recorded() -> recording.Recording:
    return recording.read(recording.FILE)


def params() -> list[ParameterSet]:
    """Kernels of the library are compiled first, so they need a compiler."""
    return [
        pytest.param(
            case, id=case.name, marks=[pytest.mark.compile] * isinstance(case, dense.DenseCase)
        )
        for case in CASES
    ]


@pytest.mark.filterwarnings("ignore:CPU tensors")
@pytest.mark.parametrize("case", params())
def test_equals_the_gpu(case: Case) -> None:
    golden = recorded()
    assert case.name in golden.outputs, "recorded without this case: record again"
    assert golden.header["cases"][case.name] == case.digest(), "the program has changed since"
    computed = case.run(Emulator())
    assert recording.difference(computed, golden.outputs[case.name], case.excuse) == ""


@pytest.mark.parametrize("timing", [Timing.LATE, Timing.RANDOM])
@pytest.mark.parametrize("case", [*programs.CASES, *tma.CASES], ids=lambda case: case.name)
def test_equals_the_gpu_in_another_order(case: Case, timing: Timing) -> None:
    computed = case.run(Emulator(timing, seed=1))
    assert recording.difference(computed, recorded().outputs[case.name], case.excuse) == ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_wrong_bit_is_a_difference(case: Case) -> None:
    golden = recorded().outputs[case.name]
    for at in (3, golden.size // 2 | 3, golden.size - 1):
        wrong = golden.copy()
        wrong[at] ^= 0x40
        assert recording.difference(wrong, golden, case.excuse) != ""


EXCUSED = [case for case in CASES if case.excuse]


@pytest.mark.parametrize("case", EXCUSED, ids=lambda case: case.name)
def test_what_is_excused_does_differ(case: Case) -> None:
    assert recording.difference(case.run(Emulator()), recorded().outputs[case.name]) != ""


@pytest.mark.parametrize(
    ("word", "off", "columns"),
    [
        (0x41000000, 1, [0, 1, 2, 4, 7, 8, 9]),
        (0x41000000, 2, []),
        # Near 0, where a logarithm's error is absolute: 2^-22.7 and 2^-22.5.
        (0x3C800000, 79, [8]),
        (0x3C800000, 90, []),
    ],
)
def test_an_approximation_has_its_bounds(word: int, off: int, columns: list[int]) -> None:
    recorded_words = np.full(10, word, dtype=np.uint32)
    is_excused = excuses.approximations(recorded_words + np.uint32(off), recorded_words)
    assert np.flatnonzero(is_excused).tolist() == columns


def test_only_the_stale_predicate_is_excused() -> None:
    computed = np.array([5, 2, 1, 0, 1, 2] * 2, dtype=np.uint32)
    recorded_words = computed.copy()
    recorded_words[[3, 4, 5]] = 0xFFFFFFFF
    recorded_words[[0, 9]] = 0xFFFFFFFF, 7
    is_excused = excuses.stale_predicate(computed, recorded_words)
    assert np.flatnonzero(is_excused).tolist() == [3, 4, 5]


def test_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


def test_a_recording_survives_its_file(tmp_path: Path) -> None:
    outputs = {"a/b": np.arange(64, dtype=np.uint8), "c": np.full(8, 255, dtype=np.uint8)}
    recording.write(tmp_path / "file.npz", recording.Recording({"gpu": "none"}, outputs))
    again = recording.read(tmp_path / "file.npz")
    assert again.header == {"gpu": "none"}
    assert {name: output.tolist() for name, output in again.outputs.items()} == {
        name: output.tolist() for name, output in outputs.items()
    }


def test_a_difference_names_the_first_word() -> None:
    one = np.zeros(16, dtype=np.uint8)
    other = one.copy()
    other[[5, 12]] = 1
    text = recording.difference(one, other)
    assert text == "2 of 4 words, first word 1: computed 0x00000000, recorded 0x00000100"
    assert recording.difference(one, one.copy()) == ""
    assert recording.difference(one, one[:8]) == "16 bytes, recorded are 8"
