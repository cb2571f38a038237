"""What the library asks of a CUDA device, once per device."""

from __future__ import annotations

import functools

import torch

from deep_gemm import knobs
from deep_gemm.errors import UnsupportedArchitectureError

EMULATED_SMS = 132

SUPPORTED = {(9, 0): "90a"}
"""Architectures with kernels, by compute capability."""


@functools.cache
def arch_of(device: torch.device) -> str:
    """The architecture that kernels for the device are compiled for, such as "90a".

    Raises:
        UnsupportedArchitectureError: there are no kernels for it.
    """
    if device.type == "cpu":
        return knobs.emulator_arch.get()
    capability = torch.cuda.get_device_capability(device)
    if capability not in SUPPORTED:
        have = ", ".join(f"SM{major}{minor}" for major, minor in SUPPORTED)
        name = torch.cuda.get_device_name(device)
        raise UnsupportedArchitectureError(
            f"argument a[0]: must be on a device of {have}, "
            f"got {name} (SM{capability[0]}{capability[1]})"
        )
    return SUPPORTED[capability]


@functools.cache
def any_arch_of(device: torch.device) -> str:
    """What kernels that run on every architecture are compiled for: the device's own, whatever it
    is."""
    if device.type == "cpu":
        return arch_of(device)
    major, minor = torch.cuda.get_device_capability(device)
    return SUPPORTED.get((major, minor), f"{major}{minor}")


@functools.cache
def has_kernels(device: torch.device) -> bool:
    """Whether it is a CUDA device that there are kernels for."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) in SUPPORTED


@functools.cache
def gpu_name_of(device: torch.device) -> str:
    """What a problem calls the device: its name, or "" for the emulator."""
    return "" if device.type == "cpu" else torch.cuda.get_device_name(device)


@functools.cache
def num_sms_of(device: torch.device) -> int:
    """Multiprocessors of the device; for the emulator, those of an H100."""
    if device.type == "cpu":
        return EMULATED_SMS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
