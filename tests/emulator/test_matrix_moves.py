"""ldmatrix and stmatrix against loops over lanes."""

from __future__ import annotations

import numpy as np
import pytest

from deep_gemm.emulator.errors import HazardError, UnknownOpcodeError
from deep_gemm.emulator.matrix_moves import fragments_of, rows_of
from tests.emulator.small_kernels import run

WORDS = np.random.default_rng(6).integers(0, 2**32, 4 * 32, dtype=np.uint32)
NAMES = {1: "{%r1}", 2: "{%r1, %r2}", 4: "{%r1, %r2, %r3, %r4}"}

# Lane l's row is the one with number 31 - l, so that the order of the addresses matters.
ROWS = "sub.u32 %r8, 31, %tid; shl.b32 %r8, %r8, 4; add.u32 %r8, %r8, %at;"


def expected_registers(count: int, transposed: bool) -> list[list[int]]:
    """What each register holds, by lane: of matrices whose row i is row 31 - i of the memory."""
    elements = WORDS.view(np.uint16).reshape(32, 8)[::-1].reshape(4, 8, 8)
    registers = []
    for matrix in elements[:count]:
        lanes = []
        for lane in range(32):
            pair = [
                matrix[2 * (lane % 4) + i, lane // 4]
                if transposed
                else matrix[lane // 4, 2 * (lane % 4) + i]
                for i in range(2)
            ]
            lanes.append(int(pair[0]) | int(pair[1]) << 16)
        registers.append(lanes)
    return registers


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", NAMES)
def test_ldmatrix(count: int, transposed: bool) -> None:
    trans = ".trans" if transposed else ""
    loads = "".join(
        f"ld.global.u32 %r5, [%rd2+{128 * i}]; st.shared.u32 [%r9+{128 * i}], %r5;"
        for i in range(4)
    )
    stores = "".join(f"st.global.u32 [%mine+{128 * i}], %r{i + 1};" for i in range(count))
    body = f"""
    add.u64 %rd2, %in, %rd0;
    shl.b32 %r9, %tid, 2;
    add.u32 %r9, %r9, %at;
    {loads}
    {ROWS}
    ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {NAMES[count]}, [%r8];
    {stores}
    ret;
    """
    out = run(body, WORDS)
    got = out[: 32 * count].reshape(count, 32).tolist()
    assert got == expected_registers(count, transposed)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", NAMES)
def test_stmatrix(count: int, transposed: bool) -> None:
    """The inverse: registers as ldmatrix would have filled them go back to where they were."""
    registers = np.array(expected_registers(count, transposed), dtype=np.uint32)
    loads = "".join(f"ld.global.u32 %r{i + 1}, [%rd2+{128 * i}];" for i in range(count))
    trans = ".trans" if transposed else ""
    body = f"""
    add.u64 %rd2, %in, %rd0;
    {loads}
    {ROWS}
    stmatrix.sync.aligned.x{count}.m8n8{trans}.shared::cta.b16 [%r8], {NAMES[count]};
    bar.sync 0;
    setp.lt.u32 %p1, %tid, {8 * count};
    @!%p1 ret;
    ld.shared.v4.u32 {{%r1, %r2, %r3, %r4}}, [%r8];
    mul.wide.u32 %rd3, %tid, 16;
    add.u64 %rd3, %rd3, %out;
    st.global.v4.u32 [%rd3], {{%r1, %r2, %r3, %r4}};
    ret;
    """
    out = run(body, registers)
    assert (out[: 32 * count].reshape(-1, 4) == WORDS.reshape(32, 4)[::-1][: 8 * count]).all()
    assert (out[32 * count :] == 0xFFFFFFFF).all()


@pytest.mark.parametrize("transposed", [False, True])
def test_inverses(transposed: bool) -> None:
    rows = WORDS.view(np.uint8).reshape(32, 16)
    assert (rows_of(fragments_of(rows, transposed), transposed) == rows).all()


def test_a_misaligned_row() -> None:
    with pytest.raises(HazardError, match="^alignment"):
        run("add.u32 %r8, %at, 8; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%r8]; ret;")


def test_without_all_lanes() -> None:
    body = "setp.lt.u32 %p1, %tid, 8; @%p1 ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%at];"
    with pytest.raises(HazardError, match="^R8"):
        run(f"{body} ret;")


@pytest.mark.parametrize(
    "text",
    [
        "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r1}, [%at];",
        "ldmatrix.sync.aligned.m8n16.x1.shared.b8x16.b6x16_p32 {%r1}, [%at];",
        "stmatrix.sync.aligned.m16n8.x1.trans.shared.b8 [%at], {%r1};",
    ],
)
def test_unknown_forms(text: str) -> None:
    with pytest.raises(UnknownOpcodeError, match=r"PTX line \d+"):
        run(f"{text} ret;")
