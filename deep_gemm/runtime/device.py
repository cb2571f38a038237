"""What the library asks of a CUDA device, once per device."""

from __future__ import annotations

import functools

import torch

from deep_gemm import knobs
from deep_gemm.errors import UnsupportedArchitectureError

EMULATED_SMS = {"90a": 132, "100a": 148, "103a": 160}
"""Multiprocessors of an H100, a B200 and a B300, which the emulator stands for."""

SUPPORTED = {(9, 0): "90a", (10, 0): "100a", (10, 3): "103a"}
"""Architectures with kernels, by compute capability."""


def arch_of(device: torch.device) -> str:
    """The architecture that kernels for the device are compiled for, such as "90a".

    Raises:
        UnsupportedArchitectureError: there are no kernels for it.
    """
    return knobs.emulator_arch.get() if device.type == "cpu" else _arch_of_gpu(device)


def is_sm100(arch: str) -> bool:
    """Whether an architecture has the kernels of SM100."""
    return arch.startswith("10")


@functools.cache
def _arch_of_gpu(device: torch.device) -> str:
    capability = torch.cuda.get_device_capability(device)
    if capability not in SUPPORTED:
        have = ", ".join(f"SM{major}{minor}" for major, minor in SUPPORTED)
        name = torch.cuda.get_device_name(device)
        raise UnsupportedArchitectureError(
            f"argument a[0]: must be on a device of {have}, "
            f"got {name} (SM{capability[0]}{capability[1]})"
        )
    return SUPPORTED[capability]


def any_arch_of(device: torch.device) -> str:
    """What kernels that run on every architecture are compiled for: the device's own, whatever it
    is."""
    return arch_of(device) if device.type == "cpu" else _any_arch_of_gpu(device)


@functools.cache
def _any_arch_of_gpu(device: torch.device) -> str:
    major, minor = torch.cuda.get_device_capability(device)
    return SUPPORTED.get((major, minor), f"{major}{minor}")


@functools.cache
def has_kernels(device: torch.device) -> bool:
    """Whether it is a CUDA device that there are kernels for."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) in SUPPORTED


@functools.cache
def gpu_name_of(device: torch.device) -> str:
    """What a problem calls the device: its name, or "" where it is no GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def is_capturing() -> bool:
    """Whether this thread's current stream is being captured into a CUDA graph."""
    # The first keeps a process without CUDA from starting it.
    is_initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return bool(is_initialized) and torch.cuda.is_current_stream_capturing()


def num_sms_of(device: torch.device) -> int:
    """Multiprocessors of the device; for the emulator, those of a GPU of its architecture."""
    return EMULATED_SMS[arch_of(device)] if device.type == "cpu" else _num_sms_of_gpu(device)


@functools.cache
def _num_sms_of_gpu(device: torch.device) -> int:
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
