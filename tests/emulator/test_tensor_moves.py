"""tcgen05.ld and tcgen05.st, by drawings of who has what; allocation.

A drawing has lines "row: lane.register ...", from column 0 on. It is of .x1; .x2 has the same again
to the right of it, in the next registers. The rows that are not drawn follow from the others: rows
1 to 7 are row 0 with 4 more to each lane, and the lower eight are drawn by themselves.
"""

from __future__ import annotations

import numpy as np
import pytest

from deep_gemm.emulator.errors import HazardError, UnknownOpcodeError
from tests.emulator.tensor_programs import (
    AFTER,
    BEFORE,
    BEGIN,
    ORDERS,
    Order,
    allocate,
    end,
    load,
    run,
    show,
    words,
)

DRAWINGS = {
    "16x64b": """
        0: 0.0 2.0
        1: 4.0 6.0
        7: 28.0 30.0
        8: 1.0 3.0
        9: 5.0 7.0
        15: 29.0 31.0
    """,
    "16x128b": """
        0: 0.0 1.0 2.0 3.0
        1: 4.0 5.0 6.0 7.0
        7: 28.0 29.0 30.0 31.0
        8: 0.1 1.1 2.1 3.1
        9: 4.1 5.1 6.1 7.1
        15: 28.1 29.1 30.1 31.1
    """,
    "16x256b": """
        0: 0.0 0.1 1.0 1.1 2.0 2.1 3.0 3.1
        1: 4.0 4.1 5.0 5.1 6.0 6.1 7.0 7.1
        7: 28.0 28.1 29.0 29.1 30.0 30.1 31.0 31.1
        8: 0.2 0.3 1.2 1.3 2.2 2.3 3.2 3.3
        9: 4.2 4.3 5.2 5.3 6.2 6.3 7.2 7.3
        15: 28.2 28.3 29.2 29.3 30.2 30.3 31.2 31.3
    """,
    "32x32b": """
        0: 0.0
        1: 1.0
        15: 15.0
        16: 16.0
        31: 31.0
    """,
}
REGISTERS = {"16x64b": 1, "16x128b": 2, "16x256b": 4, "32x32b": 1}
WIDTHS = {"16x64b": 2, "16x128b": 4, "16x256b": 8, "32x32b": 1}
COLUMNS = 16

# Thread t puts 256 t + c into column c of its lane.
FILL = f"""
{" ".join(f"mad.lo.u32 %word{c}, %tid, 256, {c};" for c in range(COLUMNS))}
tcgen05.st.sync.aligned.32x32b.x{COLUMNS}.b32 [%own], {words(COLUMNS)};
tcgen05.wait::st.sync.aligned;
"""
UNWAITED = FILL.replace("tcgen05.wait::st.sync.aligned;", "")
WAIT = "tcgen05.wait::ld.sync.aligned;"


def drawn(shape: str, times: int) -> list[tuple[int, int, int, int]]:
    """(row, column, lane, register) of all that is drawn."""
    found = []
    for line in DRAWINGS[shape].split("\n"):
        row, _, cells = line.partition(":")
        for column, cell in enumerate(cells.split()):
            lane, register = (int(part) for part in cell.split("."))
            for i in range(times):
                at = int(row), column + i * WIDTHS[shape]
                found.append((*at, lane, register + i * REGISTERS[shape]))
    return found


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("shape", DRAWINGS)
def test_loads_have_what_is_drawn(shape: str, times: int, order: Order) -> None:
    count = times * REGISTERS[shape]
    body = f"{BEGIN} {allocate()} {FILL} {load(count, shape=shape, times=times)} {WAIT}"
    out = run(f"{body} {show(count)} {end()}", order=order)[: 128 * count].reshape(4, 32, count)
    for warp in range(4):
        for row, column, lane, register in drawn(shape, times):
            assert out[warp, lane, register] == 256 * (32 * warp + row) + column


@pytest.mark.parametrize("shape", ["16x64b", "16x128b", "16x256b"])
def test_the_lower_half_of_the_lanes(shape: str) -> None:
    count = REGISTERS[shape]
    body = f"{BEGIN} {allocate()} {FILL} add.u32 %r9, %own, 0x100000;"
    body = f"{body} {load(count, '%r9', shape, 1)} {WAIT} {show(count)} {end()}"
    out = run(body)[: 128 * count].reshape(4, 32, count)
    for row, column, lane, register in drawn(shape, 1):
        assert (out[:, lane, register] == 256 * (32 * np.arange(4) + 16 + row) + column).all()


