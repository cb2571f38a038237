"""A result file as a picture: how much faster than the reference each row is."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.table import goal_us, rows_of, speed_up
from deep_gemm.tuning.children import Message

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FASTER = "#1b7f5c"
SLOWER = "#c8442b"
GOAL = "#7d8791"
_GAP = 0.8


def draw(document: Message, path: Path) -> Path | None:
    """Draws the dense rows that have a speed-up; None if there are none.

    Raises:
        ImportError: matplotlib is not installed (the extra `bench` has it).
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [row for row in rows_of(document, "dense") if speed_up(row) is not None]
    if not rows:
        return None
    rows.sort(key=lambda row: row["m"])
    num_groups = len({row["m"] for row in rows})
    height = 1.6 + 0.19 * (len(rows) + _GAP * num_groups)
    # Text stays text, and the same data give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "deep_gemm"}):
        figure, axes = pyplot.subplots(figsize=(8.5, height), layout="constrained")
        _draw_rows(axes, rows)
        _decorate(axes, document)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        pyplot.close(figure)
    return path


def _draw_rows(axes: Axes, rows: list[Message]) -> None:
    """One line per row from 1 to its speed-up, in groups of one M."""
    position, ticks, labels = 0.0, [], []
    for m, group in groupby(rows, key=lambda row: row["m"]):
        members = list(group)
        axes.text(
            1.01,
            position + (len(members) - 1) / 2,
            f"M = {m}",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontweight="bold",
        )
        for row in members:
            ratio = speed_up(row) or 1.0
            color = FASTER if ratio >= 1 else SLOWER
            axes.plot([1, ratio], [position, position], color=color, linewidth=2)
            axes.plot(ratio, position, "o", color=color, markersize=5)
            goal = row["reference_us"] / goal_us(row)
            axes.plot(goal, position, "|", color=GOAL, markersize=8)
            ticks.append(position)
            labels.append(f"{row['n']} × {row['k']}")
            position += 1
        position += _GAP
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.set_ylim(position - _GAP, -1)


def _decorate(axes: Axes, document: Message) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 6]
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if low <= tick <= high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.grid(axis="x", color="#e3e6ea")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("the reference's kernel time / ours (log scale)")
    axes.text(-0.01, 1, "N × K", transform=axes.transAxes, ha="right", fontsize=8)
    axes.set_title(
        f"FP8 GEMM against the reference: {document['gpu']}, {document['date']}", loc="left"
    )
    handles = [
        Line2D([], [], color=FASTER, marker="o", label="faster"),
        Line2D([], [], color=SLOWER, marker="o", label="slower"),
        Line2D([], [], color=GOAL, marker="|", linestyle="", label="goal"),
    ]
    axes.legend(handles=handles, loc="lower right", frameon=False, fontsize=8)
