"""Chooses the few kernels that serving is confined to, and says what that costs by the cost model.

For every product of every model in deep_gemm/config/models.py, and many M, all candidates are
priced. Kernels are then added one by one, each the one that lowers the sum of squared losses most,
and exchanged as long as that lowers it further. A loss is how much longer the best kernel of the
set takes than the best of all candidates.

Usage: python tools/choose_kernels.py [--dense 24] [--grouped 12] [--write]
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deep_gemm.config.cost_model import estimate
from deep_gemm.config.gemm_config import GemmConfig, Grouping
from deep_gemm.config.kernel_set import offers
from deep_gemm.config.models import MODELS, dense_shapes, expert_shapes
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.sm90 import block_m_candidates, candidates

TP = (1, 2, 4, 8)
EP = (1, 2, 4, 8, 16, 32, 64)
ALIGNMENTS = (128, 1)

ROWS = sorted(
    {*range(1, 65), *range(64, 513, 16), *range(64, 8193, 128)}
    | {rows + 1 for rows in (*range(64, 1025, 64), *range(1024, 8192, 512))}
)
"""M that are looked at: all short ones, and on both sides of where blocks begin."""

NEVER = 9.0
"""Loss of a kernel that a problem does not offer."""

OUT = Path(__file__).parents[1] / "deep_gemm/config/kernel_set.py"

Losses = NDArray[np.float32]


def products(grouping: Grouping) -> Iterator[GemmProblem]:
    """Every product of every model, without its M."""
    shapes = set()
    for model in MODELS.values():
        if grouping is Grouping.DENSE:
            shapes |= {(1, n, k, 1) for n, k in dense_shapes(model, TP)}
        else:
            every = expert_shapes(model, TP, EP)
            shapes |= {(*shape, alignment) for shape in every for alignment in ALIGNMENTS}
    for groups, n, k, alignment in sorted(shapes):
        yield GemmProblem(*(0, n, k), grouping=grouping, num_groups=groups, alignment=alignment)


def every_candidate(grouping: Grouping) -> list[GemmConfig]:
    """All of them that any of the products has, in the order of the candidates."""
    found: dict[GemmConfig, None] = {}
    for product in products(grouping):
        for m in (16, 32, 8192):
            found |= dict.fromkeys(candidates(replace(product, m=m)))
    return sorted(found, key=_order)


def _order(config: GemmConfig) -> tuple[int, ...]:
    clusters = (config.cluster_n, config.cluster_m)
    return config.block_m, config.block_n, *clusters, config.num_store_rounds


def price(grouping: Grouping, configs: list[GemmConfig]) -> Losses:
    """The loss of every configuration (rows) for every problem (columns)."""
    columns = []
    for product in products(grouping):
        for m in ROWS:
            problem = replace(product, m=m)
            offered = [config for config in configs if offers(problem, config)]
            us = dict.fromkeys(configs, np.inf)
            us |= {config: estimate(problem, config).us for config in offered}
            heights = block_m_candidates(problem)
            best = min(us[config] for config in offered if config.block_m in heights)
            # A block higher than the candidates' may be priced a trifle below the best of them.
            columns.append(np.clip(np.array(list(us.values())) / best - 1, 0, NEVER))
    return np.array(columns, np.float32).T


def choose(losses: Losses, number: int) -> list[int]:
    """The rows of the chosen configurations."""
    chosen: list[int] = []
    for _ in range(number):
        others = losses[chosen].min(0) if chosen else np.full(losses.shape[1], NEVER, np.float32)
        chosen.append(_best(losses, others))
        for place in range(len(chosen)):
            kept = [*chosen[:place], *chosen[place + 1 :]]
            others = losses[kept].min(0) if kept else np.full_like(others, NEVER)
            chosen[place] = _best(losses, others)
        report(losses, chosen)
    return chosen


def _best(losses: Losses, others: Losses) -> int:
    return int(np.argmin([np.square(np.minimum(others, row)).sum() for row in losses]))


def report(losses: Losses, chosen: list[int]) -> None:
    best = 100 * losses[chosen].min(0)
    print(
        f"{len(chosen):4d} kernels: loss in the mean {best.mean():.4f} %, "
        f"of 99 in 100 {np.percentile(best, 99):.2f} %, at worst {best.max():.2f} %"
    )


def write(grouping: Grouping, chosen: list[GemmConfig]) -> None:
    """Replaces the set of one grouping in deep_gemm/config/kernel_set.py."""
    rows = "".join(
        f"    ({c.block_m}, {c.block_n}, {c.cluster_m}, {c.cluster_n}, {c.num_store_rounds}),\n"
        for c in chosen
    )
    found = re.compile(
        rf"(?<=^{grouping.name}: Shapes = \()(\n.*?)?(?=\)$)", re.DOTALL | re.MULTILINE
    )
    text, number = found.subn("\n" + rows, OUT.read_text())
    if number != 1:
        raise SystemExit(f"{OUT}: must have one set named {grouping.name}, got {number}")
    OUT.write_text(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dense", type=int, default=24, help="kernels (24)")
    parser.add_argument("--grouped", type=int, default=12, help="kernels (12)")
    parser.add_argument("--write", action="store_true", help=f"into {OUT.name}")
    options = parser.parse_args()
    for grouping, number in (
        (Grouping.DENSE, options.dense),
        (Grouping.M_GROUPED, options.grouped),
    ):
        configs = every_candidate(grouping)
        losses = price(grouping, configs)
        print(f"{grouping.name}: {len(configs)} candidates, {losses.shape[1]} problems")
        chosen = [configs[i] for i in sorted(choose(losses, number))]
        if options.write:
            write(grouping, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
