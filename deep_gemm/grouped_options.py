"""What a call of an m-grouped product asks for beyond its tensors."""

from __future__ import annotations

from typing import NamedTuple

from deep_gemm.kernels.arguments import GroupedLayout
from deep_gemm.scaling import Recipes

Options = tuple[GroupedLayout, bool, int | None, Recipes]
"""A `Kind` before it has names, whose making takes a tenth of a call's time."""

ROW_IDS, ROW_ENDS, ROW_COUNTS = GroupedLayout


class Kind(NamedTuple):
    """What a call asks for beyond its tensors; a part of its key.

    Attributes:
        layout: what the grouped layout holds.
        clears_padding: rows of D between groups become zero.
        expected_m: rows that a group is expected to have; None if the caller does not say.
        recipes: of the scale factors.
    """

    layout: GroupedLayout
    clears_padding: bool
    expected_m: int | None
    recipes: Recipes

    @property
    def is_masked(self) -> bool:
        """Whether each group has a matrix of A and D for itself."""
        return self.layout == ROW_COUNTS

    @property
    def name_of_expected_m(self) -> str:
        """That argument's name."""
        return "expected_m" if self.is_masked else "expected_m_for_psum_layout"
