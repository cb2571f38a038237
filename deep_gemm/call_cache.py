"""Calls that were seen before: what is to be done for each, found again by a key."""

from __future__ import annotations

from typing import Generic, TypeVar

MAX_CALLS = 8192
"""Calls that are remembered, at about 3 KB each; the oldest goes first."""

Call = TypeVar("Call")


class CallCache(Generic[Call]):
    """What is to be done for each kind of call, by everything that it depends on."""

    def __init__(self) -> None:
        self._calls: dict[object, Call] = {}
        self.get = self._calls.get

    def remember(self, key: object, call: Call) -> Call:
        """Keeps what is to be done for calls of this key, and returns it."""
        while len(self._calls) >= MAX_CALLS:
            self._calls.pop(next(iter(self._calls)), None)
        self._calls[key] = call
        return call
