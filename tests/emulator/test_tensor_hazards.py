"""What is reported of tcgen05, beside its healthy neighbour: one program, and what is wrong in it.

The program multiplies with scale factors, reads the product, stores scale factors again, multiplies
again, and reads the sum. Each mistake leaves out or changes one thing.
"""

from __future__ import annotations

import numpy as np
import pytest

from deep_gemm.emulator.errors import EmulationError, HazardError
from tests.emulator.tensor_programs import (
    AFTER,
    BEFORE,
    BEGIN,
    DATA_BYTES,
    ORDERS,
    Order,
    allocate,
    commit,
    fill,
    load,
    run,
    show,
    wait,
)
from tests.emulator.test_umma import (
    B_AT,
    HAND_OVER,
    STORE_SCALES,
    descriptor,
    scaled_program,
)

N = 16
MEMORY, SCALED, PRODUCT = scaled_program(N, (0, 0))
SCALED_AGAIN = SCALED.replace("setp.ne.u32 %p6, 0, 0", "setp.ne.u32 %p6, 1, 0")
COLUMNS = 16

OVERWRITE = """
setp.eq.u32 %p7, %tid, 32;
@%p7 st.shared.v4.u32 [%at], {%r3, %r4, %r5, %r6};
"""
LOADED = "tcgen05.wait::ld.sync.aligned;"
STORES = """
tcgen05.st.sync.aligned.32x32b.x4.b32 [%r14], {%r3, %r4, %r5, %r6};
tcgen05.st.sync.aligned.32x32b.x4.b32 [%r15], {%r10, %r11, %r12, %r13};
tcgen05.wait::st.sync.aligned;
"""
# Pieces of the program, by name, in order.
PROGRAM = {
    "begin": BEGIN,
    "allocate": allocate(),
    "fill": fill(DATA_BYTES),
    "scales": STORE_SCALES,
    "handed over": HAND_OVER,
    "first": SCALED,
    "first committed": commit(),
    # So that what is wrong is found at the same place, whoever runs first.
    "all are there": "bar.sync 0;",
    "first waited for": wait(label="FIRST"),
    "fence behind the first": AFTER,
    "read": load(COLUMNS),
    "is read": LOADED,
    "scales again": STORES,
    "handed over again": HAND_OVER,
    "second": SCALED_AGAIN,
    "second committed": commit("%full+8"),
    "second waited for": wait("%full+8", label="SECOND"),
    "fence behind the second": AFTER,
    "read again": load(COLUMNS),
    "is read again": LOADED,
    "show": show(COLUMNS),
    "copied": "",
    "end": f"{BEFORE} bar.sync 0;",
    "freed": "@%allocates tcgen05.dealloc.cta_group::1.sync.aligned.b32 %tmem, 512; ret;",
}


def program(**changes: str) -> str:
    assert changes.keys() <= {name.replace(" ", "_") for name in PROGRAM}
    return "\n".join(changes.get(name.replace(" ", "_"), text) for name, text in PROGRAM.items())


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_the_healthy_program(order: Order) -> None:
    out = run(program(), MEMORY, order=order)
    result = out.view(np.float32)[: 128 * COLUMNS].reshape(128, COLUMNS)
    np.testing.assert_array_equal(result, 2 * PRODUCT)


OTHER_LANE = "setp.eq.u32 %p7, %tid, 1;"
WITHOUT_BEFORE = f"bar.sync 0; {AFTER}"
WITHOUT_AFTER = f"{BEFORE} bar.sync 0;"
NO_WAIT = STORE_SCALES.replace("tcgen05.wait::st.sync.aligned;", "")
# The first product of half the columns, on the same accumulator.
OTHER_SHAPE = SCALED.replace(
    f"{(16 >> 3) << 17 | 1 << 23 | 1 << 27}", f"{1 << 17 | 1 << 23 | 1 << 27}"
)
COPY = f"mov.b64 %rd12, {descriptor(B_AT, 0, 128, 0)};"
NO_COMMIT = {"first_waited_for": "", "fence_behind_the_first": ""}
FIRST_UNKNOWN = {**NO_COMMIT, "first_committed": "", "read": "", "is_read": ""}