@pytest.mark.parametrize("shape", ["16x64b", "16x128b", "16x256b"])
def test_stores_put_what_is_drawn(shape: str) -> None:
    """Register r of thread t has 1000 r + t."""
    count = REGISTERS[shape]
    values = " ".join(f"add.u32 %word{r}, %tid, {1000 * r};" for r in range(count))
    store = f"tcgen05.st.sync.aligned.{shape}.x1.b32 [%own], {words(count)};"
    body = f"{BEGIN} {allocate()} {FILL} {values} {store} tcgen05.wait::st.sync.aligned;"
    out = run(f"{body} {load(COLUMNS)} {WAIT} {show(COLUMNS)} {end()}")
    cells = out[: 128 * COLUMNS].reshape(4, 32, COLUMNS)
    for warp in range(4):
        for row, column, lane, register in drawn(shape, 1):
            assert cells[warp, row, column] == 1000 * register + 32 * warp + lane
    # The rest is as it was.
    assert cells[2, 20, 3] == 256 * (64 + 20) + 3
    assert cells[1, 3, WIDTHS[shape]] == 256 * (32 + 3) + WIDTHS[shape]


def test_two_halves() -> None:
    """16x32bx2: lanes 0 to 15 from column 0, lanes 16 to 31 of the same rows from column 5."""
    text = f"tcgen05.ld.sync.aligned.16x32bx2.x2.b32 {words(2)}, [%own], 5;"
    out = run(f"{BEGIN} {allocate()} {FILL} {text} {WAIT} {show(2)} {end()}")
    out = out[:256].reshape(4, 32, 2)
    assert out[1, 7].tolist() == [256 * 39, 256 * 39 + 1]
    assert out[1, 16 + 7].tolist() == [256 * 39 + 5, 256 * 39 + 6]


def test_pairs_of_16_bits() -> None:
    pack = f"tcgen05.ld.sync.aligned.32x32b.x2.pack::16b.b32 {words(2)}, [%own];"
    out = run(f"{BEGIN} {allocate()} {FILL} {pack} {WAIT} {show(2)} {end()}")
    lane = 256 * 37
    expected = [lane | (lane + 1) << 16, lane + 2 | (lane + 3) << 16]
    assert out[2 * 37 : 2 * 37 + 2].tolist() == expected
    unpack = "mov.u32 %word0, 0x12345678; mov.u32 %word1, 0x9abcdef0;"
    unpack += f"tcgen05.st.sync.aligned.32x32b.x2.unpack::16b.b32 [%own], {words(2)};"
    unpack += "tcgen05.wait::st.sync.aligned;"
    out = run(f"{BEGIN} {allocate()} {FILL} {unpack} {load(4)} {WAIT} {show(4)} {end()}")
    assert out[4 * 99 : 4 * 99 + 4].tolist() == [0x5678, 0x1234, 0xDEF0, 0x9ABC]


def test_what_was_never_written_is_undefined() -> None:
    body = f"{BEGIN} {allocate()} {load(1)} {WAIT}"
    assert (run(f"{body} {end()}") == 0xFFFFFFFF).all()
    with pytest.raises(HazardError, match="^R26: .*other access: .*tcgen05.ld"):
        run(f"{body} {show(1)} {end()}")


MISTAKES = {
    "lanes of another warp": (f"add.u32 %r9, %own, 0x200000; {load(1, '%r9')}", "R20"),
    "a lane within the quarter": (f"add.u32 %r9, %own, 0x010000; {load(1, '%r9')}", "R20"),
    "the lower half of 32x32b": (f"add.u32 %r9, %own, 0x100000; {load(1, '%r9')}", "R20"),
    "beyond the last column": (f"add.u32 %r9, %own, 511; {load(2, '%r9')}", "R20"),
    "addresses that differ": (f"add.u32 %r9, %own, %tid; {load(1, '%r9')}", "R8"),
    "a part of a warp": (f"and.b32 %r9, %tid, 1; setp.eq.u32 %p4, %r9, 0; @%p4 {load(1)}", "R8"),
    "stored and loaded without a wait": (UNWAITED, "R21"),
    "stored twice without a wait": (f"{UNWAITED} {FILL}", "R24"),
    "loaded and stored without a wait": (f"{load(1)} {FILL}", "R22"),
}


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes(name: str, order: Order) -> None:
    text, rule = MISTAKES[name]
    body = f"{BEGIN} {allocate()} {text} {load(1)} {WAIT} {end()}"
    with pytest.raises(HazardError, match=f"^{rule}: "):
        run(body, order=order)


