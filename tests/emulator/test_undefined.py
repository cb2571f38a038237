"""Undefined values: computed with at will, an error once something depends on them."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.run import load, run
from deep_gemm.emulator.undefined import Undefined, spread

KERNEL = """\
.version 9.0
.target sm_90a
.address_size 64
.extern .shared .align 1024 .b8 memory[];
.entry k(.param .u64 k_param_0)
{{
.reg .pred %p<9>; .reg .b32 %r<99>; .reg .b64 %rd<9>; .reg .f32 %f<9>;
ld.param.u64 %rd1, [k_param_0];
mov.u32 %r1, %tid.x;
mul.wide.u32 %rd2, %r1, 4;
add.s64 %rd3, %rd1, %rd2;
mov.u32 %r2, memory;
shl.b32 %r3, %r1, 2;
add.s32 %r4, %r2, %r3;
{body}
ret;
}}
"""
NEVER_WRITTEN, FROM_MEMORY = "never written", "computed from undefined memory"


def execute(body: str, num_threads: int = 32) -> list[int]:
    """What the threads leave in a word each; -1 where they do not write."""
    out = np.full(num_threads, -1, dtype=np.int32)
    address = out.ctypes.data
    parameters = address.to_bytes(8, "little")
    program = load(KERNEL.format(body=body), "k")
    run(program, 1, 1, num_threads, 1024, parameters, [(address, out.nbytes)])
    values: list[int] = out.tolist()
    return values


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("st.global.u32 [%rd3], %r50;", NEVER_WRITTEN),
        ("ld.shared.u32 %r50, [%r4]; st.global.u32 [%rd3], %r50;", FROM_MEMORY),
        ("ld.shared.u32 %r50, [%r4]; add.s32 %r51, %r50, %r1; st.global.u32 [%rd3], %r51;", "from"),
        ("ld.shared.u32 %r50, [%r4]; ld.shared.u32 %r51, [%r50];", FROM_MEMORY),
        ("ld.shared.u32 %r50, [%r4]; setp.eq.s32 %p1, %r50, 0; @%p1 bra L; L:", FROM_MEMORY),
        ("ld.shared.u32 %r50, [%r4]; setp.eq.s32 %p1, %r50, 0; @%p1 mov.u32 %r1, 0;", "predicate"),
        ("ld.shared.u32 %r50, [%r4]; shfl.sync.idx.b32 %r51, %r50, 3, 31, -1;"
         "st.global.u32 [%rd3], %r51;", FROM_MEMORY),
        ("ld.shared.u32 %r50, [%r4]; st.shared.u32 [%r4+256], %r50; ld.shared.u32 %r51, [%r4+256];"
         "st.global.u32 [%rd3], %r51;", FROM_MEMORY),
        ("mbarrier.init.shared::cta.b64 [%r2], %r60;", NEVER_WRITTEN),
        ("bar.sync %r60, 32;", NEVER_WRITTEN),
    ],
)  # fmt: skip
def test_what_depends_on_undefined_values_is_refused(body: str, why: str) -> None:
    with pytest.raises(HazardError, match=why) as error:
        execute(body)
    assert error.value.rule == "R26"


def test_the_load_is_the_other_access() -> None:
    with pytest.raises(HazardError, match=r"lane 0.*st.global.*other access: .*ld.shared.u32 %r50"):
        execute("ld.shared.u32 %r50, [%r4];\nadd.s32 %r51, %r50, 1;\nst.global.u32 [%rd3], %r51;")


def test_a_load_whose_value_is_not_used_is_fine() -> None:
    body = """
    ld.shared.u32 %r50, [%r4];
    setp.lt.u32 %p1, %r1, 32;
    add.s32 %r51, %r50, 1;
    selp.b32 %r52, %r1, %r51, %p1;
    st.global.u32 [%rd3], %r52;
    """
    assert execute(body) == list(range(32))


def test_lanes_are_told_apart() -> None:
    body = """
    setp.ne.u32 %p1, %r1, 5;
    @%p1 st.shared.u32 [%r4], %r1;
    ld.shared.u32 %r50, [%r4];
    @%p1 st.global.u32 [%rd3], %r50;
    """
    assert execute(body) == [-1 if lane == 5 else lane for lane in range(32)]
    with pytest.raises(HazardError, match="R26: .*undefined in lane 5"):
        execute(body + "st.global.u32 [%rd3], %r50;")


def test_a_short_circuit_decides_without_the_undefined_half() -> None:
    body = """
    ld.shared.u32 %r50, [%r4];
    setp.eq.s32 %p1, %r50, 0;
    setp.lt.u32 %p2, %r1, 32;
    or.pred %p3, %p1, %p2;
    @%p3 st.global.u32 [%rd3], %r1;
    """
    assert execute(body) == list(range(32))
    with pytest.raises(HazardError, match="R26: a predicate is undefined"):
        execute(body.replace("or.pred", "and.pred"))


def test_a_partial_write_defines_its_lanes() -> None:
    registers = Undefined(2)
    first = np.arange(32) < 7
    registers.define(0, first)
    assert (registers.lanes(0) == ~first).all()
    registers.require(frozenset({0}), first, "x")
    with pytest.raises(HazardError, match="^R26: x undefined in lane 7: never written"):
        registers.require(frozenset({0}), first | (np.arange(32) == 7), "x")
    registers.define(0, ~first)
    assert not registers.touches(frozenset({0})) and registers.touches(frozenset({0, 1}))


@pytest.mark.parametrize(("opcode", "compute"), [("and", np.bitwise_and), ("or", np.bitwise_or)])
def test_bits_are_undefined_if_they_depend_on_undefined_ones(
    opcode: str, compute: np.ufunc
) -> None:
    zero, ones = np.zeros(9, dtype=np.uint32), np.full(9, 2**32 - 1, dtype=np.uint32)
    some = np.array([0, 5, 2**32 - 1], dtype=np.uint32)
    held = [grid.reshape(-1) for grid in np.meshgrid(some, some)]
    for which in product((False, True), repeat=2):
        may_be = [(zero, ones) if un else (a,) for un, a in zip(which, held, strict=True)]
        results = [compute(*operands) for operands in product(*may_be)]
        depends = np.any([result != results[0] for result in results], axis=0)
        lanes = [np.full(9, undefined) for undefined in which]
        assert (spread(opcode)(lanes, held) == depends).all()


def test_a_selection_is_as_defined_as_what_it_selects() -> None:
    held = [np.arange(8) & bit > 0 for bit in (1, 2, 4)]
    taken = np.array([True] * 4 + [False] * 4)
    undefined = spread("selp")([held[0], held[1], np.zeros(8, bool)], [None, None, taken])
    assert undefined.tolist() == np.where(taken, held[0], held[1]).tolist()
    assert spread("selp")([held[0], held[1], np.ones(8, bool)], [None, None, taken]).all()
