"""The body of a kernel: what it means, and what is refused."""

from __future__ import annotations

import math
import struct

import pytest

from deep_gemm.emulator.errors import EmulationError
from deep_gemm.emulator.ptx import (
    Address,
    Guard,
    Immediate,
    Instruction,
    Kernel,
    Label,
    Pair,
    Parameter,
    Register,
    Sink,
    Special,
    Symbol,
    TensorAddress,
    Variable,
    Vector,
    parse,
)

HEADER = ".version 8.8\n.target sm_90a\n.address_size 64\n"

REGISTERS = """\
.reg .pred %p<3>;
.reg .b16 %rs<3>;
.reg .b32 %r<9>;
.reg .f32 %f<9>;
.reg .b64 %rd<9>;
"""


def kernel_of(body: str, declarations: str = "") -> Kernel:
    """The kernel with this body; it starts at line 11 of the text."""
    head = f"{HEADER}{declarations}.visible .entry k(.param .u64 k_param_0)\n{{\n{REGISTERS}"
    return parse(f"{head}{body}\n}}\n").kernels["k"]


def only(body: str, declarations: str = "") -> Instruction:
    (instruction,) = kernel_of(body, declarations).instructions
    return instruction


def slot(kernel: Kernel, kind: str, number: int) -> Register:
    """The register of a type, numbered as declared."""
    return [register for register in kernel.registers if register.type == kind][number]


def test_kernel_without_limits() -> None:
    kernel = kernel_of("ret;")
    assert (kernel.name, kernel.max_threads, kernel.min_ctas) == ("k", 1024, 1)
    assert kernel.parameters == (Parameter("k_param_0", 8, 8, 0),)


def test_variable_inside_a_kernel() -> None:
    body = ".shared .align 8 .b8 tile[64];\nmov.u32 %r1, tile;"
    module = parse(f"{HEADER}.entry k() {{ {REGISTERS} {body} }}")
    assert module.variables == {"tile": Variable("tile", "shared", 8, 64, None, False)}
    assert module.kernels["k"].instructions[0].operands[1] == Symbol("tile")


def test_register_slots_are_dense_and_typed() -> None:
    kernel = kernel_of(".reg .u32 a, b;\n.reg .s64 c;\nret;")
    assert [register.slot for register in kernel.registers] == list(range(33 + 3))
    assert [register.type for register in kernel.registers[-3:]] == ["b32", "b32", "b64"]


def test_instruction() -> None:
    instruction = only("\n\tadd.s32 \t%r1, %r2,-3 ; // comment")
    assert instruction.name == "add.s32"
    assert (instruction.opcode, instruction.modifiers) == ("add", ("s32",))
    assert instruction.operands[2] == Immediate(-3)
    assert (instruction.guard, instruction.line) == (None, 12)
    assert instruction.text == "add.s32 %r1, %r2,-3"


def test_instruction_over_several_lines() -> None:
    body = "wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3\n{%f1,\n%f2 , /* two */ %f3, %f4},"
    kernel = kernel_of(body + "\n\n%rd1, %rd2, %p1, 1, -1;\nret;")
    wgmma, ret = kernel.instructions
    assert wgmma.modifiers[-4:] == ("m64n8k32", "f32", "e4m3", "e4m3")
    assert wgmma.operands[0] == Vector(tuple(slot(kernel, "f32", i) for i in (1, 2, 3, 4)))
    assert wgmma.operands[4:] == (Immediate(1), Immediate(-1))
    assert wgmma.text.endswith("{%f1, %f2 , %f3, %f4}, %rd1, %rd2, %p1, 1, -1")
    assert (wgmma.line, ret.line) == (11, 16)


def test_modifiers_with_colons() -> None:
    instruction = only(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
        " [%r1], [%rd1, {%r2,%r3}], [%r4];"
    )
    assert instruction.modifiers == (
        *("async", "bulk", "tensor", "2d", "shared::cluster", "global"),
        "mbarrier::complete_tx::bytes",
    )
    _, source, barrier = instruction.operands
    assert isinstance(source, TensorAddress)
    assert isinstance(barrier, Address)
    assert len(source.coordinates) == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10),
        ("-10", -10),
        ("0xfF", 255),
        ("-0x10", -16),
        ("017", 15),
        ("0", 0),
        ("0b101", 5),
        ("4294967295U", 2**32 - 1),
        ("0f3F800000", 1.0),
        ("0fBFC00000", -1.5),
        ("0F00000001", 2.0**-149),
        ("0d3FF8000000000000", 1.5),
        ("0f7F800000", math.inf),
    ],
)
def test_constants(text: str, value: float) -> None:
    constant = only(f"mov.b32 %r1, {text};").operands[1]
    assert constant == Immediate(value)
    assert isinstance(constant, Immediate)
    assert type(constant.value) is type(value)


def test_nan_constant_keeps_its_bits() -> None:
    constant = only("mov.f32 %f1, 0f7FFFFFFF;").operands[1]
    assert isinstance(constant, Immediate)
    assert struct.pack(">f", constant.value).hex() == "7fffffff"


