"""Calls on SM100 whose scale factors may be FP32: packed first, and wrong ones reported."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from deep_gemm.call_cache import Launch
from deep_gemm.calls import PlannedCall
from deep_gemm.kernels.arguments import GroupedLayout
from deep_gemm.kernels.pack_ue8m0 import GroupRows, pack_fp32_into_ue8m0
from deep_gemm.layout import empty_packed
from deep_gemm.reports import reports_of

Tensors = tuple[torch.Tensor, ...]
"""x, y, d, sfa and sfb of a launch, and what else it takes."""


@dataclass(frozen=True)
class SfPacking:
    """FP32 scale factors of an operand, to be packed before the product.

    Attributes:
        argument: their name.
        rows: of the operand.
        gran_rows: rows that share one.
    """

    argument: str
    rows: int
    gran_rows: int

    def place(self, sf: torch.Tensor) -> torch.Tensor:
        """Where they go."""
        return empty_packed(sf, self.rows)

    def pack(self, sf: torch.Tensor, counting: GroupRows | None = None) -> torch.Tensor:
        """The scale factors packed; those of rows that count are judged."""
        out = self.place(sf)
        report = reports_of(sf.device).place_of(self.argument)
        pack_fp32_into_ue8m0(sf, out, self.gran_rows, counting, report)
        return out


def packing_of(argument: str, sf: torch.Tensor, rows: int, gran_rows: int) -> SfPacking | None:
    """What scale factors [.., ceil(rows / gran_rows), k blocks] need; None if they are packed."""
    return None if sf.dtype == torch.int32 else SfPacking(argument, rows, gran_rows)


@dataclass(frozen=True)
class CountingRows:
    """How a grouped layout, the sixth tensor of a launch, says which rows of A count."""

    layout: GroupedLayout
    num_groups: int
    alignment: int

    def of(self, grouped_layout: torch.Tensor) -> GroupRows:
        """Those of one call."""
        return GroupRows(self.layout, grouped_layout, self.num_groups, self.alignment)


@dataclass(frozen=True)
class Sm100Call(PlannedCall):
    """A planned call that packs scale factors first, where they are FP32.

    Attributes:
        sfa: what is to be done to SFA; None if it is packed.
        sfb: the same of SFB.
        counting: which rows of A count; None if all do.
    """

    sfa: SfPacking | None = None
    sfb: SfPacking | None = None
    counting: CountingRows | None = None

    def direct_launch(self, device: torch.device) -> Launch | None:
        """The launch behind a look for reports, if nothing has to be packed."""
        launch = super().direct_launch(device)
        if launch is None or self.sfa or self.sfb:
            return None
        check = reports_of(device).check

        def launch_checked(*addresses: int) -> None:
            check()
            launch(*addresses)

        return launch_checked

    def run(self, tensors: Tensors, c: torch.Tensor | None, addresses: tuple[int, ...]) -> None:
        """Looks for reports, packs, and does the rest."""
        reports = reports_of(tensors[2].device)
        reports.check()
        if self.sfa or self.sfb:
            tensors = self._packed(tensors)
            reports.settle()
            addresses = tuple(tensor.data_ptr() for tensor in tensors)
        super().run(tensors, c, addresses)

    def _packed(self, tensors: Tensors) -> Tensors:
        """The tensors with packed scale factors in the place of FP32 ones."""
        sfa, sfb = tensors[3:5]
        if self.sfa is not None:
            counting = None if self.counting is None else self.counting.of(tensors[5])
            sfa = self.sfa.pack(sfa, counting)
        if self.sfb is not None:
            sfb = self.sfb.pack(sfb)
        rest = (sfa if tensor is tensors[3] else tensor for tensor in tensors[5:])
        return *tensors[:3], sfa, sfb, *rest
