"""`python -m deep_gemm explain M N K`: which kernel a problem gets, and why."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from rich.text import Text

from deep_gemm.checks import check_dimensions
from deep_gemm.cli.demo import LABEL_WIDTH, positive_integer
from deep_gemm.cli.floor import ASSUMED_GPU, HBM_TB_PER_S, TFLOPS, floor_of, num_flop
from deep_gemm.cli.output import print_table
from deep_gemm.cli.verb import Verb
from deep_gemm.config.cost_model import Estimate, hbm_bytes
from deep_gemm.config.gemm_config import GemmConfig, Grouping
from deep_gemm.config.legality import SMEM_CAPACITY, broken_rules
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import offered, ranked, select
from deep_gemm.config.sm90 import candidates, shapes, stages_and_rounds, stores_heads
from deep_gemm.config.tuned import find
from deep_gemm.errors import ArgumentError, CompilationError, MissingDependencyError
from deep_gemm.jit.build import build, forbid_compilation
from deep_gemm.jit.codegen import generate
from deep_gemm.warm_up import ALIGNMENT, ARCH, MASKED_ALIGNMENT, NUM_SMS

Facts = dict[str, Any]
"""What is printed, as JSON has it."""

KINDS = {
    "dense": Grouping.DENSE,
    "contiguous": Grouping.M_GROUPED,
    "masked": Grouping.M_GROUPED,
    "k-grouped": Grouping.K_GROUPED,
}

HEADER = (
    *("", "kernel", "us", "waves", "full", "HBM MB", "clocks / k block"),
    *("stages", "smem KB", "registers", "bound by"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The problem, and how much is said of it."""
    sizes = (
        ("m", "rows of A; of m-grouped products those that a group is expected to have"),
        ("n", "rows of B"),
        ("k", "columns of both; of k-grouped products those that a group is expected to have"),
    )
    for name, meaning in sizes:
        parser.add_argument(name, metavar=name.upper(), type=positive_integer, help=meaning)
    parser.add_argument("--kind", choices=KINDS, default="dense", help="of product (dense)")
    numbers = (
        ("--groups", 1, "of a grouped product"),
        ("--alignment", ALIGNMENT, "rows to which contiguous groups are aligned"),
        ("--num-sms", NUM_SMS[ARCH], "multiprocessors"),
        ("--top", 8, "candidates in the table"),
    )
    for option, default, meaning in numbers:
        text = f"{meaning} ({default})"
        parser.add_argument(option, type=positive_integer, default=default, help=text)
    parser.add_argument("--1d1d", dest="is_1d1d", action="store_true", help="a factor per row of B")
    parser.add_argument("--fp32", action="store_true", help="D in FP32 instead of BF16")
    gpu = "whose limits the roofline has, and whose table counts"
    parser.add_argument("--gpu", choices=HBM_TB_PER_S, default=ASSUMED_GPU, help=gpu)
    parser.add_argument("--json", action="store_true", help="everything, as JSON")


def run(options: argparse.Namespace) -> int:
    """Prints it; nothing is compiled."""
    problem = problem_of(options)
    facts = facts_of(problem, options.gpu)
    if options.json:
        print(json.dumps(facts, indent=1))
        return 0
    print_table(_problem_rows(facts), LABEL_WIDTH)
    print()
    rows = facts["candidates"]
    # A table may have chosen another than the cost model's favourites.
    shown = [row for place, row in enumerate(rows) if place < options.top or row["is_chosen"]]
    print_table([HEADER, *map(_candidate_row, shown)])
    print()
    print_table([("removed", "rule", "for example"), *_removed_rows(facts["removed"])])
    return 0


VERB = Verb("explain", "say which kernel a problem gets, and why", add_arguments, run)


def problem_of(options: argparse.Namespace) -> GemmProblem:
    """The problem that the options describe.

    Raises:
        ArgumentError: there is none like it.
    """
    check_dimensions(options.m, options.n, options.k)
    grouping = KINDS[options.kind]
    if grouping is Grouping.DENSE and options.groups != 1:
        raise ArgumentError(f"--groups: needs --kind, got {options.groups}")
    if grouping is Grouping.M_GROUPED and options.is_1d1d:
        raise ArgumentError("--1d1d: m-grouped products have a scale factor per 128 rows of B")
    is_1d1d = options.is_1d1d or grouping is Grouping.K_GROUPED
    alignments = {"contiguous": options.alignment, "masked": MASKED_ALIGNMENT}
    problem = GemmProblem(
        *(options.m, options.n, options.k),
        num_sms=options.num_sms,
        grouping=grouping,
        num_groups=options.groups,
        alignment=alignments.get(options.kind, 1),
        d_bytes=4 if options.fp32 else 2,
        splits_k=grouping is Grouping.DENSE and not is_1d1d,
        gpu=options.gpu,
    )
    return replace(problem, gran_n=1) if is_1d1d else problem


