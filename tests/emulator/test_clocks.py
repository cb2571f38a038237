"""Vector clocks of the emulator."""

from __future__ import annotations

from deep_gemm.emulator.clocks import Clock


def test_clocks_that_learn_from_each_other_do_not_grow() -> None:
    """Each once grew beyond the other's size, in turn, until a launch of pairs took all memory."""
    one, other = Clock(), Clock()
    one.advance(200, 3)
    for agent in (100, 130):
        other.advance(agent, 4)
    for _ in range(20):
        one.join(other)
        other.join(one)
    assert [one[agent] for agent in (100, 130, 200)] == [4, 4, 3]
    assert one._times.size == other._times.size == 256
