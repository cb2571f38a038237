"""Seeded defects: one small edit of our own kernel each, and the emulator says what is wrong.

One run in early timing, the default, has to find each: what is found does not depend on the order.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.emulator.errors import HazardError
from deep_gemm.jit import source as jit_source
from deep_gemm.jit.codegen import generate
from deep_gemm.jit.compiler import CompiledKernel, select_compiler
from deep_gemm.jit.source import KernelSource, forget_headers, include_root, included_headers
from tests.emulator.defects import (
    BY_TMA,
    CLUSTER_M,
    CLUSTER_N,
    DEFECTS,
    IN_TURN,
    IN_TURN_BY_TMA,
    MAP_DEFECTS,
    OVERLAPPED,
    WRONG,
    Defect,
)
from tests.emulator.defects_of_order import DEFECTS_OF_ORDER
from tests.emulator.defects_of_split_k import CLUSTER_K, DEFECTS_OF_SPLIT_K
from tests.emulator.dense import ORDERS, Case, check_exact, integer_operands, run_case
from tests.emulator.grouped_defects import GroupedDefect
from tests.emulator.maps import Maps

CASES = [OVERLAPPED, IN_TURN, BY_TMA, IN_TURN_BY_TMA, CLUSTER_M, CLUSTER_N, CLUSTER_K]


def translated(kernel: KernelSource, purpose: object = None) -> CompiledKernel:
    """The kernel; what ptxas thinks of it does not matter, so long as there is PTX."""
    result = select_compiler().translate(kernel, included_headers(kernel.text))
    assert not result.failure, result.log
    return CompiledKernel(
        kernel.name, kernel.entry, kernel.arch, b"", result.ptx, 0, 0, 0, "", 0.0, from_cache=False
    )


def compiled(case: Case) -> CompiledKernel:
    """The case's kernel."""
    return translated(generate(case.config, "90a"))


def outcome(
    case: Case,
    kernel: CompiledKernel,
    alter_maps: Callable[[Maps], Maps] = lambda maps: maps,
    order: tuple[Timing, int] = (Timing.EARLY, 0),
) -> str:
    """What a run ends with: a rule's name, WRONG, or "" if it is right."""
    operands = integer_operands(case.m, case.n, case.k)
    try:
        d = run_case(case, order, operands, kernel, alter_maps, row_stride=case.n + 8)
        check_exact(d, *operands)
    except HazardError as hazard:
        return hazard.rule
    except AssertionError:
        return WRONG
    return ""


@pytest.fixture
def headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of csrc/ that kernels are compiled from."""
    copy = tmp_path / "csrc"
    shutil.copytree(include_root(), copy)
    monkeypatch.setattr(jit_source, "include_root", lambda: copy)
    forget_headers()
    yield copy
    forget_headers()


def seed(defect: Defect | GroupedDefect, headers: Path) -> None:
    """Edits a copy of csrc/."""
    header = headers / defect.header
    text = header.read_text()
    assert text.count(defect.before) == 1, "the edit no longer fits"
    header.write_text(text.replace(defect.before, defect.after))
    forget_headers()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_without_a_defect_nothing_is_found(case: Case, headers: Path) -> None:
    forget_headers()
    kernel = compiled(case)
    assert [outcome(case, kernel, order=order) for order in ORDERS] == [""] * len(ORDERS)


def test_a_first_wgmma_that_accumulates_is_found() -> None:
    """The statement is not in a header: the generator writes it."""
    source = generate(OVERLAPPED.config, "90a")
    assert source.text.count(", sets, 1, 1;") == 1, "the edit no longer fits"
    wrong = replace(source, text=source.text.replace(", sets, 1, 1;", ", adds, 1, 1;"))
    assert outcome(OVERLAPPED, translated(wrong)) == "R26"


@pytest.mark.parametrize("defect", [*DEFECTS, *DEFECTS_OF_ORDER, *DEFECTS_OF_SPLIT_K], ids=str)
def test_a_defect_is_found(defect: Defect, headers: Path) -> None:
    seed(defect, headers)
    assert outcome(defect.case, compiled(defect.case)) == defect.outcome


@pytest.mark.parametrize("name", MAP_DEFECTS)
def test_a_wrong_tensor_map_is_found(name: str) -> None:
    index, fields, expected = MAP_DEFECTS[name]

    def alter(maps: Maps) -> Maps:
        place = list(maps)[index]
        return {**maps, place: replace(maps[place], **fields)}

    forget_headers()
    assert outcome(OVERLAPPED, compiled(OVERLAPPED), alter) == expected