MISTAKES: dict[str, tuple[dict[str, str], str]] = {
    "read without waiting for the commit": (NO_COMMIT, "R21"),
    "read without a fence behind the wait": ({"fence_behind_the_first": ""}, "R21"),
    "committed by another thread": (
        {"first_committed": f"{OTHER_LANE} {commit(guard='@%p7')}"},
        "R25",
    ),
    "scales handed over without a fence before": ({"handed_over": WITHOUT_BEFORE}, "R23"),
    "scales handed over without a fence after": ({"handed_over": WITHOUT_AFTER}, "R23"),
    "scales handed over without a barrier": ({"handed_over": f"{BEFORE} {AFTER}"}, "R23|R33"),
    "scales not waited for": ({"scales": NO_WAIT}, "R23"),
    "accumulated while it is read": ({"is_read": ""}, "R22"),
    "accumulated after a fence that comes too early": (
        {"is_read": f"{BEFORE} {LOADED}", "handed_over_again": WITHOUT_BEFORE},
        "R2[23]",
    ),
    "scales overwritten while a product may read them": (FIRST_UNKNOWN, "R33"),
    "scales copied over while another thread's product may read them": (
        {
            **FIRST_UNKNOWN,
            "scales_again": f"{OTHER_LANE} {COPY} setp.eq.u32 %p7, %tid, 32;"
            " add.u32 %r14, %tmem, 128;"
            " @%p7 tcgen05.cp.cta_group::1.32x128b.warpx4 [%r14], %rd12;",
        },
        "R33",
    ),
    "an operand overwritten while a product may read it": (
        {**FIRST_UNKNOWN, "scales_again": f"{OVERWRITE} fence.proxy.async.shared::cta;"},
        "R3",
    ),
    "an operand overwritten while a copy may read it": (
        {
            "copied": f"{COPY} add.u32 %r9, %tmem, 256;"
            " @%issues tcgen05.cp.cta_group::1.32x128b.warpx4 [%r9], %rd12; bar.sync 0;"
            f" add.u32 %r9, %at, {B_AT}; setp.eq.u32 %p7, %tid, 32; @%p7 st.shared.u32 [%r9], %r3;"
        },
        "R3",
    ),
    "an operand without a fence.proxy.async": (
        {"fill": PROGRAM["fill"].replace("fence.proxy.async.shared::cta;", "")},
        "R1",
    ),
    "two shapes on one accumulator": (
        {**FIRST_UNKNOWN, "scales_again": "", "first": OTHER_SHAPE},
        "R24",
    ),
    "a product by another thread, without a barrier": (
        {
            **FIRST_UNKNOWN,
            "scales_again": "",
            "handed_over_again": "",
            "second": "setp.eq.u32 %p7, %tid, 32; add.u32 %r14, %tmem, 128;"
            " add.u32 %r15, %tmem, 132;"
            + SCALED_AGAIN.replace("@%issues", "@%p7")
            + " bar.sync 0;",
        },
        "R24",
    ),
    "freed while it is read": (
        {"is_read_again": "", "show": "", "end": "bar.sync 0;"},
        "R19",
    ),
    "freed while others may read it": ({"end": BEFORE}, "R19"),
    "never freed": ({"freed": "ret;"}, "R19"),
    "scales in one quarter only": (
        {
            "scales_again": "setp.lt.u32 %p7, %tid, 32; @!%p7 bra SAME; mov.u32 %r3, 0x01010101;"
            f" SAME: {STORES}"
        },
        "R33",
    ),
    "scales of columns that are not allocated": (
        {
            "allocate": allocate(128),
            "scales": STORE_SCALES.replace("tcgen05", "@%p8 tcgen05").replace(
                "and.b32", "setp.eq.u32 %p8, 1, 0; and.b32"
            ),
        },
        "R19",
    ),
    "a result that begins in the middle of the lanes": (
        {"first": SCALED.replace("[%tmem]", "[%tmem+0x100000]")},
        "R20",
    ),
    "an accumulator beyond the last column": (
        {"first": SCALED.replace("[%tmem]", "[%tmem+500]")},
        "R20",
    ),
    "scale factors beyond the first lane": (
        {"first": SCALED.replace("[%r15]", "[%r15+0x10000]")},
        "R20",
    ),
    "copied to a column that is no multiple of four": (
        {
            "copied": f"{COPY} add.u32 %r9, %tmem, 258;"
            " @%issues tcgen05.cp.cta_group::1.32x128b.warpx4 [%r9], %rd12;"
        },
        "R20",
    ),
    "issued by a whole warp": ({"first": SCALED.replace("@%issues", "@%allocates")}, "R8"),
    "an allocation of another cta_group": (
        {"freed": PROGRAM["freed"].replace("::1", "::2")},
        "R34",
    ),
}