@pytest.mark.parametrize(
    ("text", "offset"),
    [
        ("[%rd1]", 0),
        ("[%rd1+16]", 16),
        ("[%rd1+-24]", -24),
        ("[%rd1-8]", -8),
        ("[ %rd1 + 0x4 ]", 4),
    ],
)
def test_address_offsets(text: str, offset: int) -> None:
    kernel = kernel_of(f"ld.global.u32 %r1, {text};")
    assert kernel.instructions[0].operands[1] == Address(slot(kernel, "b64", 1), offset)


def test_symbols() -> None:
    shared = ".extern .shared .align 16 .b8 smem[];\n"
    parameter, plus, address, constant = kernel_of(
        "mov.b64 %rd1, k_param_0; mov.u32 %r1, smem+32; ld.shared.u32 %r1, [smem+8];"
        "ld.shared.u32 %r1, [16];",
        shared,
    ).instructions
    assert parameter.operands[1] == Symbol("k_param_0")
    assert plus.operands[1] == Symbol("smem", 32)
    assert address.operands[1] == Address(Symbol("smem"), 8)
    assert constant.operands[1] == Address(Immediate(16), 0)


@pytest.mark.parametrize("name", ["tid.x", "nctaid.z", "laneid", "cluster_ctarank", "clock64"])
def test_special_registers(name: str) -> None:
    assert only(f"mov.u32 %r1, %{name};").operands[1] == Special(name)


def test_pairs_and_sinks() -> None:
    kernel = kernel_of("elect.sync _|%p1, 0xffffffff; shfl.sync.idx.b32 %r1|%p2, %r2, 0, 31, -1;")
    elect, shuffle = kernel.instructions
    assert elect.operands[0] == Pair(Sink(), slot(kernel, "pred", 1))
    assert shuffle.operands[0] == Pair(slot(kernel, "b32", 1), slot(kernel, "pred", 2))


def test_guards() -> None:
    kernel = kernel_of("@%p1 ret; @!%p2 ret;")
    assert [instruction.guard for instruction in kernel.instructions] == [
        Guard(slot(kernel, "pred", 1), False),
        Guard(slot(kernel, "pred", 2), True),
    ]
    assert kernel.instructions[1].text == "@!%p2 ret"


def test_labels_name_the_next_instruction() -> None:
    kernel = kernel_of("top: ret; middle: also: bra.uni top; @%p1 bra end; end:")
    assert kernel.labels == {"top": 0, "middle": 1, "also": 1, "end": 3}
    assert kernel.instructions[1].operands == (Label("top"),)
    assert kernel.instructions[2].operands == (Label("end"),)


def test_braces_scope_registers_and_labels() -> None:
    block = "{ .reg .pred p; .reg .b32 %r1; WAIT: setp.eq.s32 p, %r1, %r2; @p bra WAIT; bra OUT; }"
    kernel = kernel_of(f"{block}\n{block}\nOUT: mov.u32 %r1, %r2;")
    first, second, last = (kernel.instructions[i] for i in (0, 3, 6))
    assert first.operands[0] != second.operands[0]
    assert first.operands[1] != second.operands[1]
    assert first.operands[2] == second.operands[2] == last.operands[1]
    assert last.operands[0] == slot(kernel, "b32", 1)
    targets = [kernel.instructions[i].operands[0] for i in (1, 2, 4, 5)]
    indices = [kernel.labels[target.name] for target in targets if isinstance(target, Label)]
    assert indices == [0, 6, 3, 6]


def test_an_inner_label_hides_an_outer_one() -> None:
    kernel = kernel_of("DONE: ret; { { bra DONE; } DONE: ret; }")
    target = kernel.instructions[1].operands[0]
    assert isinstance(target, Label)
    assert kernel.labels[target.name] == 2


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("ret;\nadd.s32 %r1, %r2, ?;", "line 12: unexpected '?'"),
        ("ret;\n.local .b8 depot[8];", "line 12: expected an instruction, got '.local'"),
        ("add.s32 %r1, %r2, %r99;", "line 11: expected an operand that is known here, got '%r99'"),
        ("{ .reg .pred q; }\nsetp.eq.s32 q, %r1, %r2;", "line 12: .* got 'q'"),
        ("mov.u32 %r1, %nowhere;", "line 11: .* got '%nowhere'"),
        ("ret;\n\nbra nowhere;", "line 13: no such label: bra nowhere"),
        ("bra IN; { IN: ret; }", "line 11: no such label"),
        ("@%r1 ret;", "line 11: expected a predicate, got '%r1'"),
        ("add.s32 %r1, %r2 %r3;", "line 11: expected ';', got '%r3'"),
        ("mov.b64 %rd1, {%r1, %r2;", "line 11: expected '}', got ';'"),
        ("ld.global.u32 %r1, [%rd1+%rd2];", "line 11: expected a number, got '%rd2'"),
        ("call.uni (%r1), vprintf, (%rd1);", "line 11: .* got '\\('"),
        (".reg .b128 %x;", "line 11: expected a register's type, got '.b128'"),
        (".reg .b32 %r1;", "line 11: register %r1 is declared twice"),
        ("a: ret; a: ret;", "line 11: label a is declared twice"),
        ("ret; {", "line 13: expected an instruction, got 'the end'"),
    ],
)
def test_refused_bodies(body: str, problem: str) -> None:
    with pytest.raises(EmulationError, match=problem):
        kernel_of(body)
