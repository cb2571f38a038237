"""Under programmatic dependent launch B is asked for before the kernel before has ended."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch

from deep_gemm import fp8_gemm_nt, override
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.emulator import effects
from deep_gemm.emulator import run as emulator
from deep_gemm.emulator.cta import Cta
from deep_gemm.emulator.errors import DependencyError
from deep_gemm.emulator.grid import Cluster
from deep_gemm.emulator.ir import Instruction, TensorAddress
from deep_gemm.emulator.operands import Symbols, fetcher
from deep_gemm.emulator.warp import Mask, Wait, Warp
from tests.emulator.dense import check_exact, integer_operands
from tests.emulator.map_kernels import HEAD, LOAD, SHOW, WAIT, launch
from tests.grouped_calls import forced

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

M, N, K = 20, 96, 1104
CONFIGS = [
    GemmConfig(block_m=16, block_n=32, num_stages=4, num_math_warpgroups=1),
    GemmConfig(block_m=16, block_n=32, num_stages=4, num_math_warpgroups=1, cluster_m=2),
    GemmConfig(block_m=16, block_n=32, num_stages=4, num_math_warpgroups=1, cluster_k=2),
]

Boxes = dict[Cta, list[tuple[int, ...]]]
"""Coordinates of the boxes that each CTA asked for, in their order."""


@pytest.fixture
def prefetched(monkeypatch: pytest.MonkeyPatch) -> Boxes:
    """Of every TMA prefetch; it must not come behind the wait."""
    name = "cp.async.bulk.prefetch.tensor"
    build, boxes = effects._TABLE[name], defaultdict(list)

    def build_spy(instruction: Instruction, symbols: Symbols) -> Any:
        execute, source = build(instruction, symbols), instruction.operands[0]
        assert isinstance(source, TensorAddress)
        coordinates = [fetcher(item, symbols, np.int32) for item in source.coordinates]

        def spy(warp: Warp, mask: Mask) -> Wait | None:
            assert not warp.timeline.clock[warp.cta.cluster.order._predecessor]
            for lane in np.flatnonzero(mask):
                boxes[warp.cta].append(tuple(int(item(warp)[lane]) for item in coordinates))
            return execute(warp, mask)

        return spy

    monkeypatch.setitem(effects._TABLE, name, build_spy)
    emulator.load.cache_clear()
    return boxes


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> dict[int, Boxes]:
    """Of every TMA load, by the address of the tensor map."""
    load, boxes = Cluster.load_box, defaultdict(lambda: defaultdict(list))

    def spy(cluster: Cluster, map_address: int, coordinates: list[int], **rest: Any) -> None:
        boxes[map_address][rest["warp"].cta].append(tuple(coordinates))
        load(cluster, map_address, coordinates, **rest)

    monkeypatch.setattr(Cluster, "load_box", spy)
    return boxes


def multiply(config: GemmConfig) -> None:
    a, b = integer_operands(M, N, K)
    d = torch.empty(M, N, dtype=torch.bfloat16)
    with forced(config), override(num_sms=4):
        fp8_gemm_nt(a, b, d)
    check_exact(d, a, b)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_what_the_first_stages_hold_of_b_is_prefetched(
    config: GemmConfig, prefetched: Boxes, loaded: dict[int, Boxes]
) -> None:
    with override(pdl=True):
        multiply(config)
    of_b = list(loaded.values())[1]
    assert len(prefetched) == len(of_b) == 4
    for cta, boxes in prefetched.items():
        assert boxes == of_b[cta][: config.num_stages]


def test_nothing_is_prefetched_without_dependent_launch(prefetched: Boxes) -> None:
    multiply(CONFIGS[0])
    assert not prefetched


@pytest.mark.parametrize("copy", ["prefetch", "load"])
def test_a_prefetch_is_no_access(copy: str) -> None:
    """TMA may be asked for what the kernel before still writes, with a map that it did not make."""
    hint = "@%p1 cp.async.bulk.prefetch.tensor.2d.L2.global [%map, {0, 0}];"
    load = LOAD.replace("%rd9", "%map")
    launch(f"{HEAD} {hint} griddepcontrol.wait; {load} {WAIT} {SHOW} ret;", pdl=True)
    with pytest.raises(DependencyError):
        body = load if copy == "load" else hint.replace("%map", "%rd9")
        launch(f"{HEAD} {body} griddepcontrol.wait; {WAIT} {SHOW} ret;", pdl=True)
