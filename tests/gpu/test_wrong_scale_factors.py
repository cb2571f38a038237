"""Packing kernels tell the host of wrong scale factors through its own memory, on any GPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from deep_gemm import (
    get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor,
    get_mn_major_tma_aligned_packed_ue8m0_tensor,
)
from deep_gemm.errors import ScaleFactorError
from deep_gemm.reports import reports_of

pack = get_mn_major_tma_aligned_packed_ue8m0_tensor


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    reports = reports_of(torch.device("cuda", torch.cuda.current_device()))
    torch.cuda.synchronize()
    reports.clear()
    yield
    torch.cuda.synchronize()
    reports.check()


def test_the_call_after_the_kernel_raises_once() -> None:
    sf = torch.ones(4096, 56, device="cuda")
    pack(sf)
    sf[1234, 17] = 3.0
    packed = pack(sf)
    torch.cuda.synchronize()
    with pytest.raises(ScaleFactorError, match="argument sf .*got 3"):
        pack(sf)
    # Byte 17 % 4 of word 17 // 4 is NaN's, and only that.
    assert (packed[1234, 4].item() >> 8) & 0xFF == 0xFF
    assert int((packed.contiguous().view(torch.uint8) == 0xFF).sum()) == 1
    sf[1234, 17] = 1.0
    pack(sf)


def test_everything_may_be_wrong() -> None:
    pack(torch.full((65536, 56), 0.3, device="cuda"))
    torch.cuda.synchronize()
    with pytest.raises(ScaleFactorError, match="got 0.3"):
        pack(torch.ones(4, 4, device="cuda"))


def test_groups_along_k() -> None:
    sf = torch.ones(6, 128, device="cuda")
    sf[5, 100] = -1.0
    ks = torch.tensor([256, 512], dtype=torch.int32, device="cuda")
    get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor(sf, ks, [256, 512])
    torch.cuda.synchronize()
    with pytest.raises(ScaleFactorError, match="got -1"):
        pack(sf)


def test_a_replayed_graph_reports_too() -> None:
    sf = torch.ones(256, 8, device="cuda")
    pack(sf)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        pack(sf)
    graph.replay()
    torch.cuda.synchronize()
    pack(sf)
    sf[7, 7] = 6.0
    graph.replay()
    torch.cuda.synchronize()
    with pytest.raises(ScaleFactorError, match="got 6"):
        pack(sf)
    sf[7, 7] = 8.0
    graph.replay()
    torch.cuda.synchronize()
    pack(sf)


def test_the_knob_raises_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DG_CHECK_SCALE_FACTORS", "1")
    with pytest.raises(ScaleFactorError, match="got 5"):
        pack(torch.full((64, 64), 5.0, device="cuda"))
    pack(torch.ones(64, 64, device="cuda"))
