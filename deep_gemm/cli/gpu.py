"""The GPUs that torch can use, and which of them can show the main job.

That is SM90's: what runs on SM100 has been emulated, and not yet measured on one.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

from deep_gemm.errors import MissingDependencyError, UnsupportedArchitectureError
from deep_gemm.runtime.device import SUPPORTED, is_sm100

SHOWN = {capability: arch for capability, arch in SUPPORTED.items() if not is_sm100(arch)}


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        index: of the CUDA device.
        name: e.g. `NVIDIA H100 80GB HBM3`.
        capability: compute capability, (major, minor).
        num_sms: multiprocessors.
        memory_bytes: device memory.
    """

    index: int
    name: str
    capability: tuple[int, int]
    num_sms: int
    memory_bytes: int

    @property
    def is_supported(self) -> bool:
        """The main job can be shown on it."""
        return self.capability in SHOWN

    @property
    def arch(self) -> str:
        """The architecture that kernels for it are compiled for; only of a supported GPU."""
        return SHOWN[self.capability]

    def __str__(self) -> str:
        major, minor = self.capability
        memory = self.memory_bytes / 2**30
        return f"{self.name}, SM{major}{minor}, {self.num_sms} SMs, {memory:.1f} GiB"


def find_gpus() -> list[Gpu]:
    """Every GPU that torch can use, at least one.

    Raises:
        MissingDependencyError: there is none; the text says why, as far as torch does.
    """
    if torch.version.cuda is None:
        raise MissingDependencyError(f"torch {torch.__version__} is built without CUDA")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        is_available = torch.cuda.is_available()
    if not is_available:
        reasons = [str(warning.message).partition(" (Triggered")[0] for warning in caught]
        raise MissingDependencyError("; ".join(reasons) or "torch sees no CUDA device")
    return [_gpu(index) for index in range(torch.cuda.device_count())]


def choose_gpu() -> Gpu:
    """The first GPU that can show the main job.

    Raises:
        MissingDependencyError: torch can use no GPU.
        UnsupportedArchitectureError: none of the GPUs can.
    """
    gpus = find_gpus()
    for gpu in gpus:
        if gpu.is_supported:
            return gpu
    found = "; ".join(map(str, gpus))
    raise UnsupportedArchitectureError(f"it takes {needed_architectures()}, got {found}")


def needed_architectures() -> str:
    """The architectures that it is shown on, for a message."""
    return " or ".join(f"SM{major}{minor}" for major, minor in SHOWN)


def _gpu(index: int) -> Gpu:
    properties = torch.cuda.get_device_properties(index)
    return Gpu(
        index=index,
        name=properties.name,
        capability=(properties.major, properties.minor),
        num_sms=properties.multi_processor_count,
        memory_bytes=properties.total_memory,
    )
