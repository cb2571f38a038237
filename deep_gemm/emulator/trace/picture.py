"""A trace as a timeline: who waits for whom, at a glance."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deep_gemm.emulator.trace import ring
from deep_gemm.emulator.trace.machine import Event

Span = tuple[float, float]

NOTE = "times are modelled, not measured"

MAX_TEXTS = 24
"""Texts of a line that can be read side by side."""

COLOURS: dict[str, str] = {
    "load in flight": "#a9cbe8",
    "stage full": "#2f6fab",
    "stage read by wgmma": "#f3d3a2",
    "wgmma, warpgroup 0": "#e9a03b",
    "wgmma, warpgroup 1": "#b5651d",
    "promotion": "#3f9b5f",
    "epilogue": "#8e5ea8",
    "TMA store": "#d46a9f",
    "issue of loads, wgmma": "#333333",
    "other work": "#9a9a9a",
    "waiting for wgmma": "#f7ead6",
    "other waiting": "#e0e0e0",
}
"""By what is shown, in the order of the legend."""


_KEYS = {
    "issue": "issue of loads, wgmma",
    "wait for a barrier": "other waiting",
    "wait for wgmma": "waiting for wgmma",
    "wait for stores": "other waiting",
    "wait for copies": "other waiting",
    "wait for warps": "other waiting",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the timeline.

    Attributes:
        label: on the left.
        height: 1 for a warp.
        spans: (start, end) in clocks, by key of COLOURS.
        texts: what stands where, in clocks.
    """

    label: str
    height: float
    spans: Mapping[str, Sequence[Span]]
    texts: Sequence[tuple[float, str]] = ()


def rows_of(events: Sequence[Event], cta: int, name: Callable[[int], str]) -> list[Row]:
    """The lines of one CTA: loading warps, stages, tensor cores, math warpgroups, stores."""
    own = [event for event in events if event.cta == cta]
    by_warp = {
        warp: [event for event in own if event.warp == warp] for warp in {e.warp for e in own}
    }
    roles = {warp: ring.role(events) for warp, events in sorted(by_warp.items())}
    rows = [_warp_row(roles[w], by_warp[w]) for w in roles if roles[w].startswith(("load", "SF"))]
    rows += _stage_rows(events, cta, name)
    rows.append(_tensor_row(own))
    # A warpgroup's four warps do the same: the first one stands for all.
    rows += [_warp_row(roles[w], by_warp[w]) for w in roles if w % 4 == 0 and "math" in roles[w]]
    stores = [(event.start, event.end) for event in own if event.kind == "store"]
    rows.append(Row("TMA stores", 0.7, {"TMA store": stores}))
    return rows


def _warp_row(label: str, events: Iterable[Event]) -> Row:
    spans: dict[str, list[Span]] = {}
    for event in events:
        key = _KEYS.get(event.kind, event.kind)
        if key in COLOURS:
            spans.setdefault(key, []).append((event.start, event.end))
    return Row(label, 1.0, spans)


def _stage_rows(events: Sequence[Event], cta: int, name: Callable[[int], str]) -> list[Row]:
    uses = [use for use in ring.rounds(events) if use.cta == cta]
    num_stages = sum(owner == cta for owner, _ in ring.stages(events))
    rows = []
    for stage in sorted({use.stage for use in uses}):
        own = [use for use in uses if use.stage == stage]
        spans = {
            "load in flight": [(use.issued, use.landed) for use in own],
            "stage full": [(use.landed, use.first_read) for use in own],
            "stage read by wgmma": [(use.first_read, use.last_read) for use in own],
        }
        texts = [
            ((use.issued + use.landed) / 2, name(use.index * num_stages + stage)) for use in own
        ]
        rows.append(Row(f"stage {stage}", 0.5, spans, texts))
    return rows


