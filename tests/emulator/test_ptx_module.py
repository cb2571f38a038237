"""What stands around kernels: header, variables, parameters, limits."""

from __future__ import annotations

import struct

import pytest

from deep_gemm.emulator.errors import EmulationError
from deep_gemm.emulator.ptx import Module, Parameter, Variable, parse

HEADER = ".version 8.8\n.target sm_90a\n.address_size 64\n"


def test_module_header() -> None:
    assert parse("// made by hand\n" + HEADER) == Module((8, 8), "sm_90a", {}, {})


@pytest.mark.parametrize("directive", [".maxntid 256", ".maxntid 64, 4, 1", ".reqntid 16,16"])
def test_kernel_limits(directive: str) -> None:
    text = f"{HEADER}.visible .entry k()\n{directive}\n.minnctapersm 2\n.maxnreg 168\n{{ ret; }}"
    kernel = parse(text).kernels["k"]
    assert (kernel.max_threads, kernel.min_ctas) == (256, 2)


def test_parameters_are_laid_out_by_their_own_alignment() -> None:
    text = (
        f"{HEADER}.entry k(.param .u32 a, .param .u64 .ptr .global .align 1 b,\n"
        ".param .u8 c, .param .align 64 .b8 d[130], .param .f32 e) { ret; }"
    )
    assert parse(text).kernels["k"].parameters == (
        Parameter("a", 4, 4, 0),
        Parameter("b", 8, 8, 8),
        Parameter("c", 1, 1, 16),
        Parameter("d", 130, 64, 64),
        Parameter("e", 4, 4, 196),
    )


@pytest.mark.parametrize(
    ("declaration", "variable"),
    [
        (
            ".global .align 4 .b8 x[6] = {64, 0, 255};",
            Variable("x", "global", 4, 6, bytes([64, 0, 255, 0, 0, 0]), False),
        ),
        (
            ".visible .const .u32 x = 0x80000001;",
            Variable("x", "const", 4, 4, bytes([1, 0, 0, 128]), False),
        ),
        (
            ".const .align 8 .s16 x[2][2] = {{1, -2}, {3, 010}};",
            Variable("x", "const", 8, 8, struct.pack("<4h", 1, -2, 3, 8), False),
        ),
        (
            ".global .f32 x[2] = {0f3FC00000, 2.5};",
            Variable("x", "global", 4, 8, struct.pack("<2f", 1.5, 2.5), False),
        ),
        (".shared .align 16 .b8 x[40];", Variable("x", "shared", 16, 40, None, False)),
        (".extern .shared .align 1024 .b8 x[];", Variable("x", "shared", 1024, 0, None, True)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_variables(declaration: str, variable: Variable) -> None:
    assert parse(HEADER + declaration).variables == {"x": variable}


def test_what_means_nothing_here_is_passed_over() -> None:
    text = (
        f'{HEADER}.file 1 "a {{ b.cu"\n.extern .func (.param .b32 r) vprintf(.param .b64 a);\n'
        '.entry k() {\n.loc 1 7 3, function_name $L_0, inlined_at 1 2 3\n.pragma "nounroll";\n'
        "/* several\nlines; { */ ; ret;\n}\n.section .debug_str { name: .b8 1,2 \n{ } }\n"
    )
    (instruction,) = parse(text).kernels["k"].instructions
    assert (instruction.text, instruction.line) == ("ret", 10)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: expected '.version'"),
        (HEADER.replace("64", "32"), "address size"),
        (HEADER + ".alias a, b;", "line 4: expected a variable or a kernel, got '.alias'"),
        (HEADER + ".func f() { ret; }", "line 4: .* got '.func'"),
        (HEADER + ".entry k() .blocksareclusters { ret; }", "line 4: .* '.blocksareclusters'"),
        (HEADER + ".entry k(.param .texref t) { ret; }", "line 4: expected a type"),
        (HEADER + ".global .b8 x[2] = {1, 2, 3};", "line 4: 3 initial values for 2 elements"),
        (HEADER + ".global .b8 x = 256;", "line 4: initial value does not fit"),
        (HEADER + ".global .u64 x = y;", "line 4: expected a number, got 'y'"),
        (HEADER + ".global .b8 x;\n.global .b8 x;", "variable x is declared twice"),
    ],
)
def test_refused_modules(text: str, problem: str) -> None:
    with pytest.raises(EmulationError, match=problem):
        parse(text)
