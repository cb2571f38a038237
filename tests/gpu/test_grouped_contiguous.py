"""m-grouped contiguous products on a GPU: every valid row, zero padding, nothing else written."""

from __future__ import annotations

import pytest
import torch

from deep_gemm import (
    m_grouped_fp8_gemm_nn_contiguous,
    m_grouped_fp8_gemm_nt_contiguous,
    set_num_sms,
)
from deep_gemm.testing import assert_bitwise_equal
from tests.grouped_calls import check_contiguous, mk_alignment, run_contiguous
from tests.grouped_operands import (
    POISONS,
    Layout,
    Operand,
    exact_operand,
    of_ends,
    poison,
    random_operand,
    row_ends,
    row_ids,
    sf_layouts,
    transposed,
)

N, K = 264, 400
SIZES = [77, 0, 1, 200, 128, 0, 129, 33]
ALIGNMENTS = [1, 16, 32, 48, 64, 112, 128, 256]


def operands(
    layout: Layout, n: int = N, k: int = K, kind: str = "nan", exact: bool = True
) -> tuple[Operand, Operand]:
    make = exact_operand if exact else random_operand
    a = make((len(layout.row_groups), k), 1, "cuda")
    return poison(a, layout.row_groups < 0, kind), make((layout.num_groups, n, k), 128, "cuda", 1)


def run_exact(layout: Layout, n: int = N, k: int = K, dtype: torch.dtype = torch.bfloat16) -> None:
    a, b = operands(layout, n, k)
    check_contiguous(run_contiguous(a, b, layout, dtype), a, b, layout)


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_row_ids(alignment: int) -> None:
    run_exact(row_ids(list(enumerate(SIZES)), alignment))


@pytest.mark.parametrize("clears_padding", [True, False])
@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_row_ends(alignment: int, clears_padding: bool) -> None:
    run_exact(row_ends(SIZES, alignment, behind=300, clears_padding=clears_padding))


@pytest.mark.parametrize("alignment", ALIGNMENTS)
def test_rows_need_not_fill_the_last_alignment(alignment: int) -> None:
    whole = row_ids([(0, 130), (2, 77), (1, 5)], alignment)
    last = int((whole.row_groups == 1).nonzero()[-1])
    run_exact(row_ids([(0, 130), (2, 77), (1, 5)], alignment, m=last + 1))
    ends = row_ends([130, 77, 5], alignment).grouped_layout.tolist()
    run_exact(of_ends(ends, alignment, m=ends[-1] + (alignment > 1)))


PADDING = {
    "DG#34: leading": [(-1, 128), (0, 40), (1, 128)],
    "DG#38: one block in the middle": [(0, 128), (-1, 128), (1, 100)],
    "DG#103: many blocks in the middle": [(0, 5), (-1, 1280), (1, 128), (-1, 128), (2, 3)],
    "DG#113: behind the last group": [(1, 100), (0, 128), (-1, 384)],
    "DG#113: 10k rows": [(0, 100), (1, 50), (-1, 10_000)],
    "all of it": [(-1, 700)],
    "everything at once": [(-1, 256), (1, 1), (-1, 128), (0, 128), (-1, 1024)],
}


@pytest.mark.parametrize("alignment", [16, 128])
@pytest.mark.parametrize("name", PADDING)
def test_blocks_of_padding(name: str, alignment: int) -> None:
    """Commits 8dfa329 and 0c88cd0: a negative id was used as an offset, or crashed."""
    run_exact(row_ids(PADDING[name], alignment, num_groups=3))


@pytest.mark.parametrize("alignment", [1, 16, 128])
@pytest.mark.parametrize(
    "sizes",
    [[0, 0, 0], [0, 5], [5, 0], [5, 0, 0, 0, 200], [0, 0, 0, 1], [0, 128, 0, 256, 0], [300, 0, 0]],
    ids=str,
)
def test_empty_groups(sizes: list[int], alignment: int) -> None:
    run_exact(row_ends(sizes, alignment, behind=40))


@pytest.mark.parametrize("ends", [[100, 100, 200], [5, 5, 5], [130, 130, 400, 400]], ids=str)
@pytest.mark.parametrize("alignment", [16, 128])
def test_an_end_before_the_aligned_beginning_is_an_empty_group(
    ends: list[int], alignment: int
) -> None:
    """The reference's unsigned difference of the two wraps round there."""
    run_exact(of_ends(ends, alignment))


@pytest.mark.parametrize("num_groups", [1, 2, 31, 32, 33, 64, 65, 256, 1024])
def test_any_number_of_groups(num_groups: int) -> None:
    generator = torch.Generator().manual_seed(num_groups)
    sizes = torch.randint(0, 40, (num_groups,), generator=generator).tolist()
    for alignment in (1, 16):
        run_exact(row_ids(list(enumerate(sizes)), alignment), 136, 144)
        run_exact(row_ends(sizes, alignment, behind=20), 136, 144)


@pytest.mark.parametrize("k", [16, 64, 112, 128, 192, 384, 1152])
@pytest.mark.parametrize("n", [8, 24, 136, 1000])
def test_odd_shapes(n: int, k: int) -> None:
    """Commits 04278f6 (DG#95) and d374456: partial k blocks, few of them; b0d6481: past N."""
    run_exact(row_ids([(0, 100), (1, 300), (2, 5)], 128), n, k)
    run_exact(row_ends([100, 0, 300, 5], 1, behind=16), n, k)


