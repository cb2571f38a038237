"""Fences, and instructions whose only effect is on time or on caches.

Those that order memory are modelled, fence.proxy.async for shared memory; map_forms.py has those
for tensor maps, and of griddepcontrol.wait it is tracked who may rely on it. The others order what
the emulator orders anyway.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from deep_gemm.emulator.ir import Instruction, Register
from deep_gemm.emulator.modifiers import LEVELS, SCOPE, parts
from deep_gemm.emulator.operands import LANES, Symbols
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]
Build = Callable[[Instruction, Symbols], Execute]

_MEMORY = rf"fence(?:\.sc|\.acq_rel|\.acquire|\.release)?{SCOPE}|membar\.(?:cta|gl|sys)"
_WITHOUT_EFFECT = (
    r"fence\.(?:acquire|release)\.sync_restrict::shared::(?:cta|cluster)\.cluster"
    r"|fence\.proxy\.(?:alias|async\.global)"
)


def _fence(instruction: Instruction, symbols: Symbols) -> Execute:
    """fence.proxy.async makes the threads' writes to shared memory visible to TMA and WGMMA."""
    pattern = r"fence\.proxy\.async(?P<space>\.shared::cta|\.shared::cluster)?"
    if instruction.modifiers[0] == "mbarrier_init":
        parts(instruction, r"fence\.mbarrier_init\.release\.cluster")
        return _show_barriers
    if re.fullmatch(_MEMORY, instruction.name):
        return _order
    if instruction.modifiers[:2] != ("proxy", "async") or "global" in instruction.modifiers:
        # What async operations read from global memory is not tracked.
        return _nothing(_WITHOUT_EFFECT)(instruction, symbols)
    only_own = parts(instruction, pattern)["space"] == ".shared::cta"

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        for cta in warp.cta.cluster.ctas:
            if cta is warp.cta or not only_own:
                cta.fence_proxy(warp, mask)
        return None

    return execute


def _order(warp: Warp, mask: Mask) -> Wait | None:
    """A fence of either or both directions: taken as both."""
    warp.timeline.fence()
    return None


def _show_barriers(warp: Warp, mask: Mask) -> Wait | None:
    """fence.mbarrier_init."""
    warp.cta.order.fence_barriers(warp, mask)
    return None


def _nothing(pattern: str) -> Build:
    def build(instruction: Instruction, symbols: Symbols) -> Execute:
        parts(instruction, pattern)
        return _no_effect

    return build


def _no_effect(warp: Warp, mask: Mask) -> Wait | None:
    return None


def _sleep(instruction: Instruction, symbols: Symbols) -> Execute:
    """nanosleep: there is no time, but the others go on."""
    parts(instruction, r"nanosleep\.u32")

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.spin()
        return None

    return execute


def _griddepcontrol(instruction: Instruction, symbols: Symbols) -> Execute:
    """The grid before is over when a launch begins here; that a warp may rely on it is tracked."""
    waits = parts(instruction, r"griddepcontrol\.(?:(?P<wait>wait)|launch_dependents)")["wait"]

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        if waits:
            warp.cta.cluster.order.wait_for_predecessor(warp)
        return None

    return execute


def _create_policy(instruction: Instruction, symbols: Symbols) -> Execute:
    """createpolicy: an opaque hint, which nothing looks at."""
    parts(instruction, r"createpolicy\.(?:fractional|range)(?:\.global)?(?:\.L2::\w+){1,2}\.b64")
    destination = instruction.operands[0]

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        if isinstance(destination, Register):
            warp.write(destination.slot, np.zeros(LANES, dtype=np.uint64), mask)
        return None

    return execute


_PREFETCH = r"prefetch(?:\.global|\.local)?\.L[12](?:::evict_(?:last|normal))?|prefetchu\.L1"
_BULK_PREFETCH = rf"cp\.async\.bulk\.prefetch\.L2\.global{LEVELS}"

TABLE: dict[str, Build] = {
    "fence": _fence,
    "membar": _fence,
    "griddepcontrol": _griddepcontrol,
    "nanosleep": _sleep,
    "createpolicy": _create_policy,
    "prefetch": _nothing(_PREFETCH),
    "prefetchu": _nothing(_PREFETCH),
    "cp.async.bulk.prefetch": _nothing(_BULK_PREFETCH),
}
