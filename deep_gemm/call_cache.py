"""Calls that were seen before: what is to be done for each, found again by a key."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch

from deep_gemm.tracing import has_no_memory

MAX_CALLS = 8192
"""Calls that are remembered, at about 3 KB each; the oldest goes first."""

MAX_HINTS = 4096
CALLS_OF_HINT = 8
"""What `RecentLaunches` holds: calls of one hint are tried one after the other."""

Call = TypeVar("Call")
Tensors = tuple[torch.Tensor, ...]
Check = Callable[..., bool]
Launch = Callable[..., None]


class RecentLaunches:
    """A short cut in front of a `CallCache`: one comparison in C++ for all of a call's tensors.

    A key of sizes, strides, dtypes and devices is some twenty Python objects, whose making takes as
    long as all else. PyTorch's own compiler has the same question at each of its calls and an
    answer in C++: a guard holds all these of some tensors, and their Python types. What a guard
    does not know (addresses, options) the caller compares. Where PyTorch has no such guards,
    nothing is remembered here.
    """

    def __init__(self) -> None:
        self._launches: dict[object, tuple[tuple[Check, object, Launch], ...]] = {}

    def find(self, hint: object, tensors: tuple[object, ...], options: object) -> Launch | None:
        """What was remembered for tensors like these, the same hint and equal options.

        Args:
            hint: what tells most calls apart.
            tensors: of the call; they may be any objects: what is no tensor is like none.
            options: all else that the call depends on, but for addresses.
        """
        for is_like, known_options, launch in self._launches.get(hint, ()):
            if is_like(*tensors) and known_options == options:
                return launch
        return None

    def remember(self, hint: object, tensors: Tensors, options: object, launch: Launch) -> None:
        """Keeps a launch, in front of the others of its hint."""
        guard = None if any(map(has_no_memory, tensors)) else _guard()
        if guard is None:
            return
        if len(self._launches) >= MAX_HINTS:
            # Rare, and soon as full as it needs to be.
            self._launches.clear()
        others = self._launches.get(hint, ())[: CALLS_OF_HINT - 1]
        self._launches[hint] = ((guard(tensors), options, launch), *others)


class CallCache(Generic[Call]):
    """What is to be done for each kind of call, by everything that it depends on.

    Attributes:
        get: the call of a key, or None.
        recent: a short cut.
    """

    def __init__(self) -> None:
        self._calls: dict[object, Call] = {}
        self._lock = threading.Lock()
        self.get = self._calls.get
        self.recent = RecentLaunches()
        _caches.add(self)

    def remember(self, key: object, call: Call) -> Call:
        """Keeps what is to be done for calls of this key, and returns it."""
        with self._lock:
            while len(self._calls) >= MAX_CALLS:
                del self._calls[next(iter(self._calls))]
            self._calls[key] = call
        return call

    def forget(self) -> None:
        """Drops all calls; for a forked child, where a lock may be held by a thread that is not."""
        self._lock = threading.Lock()
        self._calls.clear()
        self.recent = RecentLaunches()


@functools.cache
def _guard() -> Callable[[Tensors], Check] | None:
    """What makes guards, if this PyTorch's do as `RecentLaunches` needs: they are not public."""
    try:
        from torch._C._dynamo.guards import TensorGuards
    except ImportError:
        return None

    def guard(tensors: Tensors) -> Check:
        # Of each tensor its sizes and strides; PyTorch's annotations have one list less.
        sizes: list[Any] = [list(tensor.shape) for tensor in tensors]
        strides: list[Any] = [list(tensor.stride()) for tensor in tensors]
        made = TensorGuards(*tensors, dynamic_dims_sizes=sizes, dynamic_dims_strides=strides)
        check: Check = made.check
        return check

    known = torch.empty(4, 8)
    others = (known[:2], known.T, known[:, :4], known.double(), known.to("meta"), known[None], 3)
    try:
        is_like = guard((known, known))
        accepts = is_like(known, torch.empty(4, 8))
        refuses = not any(is_like(known, other) for other in others)
    except Exception:  # Whatever another version of the interface raises.
        return None
    return guard if accepts and refuses else None


_caches: weakref.WeakSet[CallCache[Any]] = weakref.WeakSet()


def forget_calls() -> None:
    """Make every call as if it were the first of its kind: in a forked child, and for tests."""
    for cache in _caches:
        cache.forget()


# A plan has a lock, which some other thread may hold at the moment of a fork; and the parent's
# kernels are of no use to a child, for which CUDA has to be another one.
os.register_at_fork(after_in_child=forget_calls)
