"""cvt, halves and approximations against exact arithmetic in fractions, and against PyTorch."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_gemm.emulator.float_formats import BF16, E4M3, E5M2, FP16, Format
from tests.emulator.lanes import LANES, REGISTER, columns, integers, run, wrap

FORMATS = {
    "f16": (FP16, torch.float16),
    "bf16": (BF16, torch.bfloat16),
    "e4m3": (E4M3, torch.float8_e4m3fn),
    "e5m2": (E5M2, torch.float8_e5m2),
}
FLOATS = st.integers(0, 2**32 - 1).map(lambda b: float(np.uint32(b).view(np.float32)))
SHORT = st.floats(-600, 600, width=32) | st.floats(width=32)


def codes(name: str) -> np.ndarray:
    of, _ = FORMATS[name]
    return np.arange(2**of.bits).astype(of.codes)


@pytest.mark.parametrize("name", FORMATS)
def test_codes_mean_what_pytorch_says(name: str) -> None:
    of, dtype = FORMATS[name]
    signed = codes(name).view(f"i{of.bits // 8}")
    expected = torch.from_numpy(signed).view(dtype).float().numpy()
    assert np.array_equal(of.decode(codes(name)), expected, equal_nan=True)


@pytest.mark.parametrize("name", FORMATS)
def test_codes_survive(name: str) -> None:
    of, _ = FORMATS[name]
    values = of.decode(codes(name))
    is_number = ~np.isnan(values)
    assert (of.encode(values)[is_number] == codes(name)[is_number]).all()
    assert (of.encode(values)[~is_number] & (2 ** (of.bits - 1) - 1) == of.nan).all()


def magnitudes(of: Format) -> list[Fraction]:
    """All finite values that are not negative, by code."""
    values = of.decode(np.arange(of.largest + 1).astype(of.codes))
    return [Fraction(float(value)) for value in values]


def rounded(value: float, of: Format, table: list[Fraction], truncates: bool) -> int:
    """The code by a search for the neighbours among all values, saturating."""
    if math.isnan(value):
        return of.nan
    sign = (math.copysign(1, value) < 0) << (of.bits - 1)
    if math.isinf(value):
        return sign | of.largest
    exact = abs(Fraction(value))
    below = max(i for i, known in enumerate(table) if known <= exact) if exact >= table[0] else 0
    if below == of.largest or truncates:
        return sign | below
    low, high = exact - table[below], table[below + 1] - exact
    above = high < low or (high == low and below % 2 == 1)
    return sign | (below + above)


@pytest.mark.parametrize("name", ["e4m3", "e5m2"])
@settings(max_examples=40)
@given(rows=st.lists(st.tuples(SHORT, SHORT), min_size=1, max_size=8))
def test_pairs_to_fp8(name: str, rows: list[tuple[float, float]]) -> None:
    of, _ = FORMATS[name]
    table = magnitudes(of)
    expected = [rounded(a, of, table, False) << 8 | rounded(b, of, table, False) for a, b in rows]
    text = f"cvt.rn.satfinite.{name}x2.f32 %rs0, %f1, %f2"
    assert run(text, *zip(*rows, strict=True)) == expected


@pytest.mark.parametrize("name", ["f16", "bf16"])
@given(values=st.lists(FLOATS.filter(lambda x: not math.isnan(x)), min_size=1, max_size=LANES))
def test_halves_as_pytorch_rounds(name: str, values: list[float]) -> None:
    _, dtype = FORMATS[name]
    halves = torch.tensor(values, dtype=torch.float32).to(dtype)
    expected = halves.view(torch.int16).numpy().view(np.uint16)
    assert run(f"cvt.rn.{name}.f32 %rs0, %f1", values) == expected.tolist()
    pairs = run(f"cvt.rn.{name}x2.f32 %r0, %f1, %f2", values, values[::-1])
    assert pairs == [int(a) << 16 | int(b) for a, b in zip(expected, expected[::-1], strict=True)]
    back = run(f"cvt.f32.{name} %f0, %rs1", expected.tolist())
    assert back == halves.float().tolist()


def test_truncation_and_relu() -> None:
    assert run("cvt.rz.bf16.f32 %rs0, %f1", [1.0078124, -1.0078124, math.inf, 3.4e38]) == [
        *(0x3F80, 0xBF80, 0x7F80, 0x7F7F),
    ]
    assert run("cvt.rn.relu.f16.f32 %rs0, %f1", [-1.0, -0.0, 1.0, math.nan]) == [
        *(0, 0, 0x3C00, 0x7FFF),
    ]


def test_fp8_to_halves_and_back() -> None:
    pairs = [a << 8 | b for a, b in zip(range(0, 120, 4), range(128, 248, 4), strict=True)]
    wide = run("cvt.rn.f16x2.e4m3x2 %r0, %rs1", pairs)
    assert [w & 0xFFFF for w in wide] == [
        int(FP16.encode(E4M3.decode(np.array([p & 255], dtype=np.uint8)))[0]) for p in pairs
    ]
    assert run("cvt.rn.satfinite.e4m3x2.f16x2 %rs0, %r1", wide) == pairs


ROUNDINGS = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", ["s32", "u32", "s16", "u8", "s64", "u64"])
@given(values=st.lists(FLOATS | st.floats(-1e6, 1e6, width=32), min_size=1, max_size=LANES))
def test_floats_to_integers(name: str, rounding: str, values: list[float]) -> None:
    bits = int(name[1:])
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if name[0] == "s" else (0, 2**bits - 1)
    held = max(bits, 16)
    expected = []
    for value in values:
        if math.isnan(value):
            expected.append(2**63 if bits == 64 else 0)
        elif math.isinf(value):
            expected.append((high if value > 0 else low) % 2**held)
        else:
            expected.append(min(max(ROUNDINGS[rounding](Fraction(value)), low), high) % 2**held)
    text = f"cvt.{rounding}.{name}.f32 {REGISTER[held]}0, %f1"
    assert run(text, values) == expected


@pytest.mark.parametrize("name", ["s32", "u32", "s64", "u64"])
@given(data=st.data())
def test_integers_to_floats(name: str, data: st.DataObject) -> None:
    bits = int(name[1:])
    values = [a for (a,) in data.draw(columns(bits))]
    for rounding in ("rn", "rz", "rm", "rp"):
        got = run(f"cvt.{rounding}.f32.{name} %f0, {REGISTER[bits]}1", values)
        for value, result in zip((wrap(a, name) for a in values), got, strict=True):
            below = Fraction(float(np.nextafter(np.float32(result), np.float32(-np.inf))))
            above = Fraction(float(np.nextafter(np.float32(result), np.float32(np.inf))))
            exact, found = Fraction(value), Fraction(result)
            down = rounding == "rm" or (rounding == "rz" and value > 0)
            if rounding == "rn":
                assert abs(found - exact) <= min(abs(below - exact), abs(above - exact))
            elif down:
                assert found <= exact < above
            else:
                assert below < exact <= found


def test_other_conversions() -> None:
    assert run("cvt.rni.f32.f32 %f0, %f1", [2.5, -0.5, 1e30]) == [
        2.0,
        -0.0,
        float(np.float32(1e30)),
    ]
    assert run("cvt.sat.f32.f32 %f0, %f1", [2.5, -0.5, 0.25, math.nan]) == [1.0, 0.0, 0.25, 0.0]
    one_and_tie = 1 + 2**-11
    tf32 = run("cvt.rna.tf32.f32 %r0, %f1", [one_and_tie, 1 + 2**-12, math.inf])
    assert [float(np.uint32(b).view(np.float32)) for b in tf32] == [1 + 2**-10, 1.0, math.inf]


HALF_OPERATIONS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "min": min,
    "max": max,
}


@pytest.mark.parametrize("name", ["f16", "bf16"])
@pytest.mark.parametrize("opcode", [*HALF_OPERATIONS, "fma.rn"])
@settings(max_examples=30)
@given(data=st.data())
def test_arithmetic_of_halves(opcode: str, name: str, data: st.DataObject) -> None:
    """One rounding of the exact result; infinities and NaN are left to the tests of FP32."""
    of, _ = FORMATS[name]
    finite = integers(16).filter(lambda c: (c & 0x7FFF) <= of.largest)
    count = 3 if opcode == "fma.rn" else 2
    rows = data.draw(st.lists(st.tuples(*[finite] * count), min_size=1, max_size=LANES))
    operands = ", ".join(f"%rs{i}" for i in range(count + 1))
    got = run(f"{opcode}.{name} {operands}", *zip(*rows, strict=True))
    for row, code in zip(rows, got, strict=True):
        values = [Fraction(float(of.decode(np.array([c], dtype=np.uint16))[0])) for c in row]
        exact = (
            values[0] * values[1] + values[2]
            if opcode == "fma.rn"
            else HALF_OPERATIONS[opcode](*values)
        )
        check_nearest(exact, code, of)


def check_nearest(exact: Fraction, code: int, of: Format) -> None:
    magnitude = code & 0x7FFF
    if magnitude == of.infinity:
        # Halfway between the largest value and what would come next.
        largest = Fraction(float(of.decode(np.array([of.largest], dtype=np.uint16))[0]))
        half_step = largest / (2 ** (of.mantissa_bits + 1) - 1) / 2
        assert abs(exact) >= largest + half_step
        return
    found = Fraction(float(of.decode(np.array([code], dtype=np.uint16))[0]))
    for neighbour in {max(magnitude - 1, 0), min(magnitude + 1, of.largest)}:
        sign = code & 0x8000
        other = float(of.decode(np.array([neighbour | sign], dtype=np.uint16))[0])
        distance, theirs = abs(found - exact), abs(Fraction(other) - exact)
        assert distance < theirs or (distance == theirs and code % 2 == 0) or neighbour == magnitude


def test_pairs_of_halves() -> None:
    assert run("add.rn.f16x2 %r0, %r1, %r2", [0x3C004000], [0x40003C00]) == [0x42004200]
    assert run("neg.bf16x2 %r0, %r1", [0x3F800000]) == [0xBF808000]


EXACT = {
    "ex2.approx": lambda x: 2.0**x,
    "lg2.approx": math.log2,
    "rcp.approx": lambda x: 1 / x,
    "sqrt.approx": math.sqrt,
    "sqrt.rn": math.sqrt,
    "rsqrt.approx": lambda x: 1 / math.sqrt(x),
    "sin.approx": math.sin,
    "cos.approx": math.cos,
    "tanh.approx": math.tanh,
}


@pytest.mark.parametrize("name", EXACT)
@given(values=st.lists(st.floats(2**-20, 100, width=32), min_size=1, max_size=LANES))
def test_approximated_functions_are_the_nearest_floats(name: str, values: list[float]) -> None:
    got = run(f"{name}.f32 %f0, %f1", values)
    for value, result in zip(values, got, strict=True):
        exact = EXACT[name](value)
        assert abs(result - exact) <= abs(exact) * 2**-23 + 2**-149


def test_ends_of_approximated_functions() -> None:
    assert run("ex2.approx.f32 %f0, %f1", [-math.inf, math.inf, -200.0]) == [0.0, math.inf, 0.0]
    assert run("lg2.approx.f32 %f0, %f1", [0.0, math.inf]) == [-math.inf, math.inf]
    assert run("rcp.approx.f32 %f0, %f1", [0.0, -0.0, math.inf]) == [math.inf, -math.inf, 0.0]
    assert math.isnan(run("lg2.approx.f32 %f0, %f1", [-1.0])[0])
    assert run("div.full.f32 %f0, %f1, %f2", [1.0, 1.0], [3.0, 0.0]) == [
        float(np.float32(1) / np.float32(3)),
        math.inf,
    ]


def test_flushing() -> None:
    small = 2.0**-127
    assert run("mul.ftz.f32 %f0, %f1, %f2", [small, 2.0**-100, -small], [4.0, 2.0**-27, 1.0]) == [
        *(0.0, 0.0, -0.0),
    ]
    assert run("mul.f32 %f0, %f1, %f2", [small], [4.0]) == [2.0**-125]
    assert run("testp.subnormal.f32 %p0, %f1", [small, 0.0, 1.0]) == [True, False, False]
    assert run("testp.normal.f32 %p0, %f1", [small, 0.0, math.inf]) == [False, True, False]
    assert run("copysign.f32 %f0, %f1, %f2", [-1.0, 1.0], [3.0, -4.0]) == [-3.0, 4.0]
