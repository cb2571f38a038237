"""Wrong scale factors, of which kernels tell the host without anybody waiting.

SM100's scale factors are powers of two. A kernel that packs FP32 ones makes NaN of any other value,
and writes it to a word that the host can read at any time: the next call on the device raises an
error, if the kernel has run by then. docs/scale_factors.md has the whole story.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from typing import Any

import torch

from deep_gemm import knobs
from deep_gemm.errors import ScaleFactorError
from deep_gemm.runtime.cuda import driver
from deep_gemm.runtime.device import is_capturing

ARGUMENTS = ("a[1]", "b[1]", "sf")
"""Arguments with scale factors, in the order of their words."""

NUM_WORDS = 4
WORD_BYTES = 4

Pairs = ctypes.c_uint64 * (NUM_WORDS // 2)
"""The words as they are looked at: two at a time."""


def value_of(bits: int) -> float:
    """The FP32 number of these bits."""
    value: float = struct.unpack("f", struct.pack("I", bits))[0]
    return value


class Reports:
    """The words of one device. They stay where they are, so that CUDA graphs can write them."""

    def __init__(self, pairs: Any, device: torch.device) -> None:
        """Takes memory that the device can write, zeroed, a `Pairs`."""
        self._pairs = pairs
        self._device = device

    def place_of(self, argument: str) -> int:
        """The address of an argument's word."""
        return ctypes.addressof(self._pairs) + WORD_BYTES * ARGUMENTS.index(argument)

    def check(self) -> None:
        """Looks for reports; they are given once.

        Raises:
            ScaleFactorError: there is one.
        """
        first, second = self._pairs
        if first or second:
            self._give()

    def settle(self) -> None:
        """The same, and with the knob waits for the device first. Not while a graph is captured:
        nothing runs then.

        Raises:
            ScaleFactorError: there is a report.
        """
        if not knobs.check_scale_factors.get() or is_capturing():
            return
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        self.check()

    def clear(self) -> None:
        """Forgets what was reported."""
        ctypes.memset(ctypes.addressof(self._pairs), 0, ctypes.sizeof(self._pairs))

    def _give(self) -> None:
        words = struct.unpack(f"{NUM_WORDS}I", bytes(self._pairs))
        self.clear()
        raise wrong_value(*next((a, w) for a, w in zip(ARGUMENTS, words, strict=False) if w))


def wrong_value(argument: str, bits: int) -> ScaleFactorError:
    """The error for a scale factor of these bits."""
    return ScaleFactorError(
        f"argument {argument} of this call or of an earlier one: FP32 scale factors must be powers "
        f"of two on SM100 (requantize_to_ue8m0 makes them so), got {value_of(bits):.7g}"
    )


@functools.cache
def reports_of(device: torch.device) -> Reports:
    """Those of a device; of the CPU, those of the emulator."""
    if device.type == "cpu":
        return Reports(Pairs(), device)
    address = driver().host_memory(device.index, ctypes.sizeof(Pairs))
    ctypes.memset(address, 0, ctypes.sizeof(Pairs))
    return Reports(Pairs.from_address(address), device)
