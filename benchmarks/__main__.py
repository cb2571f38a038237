"""`python -m benchmarks VERB`; without a verb: the dense table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import (
    bandwidth,
    compare,
    compiling,
    dense,
    grouped,
    layouts,
    mqa,
    quantize,
    regret,
    results,
    run,
    sweep,
    table,
    transpose,
)
from benchmarks.problems import choose, choose_grouped
from benchmarks.results import ROOT
from deep_gemm.cli.output import ProgressBar
from deep_gemm.tuning.children import ChildDied, Message, log
from deep_gemm.tuning.tuner import Options, Tuner

RESULTS = ROOT / "benchmarks" / "results"
PEER = ROOT / "third-party" / "peer"
NUM_SMS = 132
ROWS = "such as 16x2112x7168 or 16x*x*; of the grouped tables masked or wgrad-*x7168"
BANDWIDTH: dict[str, Sequence[bandwidth.Problem]] = {
    "transpose": transpose.PROBLEMS,
    "layouts": layouts.PROBLEMS,
    "quantize": quantize.PROBLEMS,
}
NEED_A_GPU = ("dense", "grouped", *BANDWIDTH, "mqa", "sweep", "compare")


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv or ["dense"])
    verbs = {
        "dense": _dense,
        "grouped": _grouped,
        **dict.fromkeys(BANDWIDTH, _bandwidth),
        "mqa": _mqa,
        "sweep": _sweep,
        "compare": _compare,
        "regret": _regret,
        "compile": _compile,
        "table": _table,
    }
    if arguments.verb in NEED_A_GPU and not torch.cuda.is_available():
        log(f"{arguments.verb}: needs an NVIDIA GPU, and torch {torch.__version__} found none")
        return 1
    try:
        return verbs[arguments.verb](arguments)
    except (ChildDied, RuntimeError, ValueError) as error:
        log(f"{arguments.verb}: {error}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)

    verb = verbs.add_parser("dense", help="the dense table beside its peers")
    _add_run(verb, dense.PEERS, budget=420, passes=5, sustained=0.5)
    verb.add_argument("--host-calls", type=int, default=2000, help="0 leaves the host's time out")

    verb = verbs.add_parser("grouped", help="grouped GEMMs and weight gradients beside their peer")
    _add_run(verb, grouped.PEERS, budget=150, passes=3, sustained=0.2)

    for name, text in (
        ("transpose", "the transposing kernel beside torch's copy"),
        ("layouts", "the kernels that pack scale factors beside torch"),
        ("quantize", "the casts to FP8 beside PyTorch's definition"),
    ):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
        verb.add_argument("--commit", help="what is measured, where there is no repository")
        verb.add_argument("--passes", type=int, default=5)

    verb = verbs.add_parser("mqa", help="MQA logits beside their peer")
    _add_measured(verb, budget=200, rows="such as paged-* or *-h64-d128")
    verb.add_argument("--peer-path", type=Path, default=PEER, help="where the reference is")
    verb.add_argument("--passes", type=int, default=3)

    verb = verbs.add_parser("sweep", help="many configurations of every row")
    _add_measured(verb, budget=420)
    verb.add_argument("--top", type=int, default=0, help="only so many, by the cost model")
    verb.add_argument("--repeats", type=int, default=3, help="rounds of each configuration")

    verb = verbs.add_parser("compare", help="checkouts of this library beside each other")
    verb.add_argument("folders", nargs="+", type=Path, help="the first is compared with")
    verb.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    verb.add_argument("--rows", nargs="+", default=[], help="of the dense table: 512x*x7168")
    verb.add_argument("--grouped-rows", nargs="+", default=[], help="such as masked or wgrad-*")
    verb.add_argument("--passes", type=int, default=5)
    verb.add_argument("--repeats", type=int, default=7, help="calls of each row in a pass")
    verb.add_argument("--budget", type=float, default=200, help="seconds, then it rounds off")

    verb = verbs.add_parser("compile", help="compile times; needs no GPU")
    _add_rows(verb)
    verb.add_argument("--jobs", type=int, default=compiling.half_the_cores())

    verb = verbs.add_parser("regret", help="the cost model's choices against a sweep; no GPU")
    verb.add_argument("sweep", type=Path)

    verb = verbs.add_parser("table", help="a result file as Markdown and as a picture")
    verb.add_argument("result", type=Path)
    verb.add_argument("--write", action="store_true", help="put it where it is shown")
    return parser


def _add_rows(verb: argparse.ArgumentParser, rows: str = ROWS) -> None:
    verb.add_argument("--rows", nargs="+", default=[], help=rows)


def _add_measured(verb: argparse.ArgumentParser, budget: float, rows: str = ROWS) -> None:
    _add_rows(verb, rows)
    verb.add_argument("--out", type=Path, default=RESULTS, help="folder of the result file")
    verb.add_argument("--commit", help="what is measured, where there is no repository")
    verb.add_argument("--budget", type=float, default=budget, help="seconds, then it rounds off")


def _add_run(
    verb: argparse.ArgumentParser,
    peers: tuple[str, ...],
    budget: float,
    passes: int,
    sustained: float,
) -> None:
    _add_measured(verb, budget)
    verb.add_argument("--peers", nargs="+", choices=peers, default=peers)
    verb.add_argument("--peer-path", type=Path, default=PEER, help="where the reference is")
    verb.add_argument("--passes", type=int, default=passes)
    verb.add_argument("--repeats", type=int, default=10, help="calls of each row in a pass")
    verb.add_argument(
        "--sustained", type=float, default=sustained, help="seconds back to back per long row"
    )


def _dense(arguments: argparse.Namespace) -> int:
    problems, shared = choose(arguments.rows), _run_options(arguments)
    options = dense.Options(problems=problems, host_calls=arguments.host_calls, **shared)
    return _show(dense.measure(options), arguments)


def _grouped(arguments: argparse.Namespace) -> int:
    problems, shared = choose_grouped(arguments.rows), _run_options(arguments)
    return _show(grouped.measure(run.Options(problems=problems, **shared)), arguments)


def _bandwidth(arguments: argparse.Namespace) -> int:
    path = bandwidth.run(
        arguments.verb,
        BANDWIDTH[arguments.verb],
        bandwidth.Options(
            out=arguments.out,
            passes=arguments.passes,
            commit=arguments.commit or results.describe_commit(),
        ),
    )
    print(bandwidth.render(table.load(path)))
    log(f"wrote {path}")
    return 0


def _mqa(arguments: argparse.Namespace) -> int:
    path = mqa.run(
        mqa.Options(
            out=arguments.out,
            peer_path=arguments.peer_path,
            problems=mqa.choose(arguments.rows),
            passes=arguments.passes,
            budget=arguments.budget,
            commit=arguments.commit or results.describe_commit(),
        )
    )
    print(mqa.render(table.load(path)))
    log(f"wrote {path}")
    return 0


def _run_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the runs of all tables have in common; without the reference where it cannot run."""
    peers = tuple(arguments.peers)
    if "reference" in peers and (reason := run.why_no_reference(arguments.peer_path)):
        log(reason)
        peers = tuple(peer for peer in peers if peer != "reference")
    return {
        "out": arguments.out,
        "peers": peers,
        "peer_path": arguments.peer_path.resolve(),
        "passes": arguments.passes,
        "repeats": arguments.repeats,
        "sustained_seconds": arguments.sustained,
        "budget": arguments.budget,
        "commit": arguments.commit or results.describe_commit(),
    }


