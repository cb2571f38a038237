"""WGMMA by itself: chains of FP8 products, begun with any accumulators, on chosen operands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from goldens.case import ProgramCase, as_bytes
from goldens.machines import Launch
from goldens.operands import FAMILIES, Family, Operands, bf16_values, e5m2_values, f16_values

K_BYTES = 32
M = 64
_LAYOUTS = {0: 0, 128: 1, 64: 2, 32: 3}


@dataclass(frozen=True)
class Shape:
    """What is fixed in the text of a program.

    Attributes:
        n: columns.
        steps: instructions in flight together; a chain is a multiple of it.
        swizzle: of both operands, in bytes; 0 for none.
        types: of A and B, as in the instruction.
        k: elements of one instruction, 32 bytes.
        flags: what follows the scale of D: signs of A and B, and transpositions of 16-bit types.
    """

    n: int = 8
    steps: int = 4
    swizzle: int = 128
    types: str = "e4m3.e4m3"
    k: int = 32
    flags: str = "1, 1"

    @property
    def group_bytes(self) -> int:
        """Both operands of `steps` instructions."""
        return (M + self.n) * K_BYTES * self.steps

    def descriptor(self, rows: int, start: int, step: int) -> int:
        """Of an operand that begins `start` bytes into shared memory."""
        if self.swizzle:
            chunk, within = divmod(step * K_BYTES, self.swizzle)
            place, lbo, sbo = chunk * rows * self.swizzle + within, 0, 8 * self.swizzle
        else:
            place, lbo, sbo = step * rows * K_BYTES, rows * 16, 128
        fields = (start + place) >> 4 | lbo >> 4 << 16 | sbo >> 4 << 32
        return fields | _LAYOUTS[self.swizzle] << 62

    def image(self, operand: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """[..., rows, steps * 32] bytes in the order in which they lie in shared memory."""
        rows, width = operand.shape[-2:]
        row, k = np.arange(rows)[:, None], np.arange(width)
        if self.swizzle:
            place = k // self.swizzle * rows * self.swizzle + row * self.swizzle + k % self.swizzle
            place ^= (place >> 7 & self.swizzle // 16 - 1) << 4
        else:
            place = k // K_BYTES * rows * K_BYTES + row // 8 * 128 + row % 8 * 16 + k % 16
            place += k % K_BYTES // 16 * rows * 16
        result = np.empty((*operand.shape[:-2], rows * width), dtype=np.uint8)
        result[..., place] = operand
        return result


_FRAME = """\
.version 8.6
.target sm_90a
.address_size 64

.extern .shared .align 1024 .b8 memory[];

