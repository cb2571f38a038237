"""How lanes of a warp part and meet again."""

from __future__ import annotations

import numpy as np
from goldens.case import as_bytes, program
from goldens.machines import UNTOUCHED, Emulator, Launch


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
