"""cvt between floats, and between floats and integers.

Names carry the rounding: rn and rni to the nearest (ties to even), rz and rzi toward zero, rm and
rmi down, rp and rpi up, rna to the nearest (ties away from zero).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from deep_gemm.emulator.arithmetic import Lanes
from deep_gemm.emulator.float_formats import BF16, E4M3, E5M2, FP16, Format
from deep_gemm.emulator.opcodes import DTYPES, Operation

_INTEGERS = tuple(f"{kind}{bits}" for kind in "us" for bits in (8, 16, 32, 64))
_INTEGRAL: dict[str, Callable[..., Any]] = {
    "rni": np.rint,
    "rzi": np.trunc,
    "rmi": np.floor,
    "rpi": np.ceil,
}
_F32_NAN = np.uint32(0x7FFFFFFF).view(np.float32)
_HALVES = {"f16": FP16, "bf16": BF16}
_FP8 = {"e4m3x2": E4M3, "e5m2x2": E5M2}


def to_integer(value: Lanes, name: str, rounding: str) -> Lanes:
    """A float rounded to an integer type, cut to its range.

    NaN gives 0, but the highest bit alone if either type has 64 bits.
    """
    dtype = DTYPES[name]
    limits = np.iinfo(dtype)
    rounded = _INTEGRAL[rounding](value.astype(np.float64))
    is_nan = np.isnan(rounded)
    # float64 does not hold the limits of 64-bit types: compare before the cast.
    too_high, too_low = rounded >= float(limits.max), rounded <= float(limits.min)
    safe = np.where(is_nan | too_high | too_low, 0.0, rounded).astype(dtype)
    lowest, highest = dtype.type(limits.min), dtype.type(limits.max)
    result: Lanes = np.where(too_high, highest, np.where(too_low, lowest, safe))
    has_64_bits = 8 in (dtype.itemsize, value.dtype.itemsize)
    nan = 1 << 8 * dtype.itemsize - 1 if has_64_bits else 0
    return np.where(is_nan, np.array(nan, dtype=f"u{dtype.itemsize}").view(dtype), result)


def to_float(value: Lanes, rounding: str) -> Lanes:
    """An integer rounded to FP32."""
    nearest = value.astype(np.float32)
    if rounding == "rn":
        return nearest
    exact = [int(x) for x in value.tolist()]
    return np.array(
        [_directed(x, near, rounding) for x, near in zip(exact, nearest, strict=True)],
        dtype=np.float32,
    )


def _directed(exact: int, nearest: np.float32, rounding: str) -> np.float32:
    down = rounding == "rm" or (rounding == "rz" and exact > 0)
    is_right = exact >= int(nearest) if down else exact <= int(nearest)
    target = np.float32(-np.inf if down else np.inf)
    return nearest if is_right else np.float32(np.nextafter(nearest, target))


def integral(value: Lanes, rounding: str) -> Lanes:
    """A float rounded to a float without a fraction."""
    return _canonical(np.asarray(_INTEGRAL[rounding](value)))


def saturate(value: Lanes) -> Lanes:
    """A float cut to 0 to 1; NaN gives +0."""
    result: Lanes = np.where(value > 0, np.minimum(value, np.float32(1)), np.float32(0))
    return result


def to_tf32(value: Lanes) -> Lanes:
    """FP32 with 10 bits of fraction, ties away from zero, the other bits 0."""
    bits = (value.view(np.uint32) + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)
    is_finite = np.isfinite(value)
    special = np.where(np.isnan(value), np.uint32(0x7FFFFFFF), value.view(np.uint32))
    result: Lanes = np.where(is_finite, bits, special)
    return result


def _canonical(value: Lanes) -> Lanes:
    return np.where(np.isnan(value), _F32_NAN, value)


def pack(high: Lanes, low: Lanes) -> Lanes:
    """Two codes in an integer of twice their width."""
    wide = np.dtype(f"u{2 * high.dtype.itemsize}")
    shift = wide.type(8 * high.dtype.itemsize)
    packed: Lanes = high.astype(wide) << shift | low.astype(wide)
    return packed


def unpack(pair: Lanes) -> tuple[Lanes, Lanes]:
    """The high and the low half of an integer."""
    narrow = np.dtype(f"u{pair.dtype.itemsize // 2}")
    return (pair >> pair.dtype.type(8 * narrow.itemsize)).astype(narrow), pair.astype(narrow)


def _encode(value: Lanes, of: Format, relu: bool, truncates: bool, saturates: bool) -> Lanes:
    if relu:
        # A NaN stays one; -0 becomes +0.
        value = np.where(value <= 0, np.float32(0), value)
    return of.encode(value, truncates, saturates)


def _encode_pair(
    high: Lanes, low: Lanes, of: Format, relu: bool, truncates: bool, saturates: bool
) -> Lanes:
    return pack(*(_encode(value, of, relu, truncates, saturates) for value in (high, low)))


def _recode_pair(pair: Lanes, source: Format, of: Format, relu: bool) -> Lanes:
    high, low = (source.decode(codes) for codes in unpack(pair))
    return _encode_pair(high, low, of, relu, truncates=False, saturates=of.bits == 8)


def _with_floats() -> Iterator[tuple[str, Operation]]:
    for name, source in itertools.product(_INTEGERS, ("f32", "f64")):
        for rounding in _INTEGRAL:
            function = partial(to_integer, name=name, rounding=rounding)
            yield f"cvt.{rounding}.{name}.{source}", Operation(function, name, (source,))
    for name in _INTEGERS:
        for rounding in ("rn", "rz", "rm", "rp"):
            function = partial(to_float, rounding=rounding)
            yield f"cvt.{rounding}.f32.{name}", Operation(function, "f32", (name,))
        yield f"cvt.rn.f64.{name}", Operation(lambda v: v.astype(np.float64), "f64", (name,))
    for rounding in _INTEGRAL:
        function = partial(integral, rounding=rounding)
        yield f"cvt.{rounding}.f32.f32", Operation(function, "f32", ("f32",))
    yield "cvt.sat.f32.f32", Operation(saturate, "f32", ("f32",))
    yield "cvt.f64.f32", Operation(lambda v: v.astype(np.float64), "f64", ("f32",))
    yield "cvt.rn.f32.f64", Operation(_narrowed, "f32", ("f64",))
    yield "cvt.rna.tf32.f32", Operation(to_tf32, "b32", ("f32",))


def _narrowed(value: Lanes) -> Lanes:
    with np.errstate(over="ignore", invalid="ignore"):
        return _canonical(value.astype(np.float32))


def _widened(code: Lanes) -> Lanes:
    """BF16 as FP32; unlike other conversions, this one keeps a NaN's bits."""
    bits: Lanes = code.astype(np.uint32) << np.uint32(16)
    return bits.view(np.float32)


