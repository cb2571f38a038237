"""Moves, selections and conversions; operands of every kind; what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from deep_gemm.emulator.alu import compile_pure, evaluate, operand_type
from deep_gemm.emulator.errors import UnknownOpcodeError
from deep_gemm.emulator.ptx import Instruction
from tests.emulator.lanes import LANES, REGISTER, decode, hold, run, wrap


@pytest.mark.parametrize(("name", "register"), [("b16", "%rs"), ("u32", "%r"), ("s64", "%rd")])
def test_selp(name: str, register: str) -> None:
    text = f"selp.{name} {register}0, {register}1, {register}2, %p3"
    assert run(text, [1, 2, 3], [4, 5, 6], [True, False, True]) == [1, 5, 3]


def test_predicates() -> None:
    a, b = [False, False, True, True], [False, True, False, True]
    assert run("and.pred %p0, %p1, %p2", a, b) == [False, False, False, True]
    assert run("or.pred %p0, %p1, %p2", a, b) == [False, True, True, True]
    assert run("xor.pred %p0, %p1, %p2", a, b) == [False, True, True, False]
    assert run("not.pred %p0, %p1", a) == [True, True, False, False]
    assert run("mov.pred %p0, %p1", a) == a


CVT_TYPES = [f"{kind}{bits}" for kind in "us" for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize("source", CVT_TYPES)
@pytest.mark.parametrize("result", CVT_TYPES)
@pytest.mark.parametrize("extra", [1, 2], ids=["registers-fit", "registers-wider"])
def test_cvt(result: str, source: str, extra: int) -> None:
    bits_in, bits_out = (min(64, max(16, int(t[1:])) * extra) for t in (source, result))
    values = [0, 1, 127, 128, 255, 0x7FFF, 0x8000, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 63, -1]
    text = f"cvt.{result}.{source} {REGISTER[bits_out]}0, {REGISTER[bits_in]}1"
    converted = [wrap(wrap(value, source), result) for value in values]
    assert run(text, values) == [value % (1 << bits_out) for value in converted]


def test_vector_moves() -> None:
    assert run("mov.b64 %rd0, {%r1, %r2}", [1, 2**32 - 1], [2, 0]) == [1 + (2 << 32), 2**32 - 1]
    assert run("mov.b32 %r0, {%rs1, %rs2}", [0xABCD], [0x1234]) == [0x1234ABCD]
    assert run("mov.b64 %rd0, {%f1, %f2}", [1.0], [-2.0]) == [0xC00000003F800000]
    assert run("mov.b64 %rd0, {%rs1, %rs2, %rs3, %rs4}", [1], [2], [3], [4]) == [0x4000300020001]
    instruction = decode("mov.b64 {%r0, %f1}, %rd2")
    low, high = evaluate(instruction, hold(instruction, [[0xC000000000000007]]))
    assert (low[0], high[0], low.dtype, high.dtype) == (7, -2.0, np.uint32, np.float32)
    instruction = decode("mov.b32 {_, %rs1}, %r2")
    (only,) = evaluate(instruction, hold(instruction, [[0x1234ABCD]]))
    assert (only[0], only.dtype) == (0x1234, np.uint16)


def test_moves_between_registers_of_one_width_keep_bits() -> None:
    assert run("mov.b32 %r0, %f1", [1.0, -0.0]) == [0x3F800000, 0x80000000]
    assert run("mov.f32 %f0, %r1", [0x3F800000]) == [1.0]
    assert run("selp.f32 %r0, %f1, %r2, %p3", [1.0, 1.0], [7, 7], [True, False]) == [0x3F800000, 7]
    assert run("add.f32 %r0, %r1, %f2", [0x3F800000], [1.0]) == [0x40000000]


@pytest.mark.parametrize(
    ("text", "index", "dtype"),
    [
        ("add.s32 %r0, %r1, -1", 2, "u4"),
        ("shl.b64 %rd0, %rd1, 3", 2, "u4"),
        ("shr.s16 %rs0, -1, 3", 1, "u2"),
        ("mul.wide.s32 %rd0, %r1, 128", 2, "u4"),
        ("mad.wide.u32 %rd0, %r1, 128, 1", 3, "u8"),
        ("selp.f32 %f0, 0f3F800000, %f1, %p1", 1, "f4"),
        ("mov.b32 %r0, 0f3F800000", 1, "f4"),
        ("mov.u64 %rd0, parameter", 1, "u8"),
        ("mov.b64 %rd0, {%r1, 0}", 1, "u4"),
        ("cvt.s64.s32 %rd0, -1", 1, "u4"),
        ("setp.ne.and.b16 %p0, %rs1, 0, %p1", 2, "u2"),
        ("mov.pred %p0, -1", 1, "?"),
        ("st.shared.v2.f32 [%r0], {0f00000000, %f1}", 1, "f4"),
        ("st.global.b64 [%rd0], -1", 1, "u8"),
        ("bar.sync 0, 128", 1, "u4"),
        ("mbarrier.init.shared::cta.b64 [%r0], 1", 1, "u8"),
    ],
)
def test_operand_type(text: str, index: int, dtype: str) -> None:
    assert operand_type(decode(text), index) == np.dtype(dtype)


def test_constants_come_in_their_operand_type() -> None:
    def constant(value: float, instruction: Instruction, index: int) -> np.ndarray:
        dtype = operand_type(instruction, index)
        kept = value % (1 << 8 * dtype.itemsize) if isinstance(value, int) else value
        return np.full(LANES, kept, dtype)

    for text, value, expected in (
        ("mov.b32 %r0, 0f3F800000", 1.0, 0x3F800000),
        ("mov.f32 %f0, 0f3F800000", 1.0, 1.0),
        ("cvt.s64.s32 %rd0, -2", -2, 2**64 - 2),
        ("neg.s16 %rs0, -2", -2, 2),
    ):
        instruction = decode(text)
        assert evaluate(instruction, [constant(value, instruction, 1)])[0] == expected


def test_special_registers_are_cut_to_the_type() -> None:
    clock, seven = np.full(LANES, 2**40 + 5, np.uint64), np.full(LANES, 7, np.uint32)
    assert evaluate(decode("mov.u32 %r0, %clock64"), [clock])[0] == 5
    assert evaluate(decode("mov.u64 %rd0, %clock64"), [clock])[0] == 2**40 + 5
    assert evaluate(decode("setp.gt.s32 %p0, 7, %clock64"), [seven, clock])[0]


@pytest.mark.parametrize(
    "text",
    [
        "add.sat.s32 %r0, %r1, %r2",
        "add.cc.s32 %r0, %r1, %r2",
        "add.s8 %r0, %r1, %r2",
        "fma.rn.sat.f32 %f0, %f1, %f2, %f3",
        "fma.rz.f32 %f0, %f1, %f2, %f3",
        "ex2.f32 %f0, %f1",
        "setp.lt.b32 %p0, %r1, %r2",
        "setp.lo.s32 %p0, %r1, %r2",
        "div.rz.f32 %f0, %f1, %f2",
        "cvta.to.shared.u64 %rd0, %rd1",
        "cvt.sat.u8.u32 %r0, %r1",
        "bar.sync 0",
        "ret",
        # Known opcodes on operands that PTX refuses.
        "add.s32 %r0, %r1",
        "add.s32 %rd0, %r1, %r2",
        "add.s32 %r0, %r1, %rd2",
        "mov.u32 %r0, %p1",
        "setp.eq.s32 %r0, %r1, %r2",
        "selp.b32 %r0, %r1, %r2, %r3",
        "cvt.u64.u32 %r0, %r1",
        "cvt.u32.u64 %r0, %r1",
        "add.s32 %r0|%p1, %r1, %r2",
        "mov.b64 %rd0, {%r1, %r2, %r3}",
        "mov.b32 %r0, {%r1}",
    ],
)
def test_unknown_instructions(text: str) -> None:
    with pytest.raises(UnknownOpcodeError) as caught:
        compile_pure(decode(text))
    assert str(caught.value) == f"PTX line 6: unknown instruction: {text}"


def test_sources_are_left_alone() -> None:
    for text in ("fma.rn.f32 %f0, %f1, %f1, %f1", "neg.s32 %r0, %r1", "shr.s32 %r0, %r1, 1"):
        instruction = decode(text)
        count = len(instruction.operands) - 1
        dtype = operand_type(instruction, 1)
        sources = [np.full(LANES, 3, dtype) for _ in range(count)]
        for source in sources:
            source.flags.writeable = False
        evaluate(instruction, sources)