def test_zero_stands_for_the_own_quarter() -> None:
    out = run(f"{BEGIN} {allocate()} {FILL} {load(1, '%tmem')} {WAIT} {show(1)} {end()}")
    assert (out[:128] == 256 * np.arange(128)).all()


ALLOCATE = "@%allocates tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%full+16],"
FREE = "@%allocates tcgen05.dealloc.cta_group::1.sync.aligned.b32"
PERMIT = "@%allocates tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;"


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (f"{ALLOCATE} 48; ret;", "R19"),
        (f"{ALLOCATE} 16; ret;", "R19"),
        (f"{ALLOCATE} 1024; ret;", "R19"),
        (f"{ALLOCATE} 32; ret;", "R19: the CTA left"),
        (f"{allocate(64)} {FREE} %tmem, 32; ret;", "R19"),
        (f"{allocate(64)} add.u32 %r9, %tmem, 32; {FREE} %r9, 32; ret;", "R19"),
        (f"{allocate(64)} {FREE} %tmem, 64; {FREE} %tmem, 64; ret;", "R19"),
        (f"{PERMIT} {ALLOCATE} 32; ret;", "R19"),
        (f"{ALLOCATE} 32; {ALLOCATE} 64; ret;", "R19"),
        (f"{ALLOCATE} 512; {ALLOCATE} 32; ret;", "R11: deadlock.*\n.*tcgen05.alloc of 32 columns"),
        (f"{allocate(32)} add.u32 %r9, %own, 32; {load(1, '%r9')} {WAIT} {end(32)}", "R19"),
        (f"{load(1)} {WAIT} ret;", "R19: column 0 .* is not allocated"),
        (f"{ALLOCATE.replace('::1', '::2')} 32; ret;", "R34"),
        (
            f"{allocate(32)} {FILL} {load(1)} bar.sync 0; {FREE} %tmem, 32; {WAIT} ret;",
            "R19: a thread writes .*which a tcgen05.ld reads",
        ),
    ],
)
def test_wrong_allocations(body: str, rule: str) -> None:
    with pytest.raises(HazardError, match=f"^{rule}"):
        run(f"{BEGIN} mov.u32 %tmem, 0; mov.u32 %own, 0; {body}")


def test_freeing_takes_no_fences() -> None:
    body = f"{BEGIN} {allocate(32)} {FILL} {load(1)} {WAIT} bar.sync 0; {FREE} %tmem, 32; ret;"
    run(body)


def test_what_is_allocated_again_is_undefined() -> None:
    body = f"{BEGIN} {allocate(32)} {FILL} bar.sync 0; {FREE} %tmem, 32; {allocate(32)}"
    run(f"{body} {load(1)} {WAIT} {end(32)}")
    with pytest.raises(HazardError, match="^R26"):
        run(f"{body} {load(1)} {WAIT} {show(1)} {end(32)}")


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_an_allocation_waits_for_columns(order: Order) -> None:
    """Warp 1 wants what warp 0 has, and gets it once warp 0 gives it back."""
    body = f"""
    {BEGIN}
    mov.u32 %tmem, 0;
    shr.u32 %r1, %tid, 5;
    setp.eq.u32 %p4, %r1, 0;
    setp.eq.u32 %p5, %r1, 1;
    bar.sync 0;
    @%p4 bra FIRST;
    @!%p5 bra DONE;
    bar.sync 1, 64;
    tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%full+24], 512;
    ld.shared.u32 %word0, [%full+24];
    tcgen05.dealloc.cta_group::1.sync.aligned.b32 %word0, 512;
    bra DONE;
    FIRST:
    tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%full+16], 512;
    bar.sync 1, 64;
    ld.shared.u32 %word0, [%full+16];
    tcgen05.dealloc.cta_group::1.sync.aligned.b32 %word0, 512;
    DONE: ret;
    """
    run(body, order=order)


@pytest.mark.parametrize(
    "text",
    [
        f"tcgen05.ld.sync.aligned.16x32b.x1.b32 {words(1)}, [%own];",
        f"tcgen05.ld.sync.aligned.32x32b.x2.b32 {words(1)}, [%own];",
        f"tcgen05.ld.sync.aligned.32x32b.x3.b32 {words(3)}, [%own];",
        f"tcgen05.st.sync.aligned.32x32b.x1.pack::16b.b32 [%own], {words(1)};",
        "tcgen05.shift.cta_group::1.down [%own];",
    ],
)
def test_unknown_forms(text: str) -> None:
    with pytest.raises(UnknownOpcodeError, match=r"line \d+"):
        run(f"{BEGIN} mov.u32 %own, 0; {text} {AFTER} {BEFORE} ret;")
