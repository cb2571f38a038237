"""Shuffles, votes, matches and reductions against loops over lanes."""

from __future__ import annotations

import numpy as np
import pytest

from deep_gemm.emulator.errors import HazardError, UnknownOpcodeError
from tests.emulator.small_kernels import run

STORE = "st.global.u32 [%mine], %r9; ret;"
VALUES = np.random.default_rng(5).integers(0, 2**32, 32, dtype=np.uint32)
LOAD = "add.u64 %rd2, %in, %rd0; ld.global.u32 %r1, [%rd2];"


def lanes(body: str, source: np.ndarray = VALUES) -> list[int]:
    """Each lane's %r9, where %r1 is its value of the source."""
    return run(f"{LOAD} {body} {STORE}", source)[:32].tolist()


def shuffled(mode: str, b: int, c: int) -> tuple[list[int], list[int]]:
    """The ISA's pseudo code."""
    values, inside = [], []
    for lane in range(32):
        mask, clamp = c >> 8 & 31, c & 31
        highest = (lane & mask) | (clamp & ~mask)
        lowest = lane & mask
        if mode == "up":
            j = lane - b
            ok = j >= highest
        elif mode == "down":
            j = lane + b
            ok = j <= highest
        elif mode == "bfly":
            j = lane ^ b
            ok = j <= highest
        else:
            j = lowest | (b & ~mask)
            ok = j <= highest
        values.append(int(VALUES[j if ok else lane]))
        inside.append(int(ok))
    return values, inside


# Whole warp, segments of 8, and a clamp inside of the warp.
@pytest.mark.parametrize("c", [31, 0x181F, 0x1807, 11])
@pytest.mark.parametrize("b", [0, 1, 5, 16, 31])
@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
def test_shuffles(mode: str, b: int, c: int) -> None:
    if mode == "up":
        c &= ~31
    body = f"shfl.sync.{mode}.b32 %r9|%p1, %r1, {b}, {c}, -1;"
    values, inside = shuffled(mode, b, c)
    assert lanes(body) == values
    assert lanes(f"{body} selp.u32 %r9, 1, 0, %p1;") == inside


def test_a_shuffle_waits_for_lanes_that_come_later() -> None:
    body = """
    mov.u32 %r9, 7;
    setp.lt.u32 %p1, %tid, 16;
    @%p1 bra HERE;
    add.u32 %r1, %r1, 1;
    HERE:
    shfl.sync.bfly.b32 %r9, %r1, 16, 31, -1;
    """
    changed = [int(v) + (i >= 16) for i, v in enumerate(VALUES)]
    assert lanes(body) == [changed[i ^ 16] % 2**32 for i in range(32)]


@pytest.mark.parametrize(
    "body",
    [
        "setp.lt.u32 %p1, %tid, 16; @%p1 shfl.sync.idx.b32 %r9, %r1, 0, 31, -1;",
        "shfl.sync.idx.b32 %r9, %r1, 0, 31, 65535;",
        "shfl.sync.idx.b32 %r9, %r1, 0, 31, %tid;",
        "setp.lt.u32 %p1, %tid, 16; @%p1 shfl.sync.idx.b32 %r9, %r1, 20, 31, 65535;",
        "setp.lt.u32 %p1, %tid, 16; @%p1 elect.sync %r9|%p2, -1;",
    ],
)
def test_members_that_are_missing(body: str) -> None:
    with pytest.raises(HazardError, match="^R8"):
        lanes(body)


def test_votes() -> None:
    start = "setp.gt.u32 %p1, %r1, 2147483647;"
    ballot = sum(int(v > 2147483647) << i for i, v in enumerate(VALUES))
    assert lanes(f"{start} vote.sync.ballot.b32 %r9, %p1, -1;") == [ballot] * 32
    end = "selp.u32 %r9, 1, 0, %p2;"
    for mode, expected in (("all", 0), ("any", 1), ("uni", 0)):
        assert lanes(f"{start} vote.sync.{mode}.pred %p2, %p1, -1; {end}") == [expected] * 32
    always = "setp.ge.u32 %p1, %r1, 0;"
    for mode, expected in (("all", 1), ("any", 1), ("uni", 1)):
        assert lanes(f"{always} vote.sync.{mode}.pred %p2, %p1, -1; {end}") == [expected] * 32


def test_a_vote_of_some_lanes() -> None:
    body = """
    mov.u32 %r9, 0;
    setp.lt.u32 %p1, %tid, 5;
    setp.lt.u32 %p3, %tid, 3;
    @!%p1 bra END;
    activemask.b32 %r8;
    vote.sync.ballot.b32 %r9, %p3, 31;
    shl.b32 %r8, %r8, 8;
    or.b32 %r9, %r9, %r8;
    END:
    """
    assert lanes(body) == [0x1F07] * 5 + [0] * 27


def test_matches() -> None:
    source = np.array([i // 3 for i in range(32)], dtype=np.uint32)
    same = [sum(1 << j for j in range(32) if j // 3 == i // 3) for i in range(32)]
    assert lanes("match.any.sync.b32 %r9, %r1, -1;", source) == same
    end = "selp.u32 %r8, 65536, 0, %p2; and.b32 %r9, %r9, 255; or.b32 %r9, %r9, %r8;"
    assert lanes(f"match.all.sync.b32 %r9|%p2, %r1, -1; {end}", source) == [0] * 32
    assert lanes(f"match.all.sync.b32 %r9|%p2, %r1, -1; {end}", source * 0) == [0x100FF] * 32


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("add.u32", int(VALUES.astype(np.uint64).sum()) % 2**32),
        ("min.u32", int(VALUES.min())),
        ("max.u32", int(VALUES.max())),
        ("min.s32", int(VALUES.view(np.int32).min()) % 2**32),
        ("max.s32", int(VALUES.view(np.int32).max()) % 2**32),
        ("and.b32", int(np.bitwise_and.reduce(VALUES))),
        ("or.b32", int(np.bitwise_or.reduce(VALUES))),
        ("xor.b32", int(np.bitwise_xor.reduce(VALUES))),
    ],
)
def test_reductions(name: str, expected: int) -> None:
    assert lanes(f"redux.sync.{name} %r9, %r1, -1;") == [expected] * 32


def test_elect_chooses_one_lane() -> None:
    assert lanes("elect.sync _|%p2, -1; selp.u32 %r9, 1, 0, %p2;") == [1] + [0] * 31


@pytest.mark.parametrize(
    "text", ["shfl.sync.idx.b64 %rd9, %rd1, 0, 31, -1;", "redux.sync.add.f32 %f1, %f1, -1;"]
)
def test_unknown_forms(text: str) -> None:
    with pytest.raises(UnknownOpcodeError, match=r"PTX line \d+"):
        run(f"{text} ret;")
