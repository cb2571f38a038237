"""tcgen05.mma and tcgen05.cp on operands that are laid out by hand, byte by byte.

Operands are put into shared memory as TMA would: boxes of a swizzle's width, each box dense, then
swizzled bit by bit. What comes out is compared with integer products.
"""

from __future__ import annotations

import numpy as np
import pytest

from deep_gemm.emulator.float_formats import BF16, E4M3, E5M2, FP16, Format
from tests.emulator.tensor_programs import (
    AFTER,
    BEFORE,
    BEGIN,
    DATA_BYTES,
    ORDERS,
    Order,
    allocate,
    commit,
    end,
    fill,
    load,
    run,
    show,
    wait,
    words,
)
from tests.emulator.test_wgmma import tma_address

AT = 2048
"""Offset of %at: the program's shared memory begins at 1024, its data 1024 behind."""

B_AT, SFA_AT, SFB_AT = 16384, 32768, 33280
LAYOUT_CODES = {0: 0, 32: 6, 64: 4, 128: 2}
TYPE_CODES = {"f16": {FP16: 0, BF16: 1}, "f8f6f4": {E4M3: 0, E5M2: 1}}
READ = f"{wait()} {AFTER}"


def place(
    memory: np.ndarray, base: int, values: np.ndarray, of: Format, swizzle: int, mn_major: bool
) -> tuple[int, int]:
    """Puts an operand [mn, 32 bytes of k] into memory; returns LBO and SBO of its descriptor.

    K-major boxes are 32 bytes of k wide, or 16 without a swizzle; those of a wider swizzle are
    filled to a quarter or a half.
    """
    size = of.bits // 8
    data = np.ascontiguousarray(of.encode(values.astype(np.float32)))
    width = swizzle or 16
    rows, k = values.shape
    outer, inner = (k, rows) if mn_major else (rows, k)
    num_lines = outer if mn_major else rows
    for i in range(outer):
        for j in range(inner):
            code = data[j, i] if mn_major else data[i, j]
            box, within = divmod(j * size, width)
            dense = base + AT + box * num_lines * width + i * width + within
            at = tma_address(dense, swizzle) - AT
            memory[at : at + size] = np.array([code]).view(np.uint8)
    if not mn_major:
        return (0 if swizzle else num_lines * 16), 8 * width
    if swizzle:
        return num_lines * width, 8 * width
    # Without a swizzle LBO leads to the next 8 of k, SBO to the next 16 bytes of MN.
    return 128, num_lines * 16


def descriptor(start: int, lbo: int, sbo: int, swizzle: int) -> int:
    high = LAYOUT_CODES[swizzle] << 29 | 1 << 14 | sbo >> 4
    return high << 32 | (lbo >> 4) << 16 | (start + AT) >> 4


def instruction(
    kind: str, of_a: Format, of_b: Format, m: int, n: int, a_mn: bool, b_mn: bool
) -> int:
    codes = TYPE_CODES[kind]
    return (
        1 << 4
        | codes[of_a] << 7
        | codes[of_b] << 10
        | a_mn << 15
        | b_mn << 16
        | (n >> 3) << 17
        | (m >> 4) << 24
    )


def mma(kind: str, a: int, b: int, idesc: int, more: str = "", keeps: int = 0, d: str = "") -> str:
    return f"""
    mov.b64 %rd10, {a}; mov.b64 %rd11, {b}; mov.u32 %r20, {idesc};
    setp.ne.u32 %p6, {keeps}, 0;
    @%issues tcgen05.mma.cta_group::1.kind::{kind} [{d or "%tmem"}], %rd10, %rd11, %r20{more}, %p6;
    """


def integers(shape: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-4, 5, shape)