def facts_of(problem: GemmProblem, gpu_name: str) -> Facts:
    """All that is known of a problem without running it."""
    selection, kept, measured = select(problem), list(offered(problem)), find(problem)
    every = ranked(problem, dict.fromkeys([*candidates(problem), *kept]))
    rows = [_candidate(problem, config, cost) for config, cost in every]
    for row, (config, _) in zip(rows, every, strict=True):
        row |= {"is_kept": config in kept, "is_chosen": config == selection.config}
    return {
        "problem": _plain(asdict(problem)),
        "chosen": selection.config.name,
        "measured": {"kernel": measured.config.name, "us": measured.us} if measured else None,
        "band": selection.band,
        "compiled": compiled(problem, selection.config),
        "roofline": roofline(problem, gpu_name),
        "candidates": rows,
        "removed": [{"kernel": config.name, "rules": why} for config, why in removed(problem)],
    }


def _candidate(problem: GemmProblem, config: GemmConfig, cost: Estimate) -> Facts:
    return {
        "kernel": config.name,
        **cost._asdict(),
        "hbm_bytes": hbm_bytes(problem, config),
        "num_stages": config.num_stages,
        "smem_bytes": config.smem_bytes,
        "held_registers": config.held_registers,
    }


def _plain(values: Facts) -> Facts:
    grouping = values["grouping"].name.lower()
    return {**values, "grouping": grouping}


def roofline(problem: GemmProblem, gpu_name: str) -> Facts:
    """Where the problem lies under the roof of a GPU."""
    floor = floor_of(problem, gpu_name)
    flop, num_bytes = num_flop(problem), problem.unique_bytes
    return {
        "gpu": gpu_name,
        "flop": flop,
        "bytes": num_bytes,
        "flop_per_byte": flop / num_bytes,
        "ridge_flop_per_byte": TFLOPS / HBM_TB_PER_S[gpu_name],
        "floor_us": floor.us,
        "why": floor.why,
    }


def compiled(problem: GemmProblem, config: GemmConfig) -> Facts | None:
    """What the compiler said of a kernel, if it is in the cache."""
    try:
        with forbid_compilation():
            kernel = build(generate(config, problem.arch))
    except (CompilationError, MissingDependencyError):
        return None
    names = ("compiler", "registers", "spill_bytes", "seconds")
    return {name: getattr(kernel, name) for name in names}


def removed(problem: GemmProblem) -> Iterator[tuple[GemmConfig, list[str]]]:
    """Every block and cluster worth a look of which no candidate is left, and the rules that it
    breaks."""
    for shape in shapes(problem):
        configs = [
            replace(shape, num_stages=stages, num_store_rounds=rounds)
            for stages, rounds in stages_and_rounds(shape)
        ]
        # Where not even the fewest stages fit, the shape as it is says so.
        reasons = [_reasons(problem, config) for config in configs or [shape]]
        if all(reasons):
            yield (configs or [shape])[0], reasons[0]


def _reasons(problem: GemmProblem, config: GemmConfig) -> list[str]:
    if not stores_heads(config, problem.head_columns):
        return [f"stores_heads: a slab reaches across {problem.head_columns} columns"]
    return broken_rules(config)


def _problem_rows(facts: Facts) -> list[tuple[str, str]]:
    problem, roof, kernel = facts["problem"], facts["roofline"], facts["compiled"]
    groups = f"{problem['num_groups']} x " if problem["grouping"] != "dense" else ""
    size = f"{groups}{problem['m']} x {problem['n']} x {problem['k']}"
    entry = facts["measured"]
    side = "compute" if roof["flop_per_byte"] > roof["ridge_flop_per_byte"] else "HBM"
    said = (
        "not in the cache" if kernel is None else ", ".join(f"{v} {k}" for k, v in kernel.items())
    )
    return [
        ("problem", f"{size} on {problem['num_sms']} SMs"),
        ("floor", f"{roof['floor_us']:.1f} us: {roof['why']}"),
        (
            "roofline",
            f"{roof['flop_per_byte']:.0f} FLOP per byte, the ridge is at "
            f"{roof['ridge_flop_per_byte']:.0f}: below the {side} roof of an {roof['gpu']}",
        ),
        ("chosen", facts["chosen"]),
        (
            "measured",
            f"{entry['us']:.1f} us: chosen by a table" if entry else "no table has it",
        ),
        ("compiled", said),
    ]


def _candidate_row(row: Facts) -> tuple[str | Text, ...]:
    mark = "chosen" if row["is_chosen"] else "kept" if row["is_kept"] else ""
    return (
        *(Text(mark, "green"), row["kernel"], f"{row['us']:.1f}", f"{row['waves']:.3g}"),
        *(f"{row['utilisation']:.0%}", f"{row['hbm_bytes'] / 1e6:.1f}"),
        *(f"{row['k_block_clocks']:.0f}", str(row["num_stages"])),
        f"{row['smem_bytes'] / 1024:.0f} of {SMEM_CAPACITY // 1024}",
        *(str(row["held_registers"]), row["bound"]),
    )


def _removed_rows(removed_shapes: list[Facts]) -> list[tuple[str, str, str]]:
    """One row per rule: how many it removed, and one of them with the reason."""
    found: dict[str, list[tuple[str, str]]] = {}
    for shape in removed_shapes:
        for rule, _, reason in (text.partition(": ") for text in shape["rules"]):
            found.setdefault(rule, []).append((shape["kernel"], reason))
    return [
        (str(len(those)), rule, f"{those[0][0]}: {those[0][1]}") for rule, those in found.items()
    ]