@pytest.mark.parametrize("kind", POISONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_what_padding_holds_does_not_matter(kind: str, dtype: torch.dtype) -> None:
    """vllm#49784, sglang#32385, sglang#32386, flashinfer#3650."""
    for layout in (row_ids(list(enumerate(SIZES)), 128), row_ends(SIZES, 48, behind=100)):
        a, b = operands(layout, kind=kind)
        d = run_contiguous(a, b, layout, dtype, row_stride=512)
        check_contiguous(d, a, b, layout)


@pytest.mark.parametrize("layout_name", sf_layouts(torch.ones(6, 3)))
@pytest.mark.parametrize("alignment", [1, 128])
def test_scale_factors_in_any_layout(alignment: int, layout_name: str) -> None:
    """DG#140, DG#153: strided scale factors, and rows that are no multiple of 4."""
    for layout in (row_ids([(0, 77), (1, 130)], alignment, m=207), row_ends([77, 130], alignment)):
        a, b = operands(layout)
        laid_out = (a[0], sf_layouts(a[1])[layout_name]), (b[0], sf_layouts(b[1])[layout_name])
        check_contiguous(run_contiguous(*laid_out, layout), a, b, layout)


@pytest.mark.parametrize("layout", [row_ids([(0, 77), (1, 130)], 128), row_ends([77, 0, 130], 16)])
def test_nn_gives_the_bits_of_nt(layout: Layout) -> None:
    a, b = operands(layout, 272, exact=False)
    expected = run_contiguous(a, b, layout)
    data, sf = transposed(b)
    views = b[0].transpose(1, 2), b[1].transpose(1, 2)
    for stored in ((data, sf), views):
        d = run_contiguous(a, stored, layout, call=m_grouped_fp8_gemm_nn_contiguous, n=272)
        rows = (layout.row_groups >= 0).cuda()
        assert_bitwise_equal(d[rows], expected[rows])


def test_m_indices_is_the_same_as_grouped_layout() -> None:
    layout = row_ids([(0, 77), (1, 130)], 128)
    a, b = operands(layout)
    d = torch.empty(len(layout.row_groups), N, device="cuda", dtype=torch.bfloat16)
    m_grouped_fp8_gemm_nt_contiguous(a, b, d, m_indices=layout.grouped_layout.cuda())
    check_contiguous(d, a, b, layout)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("alignment", [1, 128])
def test_model_shapes_are_close_and_repeat_bit_for_bit(alignment: int, dtype: torch.dtype) -> None:
    """Commit 83aa960: several blocks per CTA, staging memory written again too soon."""
    sizes = [512, 3, 0, 700, 128, 1024, 77, 250]
    for layout in (row_ids(list(enumerate(sizes)), alignment), row_ends(sizes, alignment)):
        a, b = operands(layout, 4096, 2048, exact=False)
        first = run_contiguous(a, b, layout, dtype).clone()
        check_contiguous(first, a, b, layout, exact=False)
        out = torch.full_like(first, float("nan"))
        grouped_layout = layout.grouped_layout.cuda()
        with mk_alignment(alignment):
            for _ in range(20):
                out.fill_(float("nan"))
                m_grouped_fp8_gemm_nt_contiguous(a, b, out, grouped_layout, **layout.options)
                assert_bitwise_equal(out, first)


def test_the_expected_rows_do_not_change_the_result() -> None:
    layout = row_ends(SIZES, 16)
    a, b = operands(layout)
    first = run_contiguous(a, b, layout)
    for expected_m in (1, 64, 100_000):
        options = {**layout.options, "expected_m_for_psum_layout": expected_m}
        hinted = Layout(layout.grouped_layout, layout.row_groups, len(SIZES), 16, options)
        assert_bitwise_equal(run_contiguous(a, b, hinted), first)


def test_neighbouring_blocks_of_different_groups_do_not_share_b() -> None:
    """Commit b4ecf9c: multicast of B across blocks of different groups, m >= 512."""
    sizes = [640, 128, 128, 896, 384, 128]
    run_exact(row_ids(list(enumerate(sizes)), 128), 520, 528)
    run_exact(row_ends(sizes, 128), 520, 528)


def test_one_row_of_one_group() -> None:
    """DG#178: groups, rows, N and K of 1, 1, 24576, 1536."""
    run_exact(row_ids([(0, 1)], 1), 24576, 1536)
    run_exact(row_ids([(0, 1)], 128, m=1), 24576, 1536)


def test_nine_k_blocks() -> None:
    """Commit 6c5da03 (DG#25) at its size: N 7168, K 1152."""
    run_exact(row_ids([(0, 100), (1, 128)], 128), 7168, 1152)


@pytest.mark.parametrize("num_sms", [1, 7, 131])
def test_any_number_of_sms(num_sms: int) -> None:
    set_num_sms(num_sms)
    try:
        run_exact(row_ids(list(enumerate(SIZES)), 1), 520)
        run_exact(row_ends(SIZES, 16, behind=40), 520)
    finally:
        set_num_sms(0)


def test_no_rows() -> None:
    b = exact_operand((2, N, K), 128, "cuda")
    a = exact_operand((0, K), 1, "cuda")
    d = torch.empty(0, N, device="cuda", dtype=torch.bfloat16)
    none = torch.empty(0, device="cuda", dtype=torch.int32)
    m_grouped_fp8_gemm_nt_contiguous(a, b, d, none)
    ends = torch.zeros(2, device="cuda", dtype=torch.int32)
    m_grouped_fp8_gemm_nt_contiguous(a, b, d, ends, use_psum_layout=True)
