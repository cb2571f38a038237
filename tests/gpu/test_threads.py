"""Eight threads that call everything at once, each on a stream of its own."""

from __future__ import annotations

from tests.concurrent import check_threads


def test_eight_threads_on_eight_streams() -> None:
    check_threads("cuda", num_calls=40)
