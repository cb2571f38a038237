"""How lanes of a warp part and meet again."""

from __future__ import annotations

import numpy as np
import pytest
from goldens.case import as_bytes, program
from goldens.machines import UNTOUCHED, Emulator, Launch

from deep_gemm.emulator.errors import DivergedWarpError
from tests.emulator.small_kernels import ORDERS, run


def collatz_steps(number: int) -> int:
    steps = 0
    while number != 1:
        number = 3 * number + 1 if number % 2 else number // 2
        steps += 1
    return steps


def test_lanes_that_leave_a_loop_one_by_one_meet_behind_it() -> None:
    """Each lane goes straight to where others wait already, often with several groups about."""
    words = np.random.default_rng(3).integers(0, 2**32, 64, dtype=np.uint32)
    launch = Launch(program("divergence"), as_bytes(words), 64 * 24, num_threads=64)
    rows = Emulator().run(launch).view(np.uint32).reshape(64, 6)
    lane = np.arange(64) % 32
    odd = lane % 2 == 1
    steps = np.array([collatz_steps(int(word) % 256 + 1) for word in words])
    np.testing.assert_array_equal(rows[:, 0], 0)
    np.testing.assert_array_equal(rows[:, 1], lane == 0)
    np.testing.assert_array_equal(rows[:, 2], steps)
    np.testing.assert_array_equal(rows[:, 3], np.where(odd, 1, steps))
    np.testing.assert_array_equal(
        rows[:, 4], np.where(odd, np.where(lane == 1, 1, 2), words * np.uint32(7))
    )
    untouched = np.uint32(UNTOUCHED * 0x01010101)
    np.testing.assert_array_equal(rows[:, 5], np.where(~odd & (lane < 20), 0, untouched))


BARRIER = "bar.sync 0;"
FAR = """
and.b32 %r9, %tid, 3;
setp.eq.u32 %p1, %r9, 3;
mov.u32 %r8, 5;
@%p1 bra FAR;
JOIN:
{0}
st.global.u32 [%mine], %r8;
ret;
FAR:
mov.u32 %r8, 7;
{1}
"""
"""What few lanes do stands behind all else, where compilers put it, and leads back."""


@pytest.mark.parametrize("order", ORDERS[:3], ids=str)
@pytest.mark.parametrize(
    "instruction",
    [BARRIER, "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;", "vote.sync.any.pred"
     " %p2, %p1, 0xffffffff;"],
)  # fmt: skip
def test_a_barrier_waits_for_lanes_that_jump_back_to_it(instruction: str, order: object) -> None:
    words = np.zeros(64, dtype=np.uint32)
    out = run(FAR.format(instruction, "bra JOIN;"), words, num_threads=64, order=order)
    np.testing.assert_array_equal(out[:64], np.where(np.arange(64) % 4 == 3, 7, 5))


SKIPS = {
    "behind the barrier": "bra PAST;",
    "by a way of which one branch does": "setp.lt.u32 %p3, %tid, 32; @%p3 bra PAST; bra JOIN;",
    "and leave": "ret;",
}


@pytest.mark.parametrize("way", SKIPS)
def test_a_barrier_does_not_wait_for_lanes_that_may_go_elsewhere(way: str) -> None:
    text = FAR.format(f"{BARRIER}\nPAST:", SKIPS[way])
    with pytest.raises(DivergedWarpError, match=r"^R8: bar\.sync without lanes \[3, 7, 11, "):
        run(text, np.zeros(64, dtype=np.uint32), num_threads=64)


def test_a_barrier_of_some_lanes_in_a_loop_is_not_taken_for_one_of_all() -> None:
    """They pass it in turn, round after round, and never together."""
    text = f"""
    mov.u32 %r8, 0;
    LOOP:
    and.b32 %r9, %tid, 1;
    setp.eq.u32 %p1, %r9, 0;
    @%p1 bra SKIP;
    {BARRIER}
    SKIP:
    add.u32 %r8, %r8, 1;
    setp.lt.u32 %p2, %r8, 3;
    @%p2 bra LOOP;
    st.global.u32 [%mine], %r8;
    ret;
    """
    with pytest.raises(DivergedWarpError, match="^R8"):
        run(text, np.zeros(64, dtype=np.uint32), num_threads=64)
