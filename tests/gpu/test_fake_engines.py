"""Every call that engines make, at the sizes of models: each bit right for exact operands, and all
elements near FP64's for others."""

from __future__ import annotations

import pytest

from tests.fake_engines import SCENARIOS, Scenario, Site

ROWS = (130, 0, 128, 1, 64, 700, 33, 0)

SITES = {
    # DeepSeek-V3: a projection's n and k, few tokens; an expert's, many tokens.
    "decode": Site("cuda", exact=True, tokens=37, n=2112, k=7168, rows=(3, 0, 20, 1)),
    "prefill": Site("cuda", exact=True, tokens=4096, n=4096, k=7168, rows=ROWS),
    "prefill-random": Site("cuda", exact=False, tokens=4096, n=7168, k=2048, rows=ROWS),
}


@pytest.mark.parametrize("name", SITES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_engine(scenario: Scenario, name: str) -> None:
    scenario.run(SITES[name])
