"""What holds for calls until it is set anew: for the whole process, or inside a `with override()`.

Setting a value and reading it are safe in any thread; a call uses what is set when it begins.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch

from deep_gemm.checks import refuse
from deep_gemm.runtime.device import num_sms_of

DEFAULT_MK_ALIGNMENT = 128

FINEST_MK_ALIGNMENT = 16
"""Alignments other than 1 are multiples of this."""

MAX_BLOCK = 256
"""Rows, and columns, of the largest block."""


class Settings(NamedTuple):
    """All of it; a part of what a call is remembered by.

    Attributes:
        num_sms: multiprocessors that a kernel may occupy; 0 for all.
        tc_util: percent of the tensor cores that a kernel may occupy.
        pdl: a kernel may start while the one before it ends.
        mk_alignment: rows to a multiple of which groups of the contiguous layout begin.
        block_multiple: what the rows and the columns of a block are a multiple of.
        batch_invariant: a row of D has the same bits whatever other rows there are.
    """

    num_sms: int = 0
    tc_util: int = 100
    pdl: bool = False
    mk_alignment: int = DEFAULT_MK_ALIGNMENT
    block_multiple: tuple[int, int] = (1, 1)
    batch_invariant: bool = False

    @property
    def limits_sms(self) -> bool:
        """Whether a kernel may not occupy all multiprocessors."""
        return self.num_sms != 0 or self.tc_util < 100


_lock = threading.Lock()
# A thread that holds it is not there to release it in a forked child.
os.register_at_fork(after_in_child=lambda: globals().update(_lock=threading.Lock()))
_of_process = Settings()
_override: ContextVar[Settings | None] = ContextVar("deep_gemm_settings", default=None)


def current() -> Settings:
    """What holds for a call that begins here and now."""
    return _override.get() or _of_process


def _set(**changes: object) -> None:
    global _of_process
    override = _override.get()
    if override is not None:
        _override.set(override._replace(**changes))  # type: ignore[arg-type]
        return
    with _lock:
        _of_process = _of_process._replace(**changes)  # type: ignore[arg-type]


@contextmanager
def override(
    *,
    num_sms: int | None = None,
    tc_util: int | None = None,
    pdl: bool | None = None,
    mk_alignment: int | None = None,
    block_size_multiple_of: int | tuple[int, int] | None = None,
    batch_invariant: bool | None = None,
) -> Iterator[None]:
    """Other settings inside a `with` block, for this thread or task only.

    What is not given, or None, stays as it is. The setters, called inside the block, hold until its
    end, and only here.

    Args:
        num_sms: as for `set_num_sms`.
        tc_util: as for `set_tc_util`.
        pdl: as for `set_pdl`.
        mk_alignment: as for `set_mk_alignment_for_contiguous_layout`.
        block_size_multiple_of: as for `set_block_size_multiple_of`.
        batch_invariant: as for `set_batch_invariant`.

    Raises:
        ArgumentError: a value that the setter refuses.

    Example:
        >>> with deep_gemm.override(num_sms=100):
        ...     deep_gemm.fp8_gemm_nt(a, b, d)
    """
    token = _override.set(current())
    try:
        if num_sms is not None:
            set_num_sms(num_sms)
        if tc_util is not None:
            set_tc_util(tc_util)
        if pdl is not None:
            set_pdl(pdl)
        if mk_alignment is not None:
            set_mk_alignment_for_contiguous_layout(mk_alignment)
        if block_size_multiple_of is not None:
            set_block_size_multiple_of(block_size_multiple_of)
        if batch_invariant is not None:
            set_batch_invariant(batch_invariant)
        yield
    finally:
        _override.reset(token)


def _check_integer(argument: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        refuse(argument, "must be an int", repr(value))
    return value


def _check_bool(argument: str, value: object) -> bool:
    if not isinstance(value, bool):
        refuse(argument, "must be a bool", repr(value))
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
    _set(num_sms=value)


def get_num_sms() -> int:
    """Multiprocessors that kernels on the current device may use: all, unless set otherwise."""
    limit, have = current().num_sms, num_sms_of(_current_device())
    return min(limit, have) if limit else have


def set_tc_util(tc_util: int) -> None:
    """Limits the share of the tensor cores that a GEMM uses, by the multiprocessors that it runs
    on, so that others get theirs.

    Args:
        tc_util: percent, 1..100; 0 for all.

    Raises:
        ArgumentError: not an int in 0..100.
    """
    value = _check_integer("tc_util", tc_util)
    if not 0 <= value <= 100:
        refuse("tc_util", "must be in 0..100 percent", value)
    _set(tc_util=value or 100)


def get_tc_util() -> int:
    """Percent of the tensor cores that a GEMM may use."""
    return current().tc_util


def usable_sms(device: torch.device, settings: Settings | None = None) -> int:
    """Multiprocessors that a kernel on `device` occupies."""
    settings = settings or current()
    limit, have = settings.num_sms, num_sms_of(device)
    return max(1, (min(limit, have) if limit else have) * settings.tc_util // 100)


def set_pdl(enabled: bool) -> None:
    """Programmatic dependent launch: whether GEMMs start while the kernel before them still ends.

    They prepare themselves, a dense product with weights asks L2 for the first of them, and then
    they wait until all that it wrote is there; and they let the kernel behind them do the same.

    Raises:
        ArgumentError: not a bool.
    """
    _set(pdl=_check_bool("enabled", enabled))


def get_pdl() -> bool:
    """Whether GEMMs use programmatic dependent launch; not unless set."""
    return current().pdl


def set_block_size_multiple_of(value: int | tuple[int, int]) -> None:
    """Restricts the blocks that kernels may have: their rows and columns are multiples of these.

    Args:
        value: of both, or (of the rows, of the columns); (1, 1) restricts nothing. Rows are 16, 32,
            64, 128 or 256, columns any multiple of 16 up to 256.

    Raises:
        ArgumentError: not one or two ints, or no block is a multiple of them.
    """
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2:
        refuse("value", "must be an int or a pair of them", repr(value))
    rows, columns = (_check_integer("value", part) for part in pair)
    fits = rows > 0 and MAX_BLOCK % rows == 0
    fits &= columns > 0 and any(n % columns == 0 for n in range(16, MAX_BLOCK + 1, 16))
    if not fits:
        refuse("value", f"must divide a block's rows and columns, at most {MAX_BLOCK}", pair)
    _set(block_multiple=(rows, columns))


def set_ignore_compile_dims(enabled: bool) -> None:
    """Accepted for compatibility: sizes are never compiled into a kernel here.

    Raises:
        ArgumentError: not a bool.
    """
    _check_bool("enabled", enabled)


def use_deterministic_algorithms(enabled: bool) -> None:
    """Accepted for compatibility: every kernel here gives the same bits for the same operands.

    Raises:
        ArgumentError: not a bool.
    """
    _check_bool("enabled", enabled)


def get_deterministic_algorithms() -> bool:
    """True: nothing here depends on the order in which threads come."""
    return True


def set_batch_invariant(enabled: bool) -> None:
    """Whether a row of D has the same bits whatever other rows there are; False at first.

    A dense product with few blocks may else share each block's K among several CTAs: how many
    depends on M, and so do then the last bits of a sum. Such calls take longer if K must be left
    whole: 16 x 576 x 7168 took 10.2 us instead of 7.4 us on an H100, 1.38 times as long. All other
    calls are batch-invariant in any case.

    Raises:
        ArgumentError: not a bool.
    """
    _set(batch_invariant=_check_bool("enabled", enabled))


def get_batch_invariant() -> bool:
    """What `set_batch_invariant` has set."""
    return current().batch_invariant


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
    _set(mk_alignment=value)


def get_mk_alignment_for_contiguous_layout() -> int:
    """Rows to a multiple of which the groups of the contiguous layout begin; 128 if never set."""
    return current().mk_alignment


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
