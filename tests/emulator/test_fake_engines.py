"""Every call that engines make, at sizes of a few blocks, in the emulator: each bit is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from deep_gemm import set_num_sms
from deep_gemm.knobs import emulator_arch
from tests.emulator.arch import each_arch
from tests.fake_engines import SCENARIOS, Scenario, Site

__all__ = ["each_arch"]

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

SITE = Site("cpu", exact=True, tokens=22, n=64, k=256, rows=(3, 0, 20))


@pytest.fixture(autouse=True)
def few_sms() -> Iterator[None]:
    """Each has several blocks, and the emulator fewer CTAs to run."""
    set_num_sms(2)
    yield
    set_num_sms(0)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_engine(scenario: Scenario) -> None:
    scenario.run(replace(SITE, arch=emulator_arch.get()))
