"""Processes that make a peer compile its kernels side by side, before they are asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

from benchmarks.session import Session
from deep_gemm.tuning.children import Child, ChildDied, log

WARM_PROCESSES = 14
WARM_SECONDS = 180


def start_warming(session: Session, names: Sequence[str]) -> list[Child]:
    """Starts processes of a peer's, each with some of the problems."""
    distinct = list(dict.fromkeys(names))
    log(f"{session.name}: compiling what {len(distinct)} problems need")
    step = min(WARM_PROCESSES, os.cpu_count() or 1, len(distinct))
    children = []
    for first in range(step):
        child = Child(*session.arguments, env=session.env)
        child.send("warm", names=distinct[first::step])
        children.append(child)
    return children


def finish_warming(peer: str, children: Sequence[Child]) -> None:
    """Waits for these processes. What they could not compile is left to the first call."""
    deadline = time.monotonic() + WARM_SECONDS
    for child in children:
        try:
            reply = child.receive(max(1.0, deadline - time.monotonic()))
            errors = {"all": reply["error"]} if "error" in reply else reply["errors"]
            for name, text in errors.items():
                log(f"{peer}: compiling for {name}: {text}")
        except ChildDied as error:
            log(f"{peer}: compiling: {error}")
        child.close()
