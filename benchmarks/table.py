"""A result file as the documents show it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.problems import GROUPED
from benchmarks.results import ROOT
from deep_gemm.tuning.children import Message

_TIMES = {
    "ours_us": "ours",
    "ours_psum_us": "ours, psum layout",
    "ours_row_major_us": "ours, row-major SF",
    "reference_us": "reference",
    "cublaslt_us": "cuBLASLt block",
    "cublaslt_tensor_us": "cuBLASLt tensor",
}
_HEAD = (
    *("table", "groups", "M", "N", "K", *_TIMES.values()),
    *("kernels", "floor", "speed-up", "floor / ours"),
)


def load(path: Path) -> Message:
    """A result file's object."""
    document: Message = json.loads(path.read_text())
    return document


def rows_of(document: Message, table: str) -> list[Message]:
    """The rows of one table."""
    return [row for row in document["rows"] if row["table"] == table]


def main_rows(document: Message) -> list[Message]:
    """The rows that are compared with the reference, of whichever tables there are."""
    return [row for row in document["rows"] if row["table"] in ("dense", *GROUPED)]


def home(document: Message) -> str:
    """The document that shows a result file, from the repository's root."""
    return "README.md" if rows_of(document, "dense") else "docs/speed.md"


def speed_up(row: Message) -> float | None:
    """The reference's time over ours, or None where one of them is missing."""
    if not row.get("ours_us") or not row.get("reference_us"):
        return None
    return _ratio(row)


def goal_us(row: Message) -> float:
    """What a row should take: near its floor, plus a launch, and never above the reference."""
    return float(min(row["reference_us"], row["floor_us"] * 1.05 + 2.5))


def render(document: Message, picture: str | None = None) -> str:
    """Markdown: where it was measured, the tables and their summary.

    Args:
        document: a result file's object.
        picture: path of the chart, as the README has to name it.
    """
    parts = [origin(document), _markdown(main_rows(document)), *summary(document)]
    if picture is not None:
        parts.append(f"![Speed-up of every row over the reference]({picture})")
    for table, title in (
        ("sustained", "Back to back, microseconds per call:"),
        ("host", "Host time, microseconds per call:"),
    ):
        rows = rows_of(document, table)
        if rows:
            parts.append(f"{title}\n\n{_markdown(rows)}")
    return "\n\n".join(part for part in parts if part) + "\n"


def write_between(path: Path, text: str, name: str = "benchmarks") -> None:
    """Replaces what stands between the markers of this name.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    first, last = f"<!-- {name} -->", f"<!-- /{name} -->"
    old = path.read_text()
    head, begin, rest = old.partition(first)
    _, end, tail = rest.partition(last)
    if not begin or not end or first in rest or last in head + tail:
        raise ValueError(f"{path} must have {first} and, below it, {last}, once each")
    path.write_text(f"{head}{first}\n{text}{last}{tail}")


def relative(path: Path, folder: Path = ROOT) -> str:
    """The path as a file in `folder` links it; only the name if it lies elsewhere."""
    path = path.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def summary(document: Message) -> list[str]:
    """The figures that matter, one paragraph each."""
    rows = main_rows(document)
    parts = _against_reference([row for row in rows if speed_up(row) is not None])
    for peer, what in (("ours", "failed"), ("reference", "the reference does not compute")):
        failed = [f"{row_name(row)}: {text}" for row in rows if (text := _failure(row, peer))]
        if failed:
            parts.append(f"Rows that {what}: {'; '.join(failed)}.")
    seconds = [row["compile_s"] for row in rows_of(document, "compile") if "compile_s" in row]
    if seconds:
        parts.append(
            f"Compile time of the {len(seconds)} kernels of this table, cold: median "
            f"{statistics.median(seconds):.2f} s, at most {max(seconds):.2f} s."
        )
    return parts


def _against_reference(rows: Sequence[Message]) -> list[str]:
    """Of rows that both have timed."""
    if not rows:
        return []
    means = (
        f"{label}: {_mean(row for row in rows if _label(row) == label):.2f}"
        for label in dict.fromkeys(map(_label, rows))
    )
    slower = sorted((row for row in rows if _ratio(row) < 1), key=_ratio)
    listed = ", ".join(f"{row_name(row)} ({_ratio(row):.3f})" for row in slower)
    met = sum(row["ours_us"] <= goal_us(row) for row in rows)
    return [
        f"Speed-up over the reference, geometric mean of {len(rows)} rows: "
        f"**{_mean(rows):.2f}** ({', '.join(means)}).",
        f"Rows slower than the reference: {listed or 'none'}.",
        f"Rows that meet their goal (floor x 1.05 + 2.5 us, and the reference): "
        f"{met} of {len(rows)}.",
    ]


def row_name(row: Message) -> str:
    """A row's problem: `16x2112x7168`, or `masked 4x1085x7168x2048` with its groups."""
    sizes = "x".join(str(row[name]) for name in ("groups", "m", "n", "k") if name in row)
    return sizes if row["table"] == "dense" else f"{row['table']} {sizes}"


def _label(row: Message) -> str:
    """What a row has its mean taken with."""
    return f"M = {row['m']}" if row["table"] == "dense" else str(row["table"])


def _failure(row: Message, peer: str) -> str | None:
    """Why a peer has no time for a row."""
    text: str | None = row.get("errors", {}).get(peer)
    return text


def _ratio(row: Message) -> float:
    """The speed-up of a row that has one."""
    return float(row["reference_us"]) / float(row["ours_us"])


def _mean(rows: Iterable[Message]) -> float:
    """Geometric mean of the speed-ups."""
    return math.exp(statistics.fmean(math.log(_ratio(row)) for row in rows))


def origin(document: Message) -> str:
    """Where and how a result file was measured, in a sentence or two."""
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    state = [f"driver {document['driver']}"]
    if document.get("clock_mhz"):
        state.append(f"SM clock {document['clock_mhz']:.0f} MHz, {document['power_w']:.0f} W")
    return (
        f"{document['gpu']} ({', '.join(state)}), {document['date']}, commit "
        f"{document['commit']}; {versions}. Microseconds; {document['method']}."
    )


def _markdown(rows: Sequence[Message]) -> str:
    """The rows as a table. A column in which nothing was measured is left out."""
    if not rows:
        return ""
    lines = [_cells(row) for row in rows]
    columns = [index for index in range(len(_HEAD)) if any(line[index] for line in lines)]
    table = [_HEAD, ["---"] * len(_HEAD), *([cell or "-" for cell in line] for line in lines)]
    return "\n".join("| " + " | ".join(line[index] for index in columns) + " |" for line in table)


def _cells(row: Message) -> list[str]:
    kind = row.get("of", row["table"])
    sizes = [str(row.get(name, "")) for name in ("groups", "m", "n", "k")]
    times = [_number(row.get(name), 1) for name in _TIMES]
    floor, ours = row.get("floor_us"), row.get("ours_us")
    share = floor / ours if floor and ours else None
    ratios = [_number(speed_up(row), 2), _number(share, 2)]
    named = [kind if kind in GROUPED else "", *sizes]
    return [*named, *times, _num_kernels(row), _number(floor, 1), *ratios]


def _num_kernels(row: Message) -> str:
    """What one call launches, of ours and of the reference; nothing where it is one kernel."""
    counts = [row.get("num_kernels", {}).get(variant) for variant in ("ours", "reference")]
    if all(count in (None, 1) for count in counts):
        return ""
    return " / ".join(str(count or "-") for count in counts)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