@pytest.mark.parametrize("order", ORDERS[:3], ids=str)
@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_reported_as_what_it_is(name: str, order: Order) -> None:
    changes, rule = MISTAKES[name]
    with pytest.raises(HazardError, match=f"^({rule}): "):
        run(program(**{**changes}), MEMORY, order=order)


SHAPE_AT = "mov.u32 %r20, "


def first_with(idesc: int, desc_a: int | None = None) -> str:
    text = SCALED[: SCALED.index(SHAPE_AT)] + f"{SHAPE_AT}{idesc}; setp.ne.u32 %p6, 0, 0;"
    text += SCALED[SCALED.index("@%issues") :]
    return (
        text
        if desc_a is None
        else f"{text}".replace(
            text[text.index("mov.b64 %rd10") : text.index(";", text.index("mov.b64 %rd10"))],
            f"mov.b64 %rd10, {desc_a}",
        )
    )


GOOD = 2 << 17 | 1 << 23 | 1 << 27
GOOD_A = descriptor(0, 0, 256, 32)


@pytest.mark.parametrize(
    ("idesc", "text"),
    [
        (GOOD | 1 << 2, "bits \\[2\\] must be 0"),
        (GOOD | 1 << 6, "bits \\[6\\] must be 0"),
        (GOOD | 1 << 31, "bits \\[31\\] must be 0"),
        (GOOD ^ 1 << 23, "bit 23 must be 1"),
        (GOOD ^ 3 << 27, "M of .* must be 128, got 256"),
        (GOOD ^ 1 << 27, "M of .* must be 128, got 0"),
        (GOOD ^ 2 << 17, "N of .* up to 256, got 0"),
        (GOOD | 40 << 17, "N of .* up to 256, got 336"),
        (GOOD | 2 << 7, "operand type 2 does not exist"),
        (GOOD | 7 << 10, "operand type 7 does not exist"),
        (GOOD ^ 3 << 17 | 1 << 16, "a multiple of 16 where B is MN-major"),
    ],
)
def test_instructions_that_do_not_exist(idesc: int, text: str) -> None:
    with pytest.raises(HazardError, match=f"^R17: .*{text}"):
        run(program(first=first_with(idesc)), MEMORY)


@pytest.mark.parametrize(
    ("desc", "rule"),
    [
        (GOOD_A | 1 << 14, "R16: .*reserved bits must be 0: \\[14\\]"),
        (GOOD_A | 1 << 55, "R16: .*reserved bits must be 0: \\[55\\]"),
        (GOOD_A ^ 1 << 46, "R16: .*bits 46 to 48"),
        (GOOD_A | 1 << 52, "R16: .*absolute leading dimension"),
        (GOOD_A ^ 7 << 61, "R16: .*32 bytes are for TF32"),
        (GOOD_A | 1 << 61, "R16: .*layout code 7 does not exist"),
        (GOOD_A + 1, "R15: .*got start address 0x810"),
        (descriptor(230000 // 16 * 16, 0, 256, 0), "bounds: "),
    ],
)
def test_descriptors_that_do_not_exist(desc: int, rule: str) -> None:
    with pytest.raises(HazardError, match=f"^{rule}"):
        run(program(first=first_with(GOOD, desc)), MEMORY)


@pytest.mark.parametrize(
    "idesc",
    [GOOD | 3 << 7, GOOD | 5 << 10],
    ids=["e2m3", "e2m1"],
)
def test_types_that_are_not_modelled(idesc: int) -> None:
    with pytest.raises(EmulationError, match="is not modelled"):
        run(program(first=first_with(idesc)), MEMORY)


def test_a_copy_after_a_product_of_the_same_thread_is_in_order() -> None:
    """New scale factors over old ones: not in PTX's list, but CUTLASS and DeepGEMM rely on it."""
    again = f"""
    mov.b64 %rd12, {descriptor(32768, 0, 128, 0)};
    add.u32 %r14, %tmem, 128;
    @%issues tcgen05.cp.cta_group::1.32x128b.warpx4 [%r14], %rd12;
    """
    out = run(program(**FIRST_UNKNOWN, scales_again=again, handed_over_again=""), MEMORY)
    result = out.view(np.float32)[: 128 * COLUMNS].reshape(128, COLUMNS)
    np.testing.assert_array_equal(result, 2 * PRODUCT)


def test_what_is_read_needs_no_wait_for_its_registers() -> None:
    """A register is there when it is used; only those who overwrite the cells need the wait."""
    out = run(program(is_read_again="", end=f"{LOADED} {BEFORE} bar.sync 0;"), MEMORY)
    assert out.view(np.float32)[0] == 2 * PRODUCT[0, 0]
