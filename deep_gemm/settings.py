"""What holds for all calls of this process until it is set anew.

Setting a value and reading it are safe in any thread; a call uses what is set when it begins.
"""

from __future__ import annotations

import threading

import torch

from deep_gemm.checks import refuse
from deep_gemm.runtime.device import num_sms_of

DEFAULT_MK_ALIGNMENT = 128

FINEST_MK_ALIGNMENT = 16
"""Alignments other than 1 are multiples of this."""


class _Settings:
    """The values; replaced one by one, so that reading one needs no lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.num_sms = 0
        self.mk_alignment = DEFAULT_MK_ALIGNMENT


_settings = _Settings()


def _check_integer(argument: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(argument, "must be an int", repr(value))
    return value


def set_num_sms(num_sms: int) -> None:
    """Limits how many multiprocessors a kernel occupies, odd numbers included; 0 means all of them.

    Raises:
        ArgumentError: not an int, negative, or more than the current device has.
    """
    value = _check_integer("num_sms", num_sms)
    most = num_sms_of(_current_device())
    if not 0 <= value <= most:
        refuse("num_sms", f"must be in 0..{most}, the multiprocessors of the device", value)
    with _settings.lock:
        _settings.num_sms = value


def get_num_sms() -> int:
    """Multiprocessors that a kernel on the current device occupies."""
    return usable_sms(_current_device())


def sms_limit() -> int:
    """What was set as the number of multiprocessors; 0 for all of them."""
    return _settings.num_sms


def usable_sms(device: torch.device) -> int:
    """Multiprocessors that a kernel on `device` occupies: all of them, or fewer if set so."""
    limit, have = _settings.num_sms, num_sms_of(device)
    return min(limit, have) if limit else have


def _current_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def set_mk_alignment_for_contiguous_layout(alignment: int) -> None:
    """Sets the number of rows to a multiple of which the groups of the contiguous layout begin.

    Args:
        alignment: 1 (groups begin anywhere, nothing is padded) or a multiple of 16.

    Raises:
        ArgumentError: any other value.
    """
    value = _check_integer("alignment", alignment)
    if value != 1 and (value < FINEST_MK_ALIGNMENT or value % FINEST_MK_ALIGNMENT):
        refuse("alignment", f"must be 1 or a multiple of {FINEST_MK_ALIGNMENT}", value)
    with _settings.lock:
        _settings.mk_alignment = value


def get_mk_alignment_for_contiguous_layout() -> int:
    """Rows to a multiple of which the groups of the contiguous layout begin; 128 if never set."""
    return _settings.mk_alignment


get_m_alignment_for_contiguous_layout = get_mk_alignment_for_contiguous_layout
"""Its name in version 1."""

get_k_alignment_for_contiguous_layout = get_mk_alignment_for_contiguous_layout
"""The same number, for the groups of a k-grouped product."""


def get_theoretical_mk_alignment_for_contiguous_layout(
    expected_m: int | None = None, num_groups: int | None = None
) -> int:
    """The alignment that suits groups of an expected size: the lowest of 16, 32, 64 and 128 rows
    that holds one, or 128.

    A tile of that height then covers a group, and there is no more padding than its last tile
    would have anyway. It is a rule, not a measurement; without padding (1) nothing is wasted.

    Args:
        expected_m: rows that a group is expected to have; with `num_groups`, all groups together.
            None if nothing is known.
        num_groups: number of groups.

    Raises:
        ArgumentError: a value is not a positive int.
    """
    if num_groups is not None and _check_integer("num_groups", num_groups) <= 0:
        refuse("num_groups", "must be positive", num_groups)
    if expected_m is None:
        return DEFAULT_MK_ALIGNMENT
    if _check_integer("expected_m", expected_m) <= 0:
        refuse("expected_m", "must be positive", expected_m)
    rows = -(-expected_m // (num_groups or 1))
    return next((height for height in (16, 32, 64) if rows <= height), DEFAULT_MK_ALIGNMENT)
