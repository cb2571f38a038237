"""The emulator against what an H100 computed, bit for bit (tools/record_goldens.py)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from _pytest.mark import ParameterSet
from goldens import dense, recording
from goldens.case import Case
from goldens.cases import CASES
from goldens.machines import Emulator

from deep_gemm.emulator.errors import EmulationError

EMULATOR = Emulator()


@cache
def recorded() -> recording.Recording:
    return recording.read(recording.FILE)


@pytest.fixture(scope="module")
def golden() -> Iterator[recording.Recording]:
    if not recording.FILE.exists():
        pytest.skip(f"{recording.FILE.name} has not been recorded")
    yield recorded()


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
def test_equals_the_gpu(case: Case, golden: recording.Recording) -> None:
    assert case.name in golden.outputs, "recorded without this case: record again"
    assert golden.header["cases"][case.name] == case.digest(), "the program has changed since"
    try:
        computed = case.run(EMULATOR)
    except EmulationError as error:
        if not case.awaits:
            raise
        pytest.skip(f"the emulator does not know {case.awaits}: {error}")
    if case.name in APPROXIMATE:
        check_approximations(computed, golden.outputs[case.name], *APPROXIMATE[case.name])
    else:
        assert recording.difference(computed, golden.outputs[case.name]) == ""


# Words of a row, and those of them that are exact; the others PTX allows to be off by so much.
APPROXIMATE = {"float_functions": (10, [3, 5, 6])}
LOGARITHMS = [8]


def check_approximations(
    computed: np.ndarray, recorded_: np.ndarray, num_words: int, exact: list[int]
) -> None:
    ours, theirs = (
        output.reshape(-1).view(np.float32).reshape(-1, num_words)
        for output in (computed, recorded_)
    )
    for word in range(num_words):
        a, b = ours[:, word], theirs[:, word]
        same = a.view(np.uint32) == b.view(np.uint32)
        with np.errstate(invalid="ignore"):
            error = np.abs(a.astype(np.float64) - b)
        floor = 2.0**-22.6 if word in LOGARITHMS else 2.0**-149
        near = error <= np.maximum(2.0**-22 * np.abs(a), floor)
        assert (same if word in exact else same | near).all(), word


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
