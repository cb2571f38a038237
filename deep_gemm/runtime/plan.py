"""A launch, on the device where its tensors are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deep_gemm.runtime.emulated import EmulatedPlan
from deep_gemm.runtime.launch import CudaPlan, KernelLaunch, Plan


def make_plan(launch: KernelLaunch, addresses: Sequence[int], device: torch.device) -> Plan:
    """The plan of a launch: on a CUDA device, or in the emulator for tensors on the CPU.

    Args:
        launch: what to launch.
        addresses: of the first call's tensors; those of the maps, then those of the pointers.
        device: where the tensors are.
    """
    if device.type == "cpu":
        return EmulatedPlan(launch)
    return CudaPlan(launch, addresses, device.index)