def _show(path: Path, arguments: argparse.Namespace) -> int:
    """Prints a run's tables; 1 if a row of ours has no time."""
    document = table.load(path)
    picture = _draw(document, path)
    print(table.render(document, picture.name if picture else None))
    log(f"wrote {path}")
    complete = all(row["ours_us"] for row in table.main_rows(document))
    return 0 if complete or "ours" not in arguments.peers else 1


def _sweep(arguments: argparse.Namespace) -> int:
    options = Options(
        problems=sweep.choose_problems(arguments.rows),
        out=arguments.out,
        top=arguments.top,
        repeats=arguments.repeats,
        budget=arguments.budget,
        jobs=compiling.all_cores(),
        version=arguments.commit or results.describe_commit(),
    )
    with ProgressBar() as bar:
        summary = Tuner(options, bar).run()
    log(summary.text)
    return 1 if summary.num_failed else 0


def _compare(arguments: argparse.Namespace) -> int:
    grouped_rows = arguments.grouped_rows
    some = [*choose(arguments.rows)] if arguments.rows or not grouped_rows else []
    path = compare.run(
        compare.Options(
            out=arguments.out,
            folders=arguments.folders,
            problems=[*some, *(choose_grouped(grouped_rows) if grouped_rows else ())],
            passes=arguments.passes,
            repeats=arguments.repeats,
            budget=arguments.budget,
        )
    )
    print(compare.render(table.load(path)))
    log(f"wrote {path}")
    return 0


def _regret(arguments: argparse.Namespace) -> int:
    print(regret.report(arguments.sweep))
    return 0


def _compile(arguments: argparse.Namespace) -> int:
    """Compiles in a cache of its own, so that every kernel is cold."""
    import tempfile

    configs = compiling.chosen_configs(choose(arguments.rows), NUM_SMS)
    with tempfile.TemporaryDirectory(prefix="deep_gemm_", ignore_cleanup_errors=True) as folder:
        env = {"DG_JIT_CACHE_DIR": folder}
        rows = compiling.compile_kernels(configs, arguments.jobs, env)
    for row in sorted(rows, key=lambda row: row["config"]):
        print(" ".join(f"{name}={value}" for name, value in row.items()))
    print(compiling.summarise(rows))
    return 0 if len(rows) == len(configs) and not any("error" in row for row in rows) else 1


def _table(arguments: argparse.Namespace) -> int:
    document = table.load(arguments.result)
    name = document["rows"][0]["table"]
    if name == "mqa":
        print(mqa.render(document))
        return 0
    if name in BANDWIDTH:
        text = f"{table.origin(document)}\n\n{bandwidth.render(document)}\n"
        print(text)
        if arguments.write:
            table.write_between(ROOT / "docs" / "bandwidth.md", text, name)
        return 0
    picture = _draw(document, arguments.result)
    text = table.render(document, table.relative(picture) if picture else None)
    print(text)
    if arguments.write:
        table.write_between(ROOT / table.home(document), text)
    return 0


def _draw(document: Message, result: Path) -> Path | None:
    """The chart beside the result file; None without matplotlib."""
    try:
        from benchmarks.chart import draw

        return draw(document, result.with_suffix(".svg"))
    except ImportError as error:
        log(f"no picture: {error} (pip install '.[bench]')")
        return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
