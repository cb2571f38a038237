"""The transposing kernel in the emulator, and the layouts that operands get from it."""

from __future__ import annotations

import pytest
import torch

from deep_gemm.kernels.transpose import k_major, mn_major
from deep_gemm.testing import assert_bitwise_equal
from tests.transposes import EDGES, LAYOUTS, Case, check, random_bits

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


@pytest.mark.parametrize("case", EDGES + LAYOUTS, ids=str)
def test_every_bit_is_right_and_nothing_else_is_written(case: Case) -> None:
    check(case, "cpu")


def fp8(*shape: int) -> torch.Tensor:
    count = torch.Size(shape).numel()
    return random_bits(count, "cpu").view(torch.float8_e4m3fn).view(shape)


@pytest.mark.parametrize("shape", [(144, 80), (3, 144, 80), (1, 16), (16, 1), (2, 33, 35)])
def test_k_major_turns_what_is_contiguous_along_rows(shape: tuple[int, ...]) -> None:
    x = fp8(*shape).transpose(-1, -2)
    y = k_major("a[0]", x)
    assert_bitwise_equal(y, x)
    assert y.shape[-1] == 1 or y.stride(-1) == 1
    assert y is x or y.is_contiguous()


def test_k_major_returns_what_is_k_major() -> None:
    for x in (fp8(20, 48), fp8(2, 20, 48), fp8(20, 64)[:, 8:40], fp8(30, 4)[:, 2:3]):
        assert k_major("a[0]", x) is x


def test_k_major_takes_slices() -> None:
    x = fp8(3, 160, 96)[:, 3:130, 5:90].transpose(-1, -2)
    assert_bitwise_equal(k_major("b[0]", x), x)


@pytest.mark.parametrize("mn", [1, 2, 4, 70, 132])
@pytest.mark.parametrize("batch", [(), (1,), (3,)])
def test_mn_major_has_tma_s_alignment(batch: tuple[int, ...], mn: int) -> None:
    wide = random_bits(4 * 3 * 140 * 140, "cpu").view(torch.float32).view(3, 140, 140)
    wide = wide[: batch[0]] if batch else wide[0]
    for source in (wide[..., :mn, :12], wide[..., :mn, 1:27:2], wide.mT[..., :mn, :5]):
        sf = mn_major(source)
        assert_bitwise_equal(sf, source)
        assert (sf.stride(-2) == 1 or mn == 1) and sf.stride(-1) == -(-mn // 4) * 4
        assert sf.data_ptr() % 16 == 0
        assert mn_major(sf) is sf


def test_strides_of_dimensions_of_one_are_set_right_without_a_copy() -> None:
    column = torch.randn(8, 1)
    one_group = torch.randn(5, 8).T.as_strided((1, 8, 5), (3, 1, 8))
    row = torch.randn(20).as_strided((1, 5), (20, 4))
    for source, strides in ((column, (1, 8)), (one_group, (40, 1, 8)), (row, (1, 4))):
        sf = mn_major(source)
        assert sf.data_ptr() == source.data_ptr() and sf.stride() == strides
        assert mn_major(sf) is sf
        assert_bitwise_equal(sf, source)


def test_mn_major_copies_what_starts_off_16_bytes() -> None:
    sf = torch.randn(41)[1:].as_strided((8, 5), (1, 8))
    assert sf.data_ptr() % 16
    copy = mn_major(sf)
    assert copy is not sf and copy.data_ptr() % 16 == 0
    assert_bitwise_equal(copy, sf)


def test_nothing_is_launched_for_nothing() -> None:
    assert k_major("a[0]", fp8(0, 16).T).shape == (16, 0)
    assert k_major("a[0]", fp8(16, 0).T).shape == (0, 16)
    assert mn_major(torch.empty(0, 3)).shape == (0, 3)
    assert mn_major(torch.empty(2, 5, 0)).shape == (2, 5, 0)
