"""Decorators for test scripts: run a function only under a condition, or without a variable."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from deep_gemm import knobs

P = ParamSpec("P")
T = TypeVar("T")


def test_filter(
    condition: Callable[[], bool],
) -> Callable[[Callable[P, T]], Callable[P, T | None]]:
    """A decorator: calls of the function do nothing but say so where the condition does not hold.

    Args:
        condition: asked at every call, such as `lambda: get_arch_major() >= 9`.
    """

    def decorate(fn: Callable[P, T]) -> Callable[P, T | None]:
        @functools.wraps(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> T | None:
            if condition():
                return fn(*args, **kwargs)
            print(f"{fn.__name__}: left out, its condition does not hold here")
            return None

        return call

    return decorate


# Its name makes pytest take it for a test wherever it is imported.
test_filter.__test__ = False  # type: ignore[attr-defined]


def ignore_env(
    name: str, condition: Callable[[], bool]
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator: where the condition holds, calls of the function do not see an environment
    variable, which is there again afterwards.

    Args:
        name: the variable, such as "CUDA_LAUNCH_BLOCKING".
        condition: asked at every call.
    """

    def decorate(fn: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            if not condition():
                return fn(*args, **kwargs)
            with knobs.without(name):
                return fn(*args, **kwargs)

        return call

    return decorate