def product(
    kind: str,
    of_a: Format,
    of_b: Format,
    m: int,
    n: int,
    swizzles: tuple[int, int],
    majors: tuple[bool, bool],
    order: Order,
) -> None:
    k = 256 // of_a.bits
    a, b = integers((m, k), m + n), integers((n, k), m + n + 1)
    memory = np.zeros(DATA_BYTES, dtype=np.uint8)
    of = zip((0, B_AT), (a, b), (of_a, of_b), swizzles, majors, strict=True)
    descriptors = [
        descriptor(at, *place(memory, at, values, form, swizzle, major), swizzle)
        for at, values, form, swizzle, major in of
    ]
    body = f"""
    {BEGIN} {allocate()} {fill(DATA_BYTES)}
    {mma(kind, *descriptors, instruction(kind, of_a, of_b, m, n, *majors))}
    {commit()} {READ} {load(1 << (n - 1).bit_length())} tcgen05.wait::ld.sync.aligned;
    and.b32 %r9, %tid, {16 if m == 64 else 0}; setp.ne.u32 %p4, %r9, 0; @%p4 bra AWAY;
    {show(n)} AWAY: {end()}
    """
    out = run(body, memory, order=order).view(np.float32)[: 128 * n].reshape(128, n)
    # M = 64: 16 rows in each quarter of the lanes.
    rows = np.arange(128) if m == 128 else np.arange(64) // 16 * 32 + np.arange(64) % 16
    np.testing.assert_array_equal(out[rows], a @ b.T)