def _tensor_row(events: Iterable[Event]) -> Row:
    spans: dict[str, list[Span]] = {}
    for event in events:
        if event.kind == "wgmma":
            key = f"wgmma, warpgroup {event.args['warpgroup']}"
            spans.setdefault(key, []).append((event.start, event.end))
    return Row("tensor cores", 1.0, spans)


def joined(spans: Iterable[Span], gap: float) -> list[Span]:
    """The spans in order, those joined that are at most `gap` apart; empty ones left out."""
    result: list[Span] = []
    for start, end in sorted(span for span in spans if span[1] > span[0]):
        if result and start - result[-1][1] <= gap:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def draw(events: Sequence[Event], title: str, path: Path, name: Callable[[int], str] = str) -> None:
    """Draws all CTAs of a trace, one below the other.

    Args:
        events: of `replay`.
        title: what was traced.
        path: of the picture; its suffix says which format.
        name: of the k block with a number, counted from the kernel's start.

    Raises:
        ImportError: matplotlib is not installed (the extra `bench` has it).
        ValueError: matplotlib does not know the suffix.
        OSError: the file cannot be written.
    """
    # Not an import statement: type checkers run where matplotlib is not installed, too.
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    ctas = sorted({event.cta for event in events})
    panels = [rows_of(events, cta, name) for cta in ctas]
    heights = [sum(row.height for row in rows) for rows in panels]
    # Text stays text, and the same trace gives the same file.
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "deep_gemm",
        "font.sans-serif": ["DejaVu Sans"],
    }
    with matplotlib.rc_context(style):
        figure, all_axes = pyplot.subplots(
            len(ctas),
            figsize=(13, 1.6 + 0.31 * sum(heights)),
            sharex=True,
            squeeze=False,
            layout="constrained",
            height_ratios=heights,
        )
        end = max(event.end for event in events)
        for axes, cta, rows in zip(all_axes[:, 0], ctas, panels, strict=True):
            _draw_rows(axes, rows, end)
            axes.set_title(f"CTA {cta}", loc="left", fontsize=9, fontweight="bold")
        all_axes[-1, 0].set_xlabel(f"SM clocks since the kernel began ({NOTE})")
        figure.suptitle(title, fontsize=11)
        _legend(figure, panels)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        pyplot.close(figure)


def _draw_rows(axes: Any, rows: Sequence[Row], end: float) -> None:
    top, ticks = 0.0, []
    for row in rows:
        bottom, height = top + 0.06, row.height - 0.1
        for key, spans in row.spans.items():
            axes.add_patch(_bars(joined(spans, end / 2000), bottom, height, COLOURS[key]))
        if len(row.texts) <= MAX_TEXTS:
            for x, text in row.texts:
                axes.text(x, top + row.height / 2, text, fontsize=6, ha="center", va="center")
        ticks.append(top + row.height / 2)
        top += row.height
    axes.set_yticks(ticks, [row.label for row in rows], fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(top, 0)
    axes.set_xlim(0, end)
    axes.grid(axis="x", color="#cccccc", linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _bars(spans: Sequence[Span], bottom: float, height: float, colour: str) -> Any:
    """Rectangles as one path, which keeps an SVG small."""
    Path = importlib.import_module("matplotlib.path").Path
    corners, codes = [], []
    for start, end in spans:
        top = bottom + height
        corners += [(start, bottom), (end, bottom), (end, top), (start, top), (start, bottom)]
        codes += [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    outline = Path(corners, codes) if corners else Path([(0, 0)])
    patches = importlib.import_module("matplotlib.patches")
    return patches.PathPatch(outline, facecolor=colour, linewidth=0)


def _legend(figure: Any, panels: Sequence[Sequence[Row]]) -> None:
    """The colours that occur."""
    patches = importlib.import_module("matplotlib.patches")
    used = {key for rows in panels for row in rows for key, spans in row.spans.items() if spans}
    handles = [patches.Patch(color=COLOURS[key], label=key) for key in COLOURS if key in used]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