def _with_halves() -> Iterator[tuple[str, Operation]]:
    yield "cvt.f32.f16", Operation(FP16.decode, "f32", ("b16",))
    yield "cvt.f32.bf16", Operation(_widened, "f32", ("b16",))
    for name, of in _HALVES.items():
        for rounding, relu in itertools.product(("rn", "rz"), (False, True)):
            words = f"cvt.{rounding}{'.relu' if relu else ''}"
            how: dict[str, Any] = {
                "of": of,
                "relu": relu,
                "truncates": rounding == "rz",
                "saturates": False,
            }
            yield f"{words}.{name}.f32", Operation(partial(_encode, **how), "b16", ("f32",))
            pair = Operation(partial(_encode_pair, **how), "b32", ("f32", "f32"))
            yield f"{words}.{name}x2.f32", pair


def _with_fp8() -> Iterator[tuple[str, Operation]]:
    for (name, of), relu in itertools.product(_FP8.items(), (False, True)):
        word = ".relu" if relu else ""
        narrow = partial(_encode_pair, of=of, relu=relu, truncates=False, saturates=True)
        yield f"cvt.rn.satfinite{word}.{name}.f32", Operation(narrow, "b16", ("f32", "f32"))
        recode = partial(_recode_pair, source=FP16, of=of, relu=relu)
        yield f"cvt.rn.satfinite{word}.{name}.f16x2", Operation(recode, "b16", ("b32",))
        widen = partial(_recode_pair, source=of, of=FP16, relu=relu)
        yield f"cvt.rn{word}.f16x2.{name}", Operation(widen, "b32", ("b16",))


OPERATIONS = dict(itertools.chain(_with_floats(), _with_halves(), _with_fp8()))
"""Full name of an opcode -> what it computes."""
