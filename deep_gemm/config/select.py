"""Chooses a problem's configuration: what was measured, or of the candidates, legal ones, the
cheapest by the cost model."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from deep_gemm.config.cost_model import Estimate, estimate
from deep_gemm.config.gemm_config import GemmConfig, Grouping
from deep_gemm.config.kernel_set import offered_kernels
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.sm90 import candidates
from deep_gemm.config.tuned import find
from deep_gemm.config.tuned_file import Timed

if TYPE_CHECKING:
    from deep_gemm.config.sm100_config import Sm100GemmConfig


class Selection(NamedTuple):
    """What was chosen for a problem.

    Attributes:
        config: the kernel's configuration.
        band: rows of clusters that the block order walks together (scheduler/dense.cuh).
    """

    config: GemmConfig
    band: int


def best_band(problem: GemmProblem, config: GemmConfig | Sm100GemmConfig) -> int:
    """The band height for which the blocks in flight together touch the fewest bytes of A and B."""
    rows, columns = config.cluster_grid(problem.m, problem.n)
    in_flight = max(1, problem.num_sms // config.cluster_size)
    height = config.block_m * config.cluster_m
    width = config.block_n * config.cluster_n

    def columns_in_flight(band: int) -> float:
        return min(columns, in_flight / band + 1)

    def touched(band: int) -> float:
        # Where columns are few, the blocks in flight reach over several bands; the last band may be
        # lower than the others, and then needs more columns.
        last = rows % band
        weighted = (rows - last) * columns_in_flight(band)
        weighted += last * columns_in_flight(last) if last else 0
        return min(rows, band + in_flight / columns) * height + weighted / rows * width

    # Of equal heights the tallest: blocks that start together then share their tile of B.
    return min(range(min(rows, in_flight), 0, -1), key=touched)


def offered(problem: GemmProblem) -> Iterable[GemmConfig]:
    """What a problem's kernel is chosen from: all candidates, or if it is confined to few kernels
    and of a kind that these serve, those."""
    few = offered_kernels(problem) if problem.few_kernels else []
    return few or candidates(problem)


def ranked(
    problem: GemmProblem, configs: Iterable[GemmConfig] | None = None
) -> list[tuple[GemmConfig, Estimate]]:
    """Configurations with their estimates, cheapest first; equal ones in the order given.

    Args:
        problem: what is computed.
        configs: by default what the problem's kernel is chosen from.
    """
    every = offered(problem) if configs is None else configs
    estimates = [(config, estimate(problem, config)) for config in every]
    return sorted(estimates, key=lambda pair: pair[1].us)


def cheapest(problem: GemmProblem) -> GemmConfig:
    """What the cost model takes for a problem of at least one element."""
    return min(offered(problem), key=lambda config: estimate(problem, config).us)


@functools.lru_cache(maxsize=65536)
def select(problem: GemmProblem) -> Selection:
    """The configuration for a problem of at least one element: measured, or the cheapest. A pure
    function of the problem, and of the tables of its GPU, which are read once."""
    measured = find(problem)
    config = cheapest(problem) if measured is None else measured.config
    return Selection(config, best_band(problem, config))


def explain(problem: GemmProblem, num_alternatives: int = 3) -> str:
    """What was chosen for a problem and why, with the next best candidates, one per line."""
    return explanation(problem, ranked(problem)[: num_alternatives + 1], find(problem))


def explanation(
    problem: GemmProblem,
    shown: Sequence[tuple[GemmConfig | Sm100GemmConfig, Estimate]],
    measured: Timed | None = None,
) -> str:
    """What a choice rests on: what was measured, if anything was, and estimates, cheapest first."""
    groups = f"{problem.num_groups} x " if problem.grouping is not Grouping.DENSE else ""
    lines = [f"{groups}{problem.m} x {problem.n} x {problem.k} on {problem.num_sms} SMs:"]
    if measured is not None:
        name = measured.config.name
        lines.append(f"  chosen {name}: {measured.us:.1f} us as measured on {problem.gpu}")
    for rank, (config, cost) in enumerate(shown):
        verdict = "chosen" if rank == 0 and measured is None else "      "
        lines.append(
            f"  {verdict} {config.name}: {cost.us:.1f} us, {cost.waves:.3g} wave(s) "
            f"{cost.utilisation:.0%} full, {cost.k_block_clocks:.0f} clocks per k block "
            f"(bound by {cost.bound})"
        )
    return "\n".join(lines)
