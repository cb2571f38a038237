"""Weight gradients under their names of version 1, at the sizes of models."""

from __future__ import annotations

import pytest

from tests.weight_gradients import STORED, check_k_grouped_wgrad, check_wgrad


@pytest.mark.parametrize("how", STORED)
@pytest.mark.parametrize(("m", "n", "k"), [(7168, 2112, 4096), (576, 7168, 4096 + 16), (7, 16, 64)])
def test_weight_gradient(m: int, n: int, k: int, how: str) -> None:
    check_wgrad("cuda", m, n, k, how)


@pytest.mark.parametrize("ks", [[128, 0, 4096, 256], [48, 144, 0, 1040]], ids=str)
def test_groups(ks: list[int]) -> None:
    check_k_grouped_wgrad("cuda", 2048, 768, ks)