.visible .entry program(.param .align 64 .b8 arguments[320])
{{
    .reg .pred p, keeps, always;
    .reg .b32 thread, block, groups, flag, c_at, at, to, x, y, z, w;
    .reg .b64 in, out, c, from, start, desc_a, desc_b;
    .reg .f32 acc<{num_registers}>;

    ld.param.u64 in, [arguments];
    ld.param.u64 out, [arguments+8];
    ld.param.u32 groups, [arguments+16];
    ld.param.u32 flag, [arguments+20];
    ld.param.u32 c_at, [arguments+24];
    setp.ne.u32 keeps, flag, 0;
    setp.eq.u32 always, flag, flag;
    mov.u32 thread, %tid.x;
    mov.u32 block, %ctaid.x;
    mad.lo.s32 at, block, 128, thread;
    cvt.u64.u32 c, c_at;
    add.s64 c, c, in;
    mad.wide.u32 c, at, {row_bytes}, c;
    mad.wide.u32 out, at, {row_bytes}, out;
    mul.lo.s32 at, block, groups;
    mul.wide.u32 from, at, {group_bytes};
    add.s64 in, in, from;
    mov.u32 at, memory;
    and.b32 at, at, 0x3FFFF;
    shr.u32 at, at, 4;
    cvt.u64.u32 start, at;
{load}

GROUP:
    shl.b32 at, thread, 4;
COPY:
    setp.ge.u32 p, at, {group_bytes};
    @p bra COPIED;
    cvt.u64.u32 from, at;
    add.s64 from, in, from;
    ld.global.v4.b32 {{x, y, z, w}}, [from];
    mov.u32 to, memory;
    add.s32 to, to, at;
    st.shared.v4.b32 [to], {{x, y, z, w}};
    add.s32 at, at, 2048;
    bra COPY;
COPIED:
    fence.proxy.async.shared::cta;
    bar.sync 0;
    wgmma.fence.sync.aligned;
{multiply}
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 0;
    bar.sync 0;
    setp.eq.u32 keeps, thread, thread;
    add.s64 in, in, {group_bytes};
    sub.s32 groups, groups, 1;
    setp.ne.u32 p, groups, 0;
    @p bra GROUP;

{store}
    ret;
}}
"""


def text(shape: Shape) -> str:
    """The program; its numbers: instructions divided by `steps`, whether C counts, where C is."""
    num_registers = shape.n // 2
    accumulators = [f"acc{i}" for i in range(num_registers)]
    quads = [", ".join(accumulators[i : i + 4]) for i in range(0, num_registers, 4)]
    load = "\n".join(
        f"    ld.global.v4.f32 {{{quad}}}, [c+{16 * i}];" for i, quad in enumerate(quads)
    )
    store = "\n".join(
        f"    st.global.v4.f32 [out+{16 * i}], {{{quad}}};" for i, quad in enumerate(quads)
    )
    multiply = "\n".join(_multiply(shape, ", ".join(accumulators), i) for i in range(shape.steps))
    return _FRAME.format(
        num_registers=num_registers,
        row_bytes=4 * num_registers,
        group_bytes=shape.group_bytes,
        load=load,
        multiply=multiply,
        store=store,
    )


def _multiply(shape: Shape, accumulators: str, step: int) -> str:
    b_start = M * K_BYTES * shape.steps
    scale_d = "always" if step else "keeps"
    return f"""\
    add.s64 desc_a, start, {shape.descriptor(M, 0, step):#x};
    add.s64 desc_b, start, {shape.descriptor(shape.n, b_start, step):#x};
    wgmma.mma_async.sync.aligned.m64n{shape.n}k{shape.k}.f32.{shape.types}
        {{{accumulators}}}, desc_a, desc_b, {scale_d}, {shape.flags};"""


def fragments(c: NDArray[np.float32]) -> NDArray[np.float32]:
    """[..., 64, n] as [..., 128 threads, n / 2 registers]."""
    thread = np.arange(128)[:, None]
    register = np.arange(c.shape[-1] // 2)
    row = thread // 32 * 16 + thread % 32 // 4 + register // 2 % 2 * 8
    column = register // 4 * 8 + thread % 4 * 2 + register % 2
    return c[..., row, column]


def launch(shape: Shape, operands: Operands) -> Launch:
    """One CTA per problem of the operands."""
    a, b, c = operands.a, operands.b, operands.c
    num_problems, _, k_bytes = a.shape
    width = K_BYTES * shape.steps
    groups = k_bytes // width
    images = [
        shape.image(operand.reshape(num_problems, -1, groups, width).swapaxes(1, 2))
        for operand in (a, b)
    ]
    operand_bytes = as_bytes(np.concatenate(images, axis=-1))
    begin = np.zeros((num_problems, M, shape.n), dtype=np.float32) if c is None else c
    return Launch(
        ptx=text(shape),
        inputs=as_bytes(operand_bytes, fragments(begin)),
        output_bytes=4 * M * shape.n * num_problems,
        num_ctas=num_problems,
        num_threads=128,
        smem_bytes=shape.group_bytes,
        numbers=(groups, c is not None, operand_bytes.size),
    )


def _case(
    name: str, shape: Shape, family: Family, length: int, num: int, awaits: str = ""
) -> ProgramCase:
    """A chain of `length` instructions on `num` problems of one family."""

    def make() -> Launch:
        return launch(shape, family(num, shape.n, length * K_BYTES))

    return ProgramCase(f"wgmma/{name}", make, awaits)


def _cases() -> list[ProgramCase]:
    one, chain = Shape(steps=1, swizzle=32), Shape()
    cases = [_case(f"{name}-1", one, family, 1, 4) for name, family in FAMILIES.items()]
    cases += [
        _case(f"{name}-{length}", chain, FAMILIES[name], length, 2)
        for length in (4, 16, 128)
        for name in ("any", "cancelling", "one_huge", "growing", "denormal", "c_near")
    ]
    for n in (16, 96, 128, 256):
        cases.append(_case(f"n{n}-4", Shape(n=n), FAMILIES["c_near"], 4, 1))
    for swizzle in (0, 32, 64):
        shape = Shape(n=24, swizzle=swizzle)
        cases.append(_case(f"swizzle{swizzle}-8", shape, FAMILIES["any"], 8, 1))
    negated = "WGMMA that negates an operand"
    cases.append(_case("minus_a-4", Shape(flags="-1, 1"), FAMILIES["c_near"], 4, 1, negated))
    cases.append(_case("minus_b-4", Shape(flags="1, -1"), FAMILIES["c_near"], 4, 1, negated))
    others: list[tuple[str, Shape, Callable[..., Operands]]] = [
        ("e5m2", Shape(types="e5m2.e5m2"), e5m2_values),
        ("e4m3_e5m2", Shape(types="e4m3.e5m2"), FAMILIES["any"]),
        ("bf16", Shape(types="bf16.bf16", k=16, flags="1, 1, 0, 0"), bf16_values),
        ("f16", Shape(types="f16.f16", k=16, flags="1, 1, 0, 0"), f16_values),
    ]
    for name, shape, family in others:
        for length in (4, 16):
            cases.append(_case(f"{name}-{length}", shape, family, length, 1, f"WGMMA of {name}"))
    return cases


CASES = _cases()
