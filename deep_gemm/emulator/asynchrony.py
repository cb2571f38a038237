"""What runs beside the threads: copies that were started and have not arrived.

PTX says only between which points an asynchronous operation happens. `Timing` chooses the moment:
as early or as late as allowed, or at random. A program whose result depends on it has a race.
"""

from __future__ import annotations

import enum
import random
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

Action = Callable[[], None]
Item = TypeVar("Item")


class Timing(enum.Enum):
    """When asynchronous operations happen, of the moments that PTX allows."""

    EARLY = "early"
    LATE = "late"
    RANDOM = "random"


class Engine:
    """Operations in flight. Those of one stream happen in order, streams in any order."""

    def __init__(self, timing: Timing, seed: int = 0) -> None:
        """Starts with nothing in flight."""
        self.timing = timing
        self._random = random.Random(seed)
        self._streams: dict[Hashable, deque[Action]] = {}

    def submit(self, stream: Hashable, action: Action) -> None:
        """Puts an operation in flight; with EARLY timing it happens at once."""
        if self.timing is Timing.EARLY:
            action()
        else:
            self._streams.setdefault(stream, deque()).append(action)

    def is_lazy(self) -> bool:
        """Whether an operation that a thread will wait for should happen only then."""
        if self.timing is Timing.RANDOM:
            return self._random.random() < 0.5
        return self.timing is Timing.LATE

    def order(self, items: Sequence[Item]) -> Sequence[Item]:
        """Who has the first turn, the second, and so on."""
        if self.timing is Timing.RANDOM:
            return self._random.sample(items, len(items))
        return items

    def gives_way(self) -> bool:
        """Whether others run first when a warp has told them something: what it does next is late.

        A warp that runs on would hide that it reads what it has just allowed to be overwritten.
        """
        return self.is_lazy()

    def advance(self) -> bool:
        """Lets one operation happen; False if none is in flight."""
        if not self._streams:
            return False
        streams = list(self._streams)
        stream = self._random.choice(streams) if self.timing is Timing.RANDOM else streams[0]
        actions = self._streams[stream]
        action = actions.popleft()
        if not actions:
            del self._streams[stream]
        action()
        return True

    def shuffle(self) -> bool:
        """With RANDOM timing, perhaps lets an operation happen between two turns of a warp."""
        return self.timing is Timing.RANDOM and self._random.random() < 0.3 and self.advance()
