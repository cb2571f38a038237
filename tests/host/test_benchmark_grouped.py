"""The grouped tables' rows, operands and calls, against a library that PyTorch pretends to be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from benchmarks.grouped_calls import grouped_case, our_variants
from benchmarks.grouped_operands import GroupedOperands
from benchmarks.operands import Normal, Source, Zeros
from benchmarks.peers import CublasLt, Ours
from benchmarks.problems import GROUPED, GroupedProblem, Problem, choose_grouped, parse
from benchmarks.worker import Worker
from deep_gemm.testing.profiler import DeviceEvent

# By the rows of the task's table: microseconds.
H100_FLOORS = {
    "contiguous-4x33792x6144x7168": 1860.3,
    "contiguous-8x33920x7168x2048": 622.4,
    "masked-1x801x4096x7168": 29.4,
    "masked-32x660x7168x3072": 238.8,
    "masked-6x115x4096x4096": 34.0,
    "wgrad-1x7168x4096x16384": 601.3,
}
SMALL = {
    "contiguous": GroupedProblem("contiguous", 3, 768, 24, 256),
    "masked": GroupedProblem("masked", 2, 37, 24, 256),
    "decode": GroupedProblem("decode", 5, 80, 24, 256),
    "wgrad": GroupedProblem("wgrad", 1, 40, 24, 384),
    "k_grouped": GroupedProblem("k_grouped", 3, 40, 24, 1152),
}
ALL_CALLS = [
    (table, variant)
    for table, problem in SMALL.items()
    for variant in (*our_variants(problem), "reference")
]


def expand(data: torch.Tensor, sf: torch.Tensor, rows: int) -> torch.Tensor:
    """FP32 values of [mn, k] with one scale factor per `rows` rows and 128 columns."""
    by_row = sf.repeat_interleave(rows, 0)[: len(data)]
    return data.float() * by_row.repeat_interleave(128, 1)[:, : data.shape[1]]


class PretendedLibrary:
    """Loops over rows as the layouts define them. `defect` breaks it in one way."""

    def __init__(self, defect: str = "") -> None:
        self.defect = defect
        self.alignment = 128
        self.seen: list[dict[str, Any]] = []

    def get_mk_alignment_for_contiguous_layout(self) -> int:
        return self.alignment

    def set_mk_alignment_for_contiguous_layout(self, value: int) -> None:
        self.alignment = value

    def m_grouped_fp8_gemm_nt_contiguous(
        self,
        a: Any,
        b: Any,
        d: torch.Tensor,
        layout: torch.Tensor,
        use_psum_layout: bool = False,
        expected_m_for_psum_layout: int | None = None,
    ) -> None:
        assert use_psum_layout == (expected_m_for_psum_layout is not None)
        self.seen.append({"alignment": self.alignment, "rows": len(d), "sfa": a[1].stride()})
        ids = list(layout)
        if use_psum_layout:
            ids, start = [-1] * len(d), 0
            for group, end in enumerate(layout.tolist()):
                ids[start:end] = [group] * (end - start)
                start = -(-end // self.alignment) * self.alignment
        if self.defect == "neighbour":
            ids = [int(group) and int(group) - 1 for group in ids]
        weights = [expand(data, sf, 128) for data, sf in zip(*b, strict=True)]
        values = expand(*a, rows=1)
        for row, group in enumerate(ids):
            if group >= 0:
                d[row] = weights[group] @ values[row]

    def fp8_m_grouped_gemm_nt_masked(
        self, a: Any, b: Any, d: torch.Tensor, masked_m: torch.Tensor, expected_m: int
    ) -> None:
        assert expected_m == -(-int(masked_m.sum()) // len(masked_m))
        self.seen.append({"sfa": a[1].stride()})
        for group, tokens in enumerate(masked_m):
            weights = expand(b[0][group], b[1][group], 128)
            rows = slice(tokens - 1 if self.defect == "neighbour" else tokens)
            d[group, rows] = (expand(a[0][group], a[1][group], 1) @ weights.T)[rows].bfloat16()

    def fp8_gemm_nt(
        self, a: Any, b: Any, d: torch.Tensor, c: torch.Tensor, recipe: Any, compiled_dims: str
    ) -> None:
        assert (c is d, recipe, compiled_dims) == (True, (1, 1, 128), "nk")
        self.seen.append({"sfa": a[1].stride(), "sfb": b[1].stride()})
        product = expand(*a, rows=1) @ expand(*b, rows=1).T
        d.copy_(product if self.defect == "neighbour" else d + product)

    def k_grouped_fp8_gemm_nt_contiguous(
        self,
        a: Any,
        b: Any,
        d: torch.Tensor,
        ks: Sequence[int],
        on_device: torch.Tensor,
        c: torch.Tensor,
        recipe: Any,
    ) -> None:
        assert (c is d, recipe, on_device.tolist()) == (True, (1, 1, 128), list(ks))
        self.seen.append({"sfa": a[1].stride(), "sfb": b[1].stride()})
        start = 0
        for group, k in enumerate(ks):
            d[group] += self.group(a, start, k) @ self.group(b, start, k).T
            start += k

    def group(self, operand: Any, start: int, k: int) -> torch.Tensor:
        flat, sf = operand
        if self.defect == "neighbour":
            sf = sf.roll(1, 0)
        data = flat[start * len(sf) :][: len(sf) * k].view(len(sf), k)
        return expand(data, sf[:, start // 128 : (start + k) // 128], 1)


def operands(table: str, source: Source | None = None) -> GroupedOperands:
    problem = SMALL[table]
    return GroupedOperands.build(problem, source or Normal(problem, 0, "cpu"))


@pytest.mark.parametrize(("table", "rows"), [(table, rows) for table, rows in GROUPED.items()])
def test_groups_add_up_to_the_row(table: str, rows: tuple[GroupedProblem, ...]) -> None:
    for row in rows:
        assert parse(row.name) == row
        assert sum(row.sizes) == (row.k if table == "k_grouped" else row.m)
        assert len(row.sizes) == len(row.tokens) == row.groups
        if table in ("contiguous", "k_grouped"):
            assert all(size % 128 == 0 for size in row.sizes)
        if table == "contiguous":
            gaps = [size - tokens for size, tokens in zip(row.sizes, row.tokens, strict=True)]
            assert 0 <= min(gaps) <= max(gaps) < 128
            assert max(gaps) > 0
        if table == "decode":
            assert 1 <= min(row.sizes) <= max(row.sizes) <= 32
        if row.groups > 1:
            assert len(set(row.sizes)) > 1


def test_the_rows_are_those_of_the_tables_with_their_floors() -> None:
    counts = {table: len(rows) for table, rows in GROUPED.items()}
    assert counts == {"contiguous": 4, "masked": 8, "decode": 4, "wgrad": 7, "k_grouped": 3}
    for name, us in H100_FLOORS.items():
        assert parse(name) in choose_grouped([])
        assert parse(name).floor_us == pytest.approx(us, abs=0.05)
    # Reads D and writes it: 4096 x 7168 FP32 for each of 16 groups.
    added = GroupedProblem("k_grouped", 16, 4096, 7168, 34432)
    assert added.num_bytes > 16 * 4096 * 7168 * 8
    assert added.floor_us == pytest.approx(1386, abs=1)


def test_grouped_rows_are_chosen_by_table_or_name() -> None:
    assert choose_grouped(["masked"]) == GROUPED["masked"]
    assert [row.m for row in choose_grouped(["wgrad-*x7168", "wgrad-1x576*"])] == [2112, 576, 4096]
    with pytest.raises(ValueError, match=r"got 'dense'"):
        choose_grouped(["dense"])


@pytest.mark.parametrize(("table", "variant"), ALL_CALLS)
def test_a_right_call_passes(table: str, variant: str) -> None:
    library: Any = PretendedLibrary()
    error = grouped_case(library, variant, operands(table)).check()
    assert 0 < error < 0.03
    assert library.alignment == 128


@pytest.mark.parametrize(("table", "variant"), ALL_CALLS)
def test_a_wrong_call_does_not(table: str, variant: str) -> None:
    library: Any = PretendedLibrary("neighbour")
    with pytest.raises(AssertionError, match="wrong result|NaN"):
        grouped_case(library, variant, operands(table)).check()


def test_decode_is_unpadded_for_ours_and_padded_for_the_reference() -> None:
    library: Any = PretendedLibrary()
    x = operands("decode")
    for variant in ("ours", "reference"):
        grouped_case(library, variant, x).launch()
    ours, reference = library.seen
    assert (ours["alignment"], ours["rows"]) == (1, 80)
    assert (reference["alignment"], reference["rows"]) == (128, 5 * 128)
    assert library.alignment == 128


def test_the_alignment_comes_back_after_a_refusal() -> None:
    class Refuses(PretendedLibrary):
        def m_grouped_fp8_gemm_nt_contiguous(self, *_: Any, **__: Any) -> None:
            raise ValueError("no")

    library: Any = Refuses()
    with pytest.raises(ValueError, match="no"):
        grouped_case(library, "ours", operands("decode")).launch()
    assert library.alignment == 128


@pytest.mark.parametrize(
    ("table", "variant", "strides"),
    [
        ("masked", "ours", {"sfa": (2 * 4096, 1, 4096)}),
        ("contiguous", "ours", {"alignment": 128, "rows": 768, "sfa": (1, 768)}),
        ("wgrad", "ours", {"sfa": (1, 40), "sfb": (1, 24)}),
        ("wgrad", "ours_row_major", {"sfa": (3, 1), "sfb": (3, 1)}),
        ("k_grouped", "ours", {"sfa": (1, 40), "sfb": (1, 24)}),
    ],
)
def test_scale_factors_start_where_no_transposition_is_needed(
    table: str, variant: str, strides: dict[str, object]
) -> None:
    library: Any = PretendedLibrary()
    grouped_case(library, variant, operands(table)).launch()
    assert library.seen == [strides]


@pytest.mark.parametrize("table", SMALL)
def test_zeros_are_shaped_like_operands(table: str) -> None:
    made, zeros = operands(table), operands(table, Zeros("cpu"))
    assert made.sizes == zeros.sizes
    for name in ("a", "sfa", "b", "sfb", "d"):
        one, other = getattr(made, name), getattr(zeros, name)
        assert (one.shape, one.dtype, one.stride()) == (other.shape, other.dtype, other.stride())


class PretendedPeer:
    """A peer whose library lacks k_grouped."""

    def __init__(self) -> None:
        self.library: Any = PretendedLibrary()

    def variants(self, problem: GroupedProblem) -> tuple[str, ...]:
        return our_variants(problem)

    def case(self, variant: str, x: Any) -> Any:
        if x.problem.table == "k_grouped":
            raise AttributeError("module 'deep_gemm' has no attribute 'k_grouped'")
        return grouped_case(self.library, variant, x)

    def counts(self, kernel: str) -> bool:
        return True

    def versions(self) -> dict[str, str]:
        return {}


@pytest.fixture
def worker() -> Iterator[Worker]:
    def record(calls: Any, flush_l2: bool) -> list[list[DeviceEvent]]:
        return [[DeviceEvent("prepare", 0, 1.0), DeviceEvent("gemm", 1, 4.0)] for _ in calls]

    peer: Any = PretendedPeer()
    yield Worker(peer, "cpu", record)


def test_all_kernels_of_a_call_count(worker: Worker) -> None:
    names = [SMALL[table].name for table in ("contiguous", "wgrad")]
    assert worker.warm(names) == {"errors": {}}
    for name in names:
        reply = worker.prepare(name)
        assert (len(reply["max_error"]), reply["errors"]) == (2, {})
    reply = worker.measure(names, repeats=3)
    assert reply["us"][names[0]] == {"ours": [5.0] * 3, "ours_psum": [5.0] * 3}
    assert reply["num_kernels"][names[1]] == {"ours": 2, "ours_row_major": 2}
    assert worker.release() == {}
    with pytest.raises(KeyError):
        worker.measure(names, repeats=1)


def test_a_function_that_is_missing_costs_its_rows_only(worker: Worker) -> None:
    missing, there = SMALL["k_grouped"].name, SMALL["masked"].name
    errors = worker.warm([missing, there])["errors"]
    assert list(errors) == [missing]
    reply = worker.prepare(missing)
    assert "AttributeError: module 'deep_gemm' has no" in reply["errors"]["ours"]
    worker.prepare(there)
    assert worker.measure([missing, there], repeats=1)["us"] == {there: {"ours": [5.0]}}


def test_only_ours_and_the_reference_compute_groups() -> None:
    assert CublasLt().variants(SMALL["masked"]) == ()
    assert Ours().variants(SMALL["contiguous"]) == ("ours", "ours_psum")
    assert Ours().variants(Problem(1, 2, 3)) == ("ours", "ours_row_major")