@pytest.mark.parametrize("swizzle", [0, 32, 64, 128])
@pytest.mark.parametrize("majors", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("of", [E4M3, BF16], ids=["e4m3", "bf16"])
def test_layouts(of: Format, majors: tuple[bool, bool], swizzle: int) -> None:
    kind = "f16" if of is BF16 else "f8f6f4"
    # A tile has to fill the swizzle's width along MN.
    n = max(16, swizzle * 8 // of.bits)
    product(kind, of, of, 128, n, (swizzle, swizzle), majors, ORDERS[0])


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("m", [64, 128])
@pytest.mark.parametrize(
    ("kind", "of_a", "of_b"),
    [("f8f6f4", E4M3, E5M2), ("f8f6f4", E5M2, E4M3), ("f16", FP16, FP16), ("f16", BF16, FP16)],
)
def test_types_and_rows(kind: str, of_a: Format, of_b: Format, m: int, order: Order) -> None:
    product(kind, of_a, of_b, m, 24, (32, 0), (False, False), order)


def test_worked_instruction_descriptors() -> None:
    """Values that were worked out from the tables of fields, as in the hardware sheet."""
    assert instruction("f8f6f4", E4M3, E4M3, 128, 128, False, False) == 0x08200010
    assert instruction("f16", BF16, BF16, 256, 128, False, False) == 0x10200490


SCALES = np.random.default_rng(9).integers(120, 135, (2, 128, 4), dtype=np.uint8)
"""Of A and B: row, byte of the word."""


def scale_words(scales: np.ndarray) -> np.ndarray:
    """[32 lanes, 4 columns]: row r is in lane r % 32, column r / 32."""
    return np.ascontiguousarray(scales).view(np.uint32).reshape(4, 32).T.copy()


STORE_SCALES = """
and.b32 %r2, %tid, 31;
mul.wide.u32 %rd2, %r2, 16;
add.u64 %rd3, %in, %rd2;
ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd3+32768];
ld.global.v4.u32 {%r10, %r11, %r12, %r13}, [%rd3+33280];
add.u32 %r14, %own, 128;
add.u32 %r15, %own, 132;
tcgen05.st.sync.aligned.32x32b.x4.b32 [%r14], {%r3, %r4, %r5, %r6};
tcgen05.st.sync.aligned.32x32b.x4.b32 [%r15], {%r10, %r11, %r12, %r13};
tcgen05.wait::st.sync.aligned;
"""
HAND_OVER = f"{BEFORE} bar.sync 0; {AFTER}"
# The warps copy 512 bytes each; one block of 512 bytes has the scale factors of 128 rows.
COPY_SCALES = """
add.u32 %r14, %tmem, 128;
add.u32 %r15, %tmem, 132;
mov.b64 %rd12, SFA;
mov.b64 %rd13, SFB;
@%issues tcgen05.cp.cta_group::1.32x128b.warpx4 [%r14], %rd12;
@%issues tcgen05.cp.cta_group::1.32x128b.warpx4 [%r15], %rd13;
""".replace("SFA", str(descriptor(SFA_AT, 0, 128, 0))).replace(
    "SFB", str(descriptor(SFB_AT, 0, 128, 0))
)


def scaled_program(n: int, ids: tuple[int, int]) -> tuple[np.ndarray, str, np.ndarray]:
    """What is in global memory, the mma of a scaled product, and the product."""
    a, b = integers((128, 32), 1), integers((n, 32), 2)
    memory = np.zeros(DATA_BYTES, dtype=np.uint8)
    descriptors = [
        descriptor(at, *place(memory, at, values, E4M3, 32, False), 32)
        for at, values in ((0, a), (B_AT, b))
    ]
    for at, scales in zip((SFA_AT, SFB_AT), SCALES, strict=True):
        memory[at : at + 512] = scale_words(scales).view(np.uint8).reshape(-1)
    idesc = ids[1] << 4 | (n >> 3) << 17 | 1 << 23 | 1 << 27 | ids[0] << 29
    factors = np.exp2(SCALES.astype(np.float64) - 127)
    expected = (a @ b.T) * factors[0, :, ids[0], None] * factors[1, :n, ids[1]]
    text = mma("mxf8f6f4.block_scale.scale_vec::1X", *descriptors, idesc, more=", [%r14], [%r15]")
    return memory, text, expected


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("ids", [(0, 0), (2, 3), (3, 1)])
@pytest.mark.parametrize("how", ["st", "cp"])
def test_scale_factors(how: str, ids: tuple[int, int], order: Order) -> None:
    memory, text, expected = scaled_program(80, ids)
    scales = f"{STORE_SCALES} {HAND_OVER}" if how == "st" else COPY_SCALES
    body = f"""
    {BEGIN} {allocate()} {fill(DATA_BYTES)} {scales} {text} {commit()} {READ}
    {load(128)} tcgen05.wait::ld.sync.aligned; {show(80)} {end()}
    """
    out = run(body, memory, order=order).view(np.float32)[: 128 * 80].reshape(128, 80)
    np.testing.assert_array_equal(out, expected)


def test_a_scaled_instruction_as_in_the_hardware_sheet() -> None:
    _, text, _ = scaled_program(128, (2, 3))
    # M = 256 there, which is bits 27 and 28.
    assert f"mov.u32 %r20, {0x50A00030 ^ 3 << 27};" in text


COPIED = {
    # Row of the source -> lanes of tensor memory, from the ISA's words; and bytes of a row.
    "128x256b": (128, 32, lambda row: [row]),
    "128x128b": (128, 16, lambda row: [row]),
    "4x256b": (4, 32, lambda row: [32 * row]),
    "64x128b.warpx2::02_13": (64, 16, lambda row: [row, row + 64]),
    "64x128b.warpx2::01_23": (
        64,
        16,
        lambda row: [row, row + 32] if row < 32 else [row + 32, row + 64],
    ),
    "32x128b.warpx4": (32, 16, lambda row: [row, row + 32, row + 64, row + 96]),
}


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("swizzle", [0, 128])
@pytest.mark.parametrize("shape", COPIED)
def test_copies(shape: str, swizzle: int, order: Order) -> None:
    rows, row_bytes, lanes_of = COPIED[shape]
    tile = np.arange(rows * row_bytes // 4, dtype=np.uint32).reshape(rows, -1)
    memory = np.zeros(DATA_BYTES, dtype=np.uint8)
    data, width = tile.view(np.uint8).reshape(rows, row_bytes), swizzle or 16
    for row in range(rows):
        for byte in range(row_bytes):
            box, within = divmod(byte, width)
            dense = AT + box * rows * width + row * width + within
            memory[tma_address(dense, swizzle) - AT] = data[row, byte]
    desc = descriptor(0, 0 if swizzle else rows * 16, 8 * width, swizzle)
    columns = row_bytes // 4
    # Cells that nothing is copied to keep what was stored.
    zeros = " ".join(f"mov.u32 %word{i}, 0xabcd;" for i in range(columns))
    store = f"tcgen05.st.sync.aligned.32x32b.x{columns}.b32 [%own], {words(columns)};"
    body = f"""
    {BEGIN} {allocate()} {fill(DATA_BYTES)} {zeros} {store} tcgen05.wait::st.sync.aligned;
    {HAND_OVER}
    mov.b64 %rd12, {desc};
    @%issues tcgen05.cp.cta_group::1.{shape} [%tmem], %rd12;
    {commit()} {READ} {load(columns)} tcgen05.wait::ld.sync.aligned; {show(columns)} {end()}
    """
    out = run(body, memory, order=order)[: 128 * columns].reshape(128, columns)
    expected = np.full((128, columns), 0xABCD, dtype=np.uint32)
    for row in range(rows):
        expected[lanes_of(row)] = tile[row]
    np.testing.assert_array_equal(out, expected)


def test_lanes_that_are_disabled() -> None:
    """Bit i of the four words is lane i, which then keeps its old value."""
    memory = np.zeros(DATA_BYTES, dtype=np.uint8)
    a, b = integers((128, 32), 3), integers((16, 32), 4)
    descriptors = [
        descriptor(at, *place(memory, at, values, E4M3, 32, False), 32)
        for at, values in ((0, a), (B_AT, b))
    ]
    idesc = instruction("f8f6f4", E4M3, E4M3, 128, 16, False, False)
    masks = [0x00000001, 0x80000000, 0, 0xFFFFFFFF]
    regs = " ".join(f"mov.u32 %r{30 + i}, {mask:#x};" for i, mask in enumerate(masks))
    zeros = " ".join(f"mov.u32 %word{i}, 0;" for i in range(16))
    store = f"tcgen05.st.sync.aligned.32x32b.x16.b32 [%own], {words(16)};"
    body = f"""
    {BEGIN} {allocate()} {fill(DATA_BYTES)} {zeros} {store} tcgen05.wait::st.sync.aligned;
    {HAND_OVER} {regs}
    {mma("f8f6f4", *descriptors, idesc, more=", {%r30, %r31, %r32, %r33}")}
    {commit()} {READ} {load(16)} tcgen05.wait::ld.sync.aligned; {show(16)} {end()}
    """
    out = run(body, memory).view(np.float32)[: 128 * 16].reshape(128, 16)
    disabled = [0, 63, *range(96, 128)]
    expected = (a @ b.T).astype(np.float32)
    expected[disabled] = 0
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_a_chain_adds_up_and_signs_are_flipped(order: Order) -> None:
    memory = np.zeros(DATA_BYTES, dtype=np.uint8)
    a, b = integers((128, 32), 5), integers((16, 32), 6)
    descriptors = [
        descriptor(at, *place(memory, at, values, E4M3, 32, False), 32)
        for at, values in ((0, a), (B_AT, b))
    ]
    idesc = instruction("f8f6f4", E4M3, E4M3, 128, 16, False, False)
    body = f"""
    {BEGIN} {allocate()} {fill(DATA_BYTES)}
    {mma("f8f6f4", *descriptors, idesc)} {mma("f8f6f4", *descriptors, idesc, keeps=1)}
    {mma("f8f6f4", *descriptors, idesc | 1 << 13, keeps=1)}
    {mma("f8f6f4", *descriptors, idesc | 3 << 13, keeps=1)}
    {mma("f8f6f4", *descriptors, idesc, keeps=1)}
    {commit()} {READ} {load(16)} tcgen05.wait::ld.sync.aligned; {show(16)} {end()}
    """
    out = run(body, memory, order=order).view(np.float32)[: 128 * 16].reshape(128, 16)
    np.testing.assert_array_equal(out, 3 * (a @ b.T))


def test_rows_that_were_never_written_stay_undefined() -> None:
    """Only what depends on them: DeepGEMM multiplies rows beyond its tile."""
    memory = np.zeros(DATA_BYTES, dtype=np.uint8)
    a, b = integers((128, 32), 7), integers((16, 32), 8)
    place(memory, 0, a, E4M3, 32, False)
    place(memory, 1024, b, E4M3, 32, False)
    # B from 1024 on, over the rows of A from 32 on, and nothing behind 2048.
    desc_a, desc_b = descriptor(0, 0, 256, 32), descriptor(1024, 0, 256, 32)
    idesc = instruction("f8f6f4", E4M3, E4M3, 128, 16, False, False)
    body = f"""
    {BEGIN} {allocate()} {fill(2048)} {mma("f8f6f4", desc_a, desc_b, idesc)}
    {commit()} {READ} {load(16)} tcgen05.wait::ld.sync.aligned;
    setp.ge.u32 %p4, %tid, LIMIT; @%p4 bra AWAY; {show(16)} AWAY: {end()}
    """
    out = run(body.replace("LIMIT", "32"), memory).view(np.float32)[: 32 * 16].reshape(32, 16)
    np.testing.assert_array_equal(out, a[:32] @ b.T)
    with pytest.raises(Exception, match="^R26"):
        run(body.replace("LIMIT", "128"), memory)
