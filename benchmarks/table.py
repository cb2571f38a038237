"""A result file as the README shows it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.children import ROOT, Message

BEGIN = "<!-- benchmarks:dense -->"
END = "<!-- /benchmarks:dense -->"

_TIMES = ("ours_us", "ours_row_major_us", "reference_us", "cublaslt_us", "cublaslt_tensor_us")
_HEAD = (
    *("M", "N", "K", "ours", "ours, row-major SFA", "reference", "cuBLASLt block"),
    *("cuBLASLt tensor", "floor", "speed-up", "floor / ours"),
)


def load(path: Path) -> Message:
    """A result file's object."""
    document: Message = json.loads(path.read_text())
    return document


def rows_of(document: Message, table: str) -> list[Message]:
    """The rows of one table."""
    return [row for row in document["rows"] if row["table"] == table]


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
    parts = [_origin(document), _dense(rows_of(document, "dense")), *summary(document)]
    if picture is not None:
        parts.append(f"![Speed-up of every row over the reference]({picture})")
    for table, title in (
        ("sustained", "Back to back, microseconds per call:"),
        ("host", "Host time, microseconds per call:"),
    ):
        rows = rows_of(document, table)
        if rows:
            parts.append(f"{title}\n\n{_dense(rows)}")
    return "\n\n".join(part for part in parts if part) + "\n"


def write_readme(readme: Path, text: str) -> None:
    """Replaces what stands between the markers.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    old = readme.read_text()
    head, begin, rest = old.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in head + tail:
        raise ValueError(f"{readme} must have {BEGIN} and, below it, {END}, once each")
    readme.write_text(f"{head}{BEGIN}\n{text}{END}{tail}")


def relative(path: Path, folder: Path = ROOT) -> str:
    """The path as a file in `folder` links it; only the name if it lies elsewhere."""
    path = path.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def summary(document: Message) -> list[str]:
    """The figures that matter, one paragraph each."""
    rows = rows_of(document, "dense")
    parts = _against_reference([row for row in rows if speed_up(row) is not None])
    failed = [f"{row_name(row)}: {text}" for row in rows if (text := _failure(row))]
    if failed:
        parts.append(f"Rows that failed: {'; '.join(failed)}.")
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
    sizes = sorted({row["m"] for row in rows})
    per_m = (f"M = {m}: {_mean(row for row in rows if row['m'] == m):.2f}" for m in sizes)
    slower = sorted((row for row in rows if _ratio(row) < 1), key=_ratio)
    listed = ", ".join(f"{row_name(row)} ({_ratio(row):.3f})" for row in slower)
    met = sum(row["ours_us"] <= goal_us(row) for row in rows)
    return [
        f"Speed-up over the reference, geometric mean of {len(rows)} rows: "
        f"**{_mean(rows):.2f}** ({', '.join(per_m)}).",
        f"Rows slower than the reference: {listed or 'none'}.",
        f"Rows that meet their goal (floor x 1.05 + 2.5 us, and the reference): "
        f"{met} of {len(rows)}.",
    ]


def row_name(row: Message) -> str:
    """A row's problem: `16x2112x7168`."""
    return f"{row['m']}x{row['n']}x{row['k']}"


def _failure(row: Message) -> str | None:
    """Why we have no time for a row."""
    text: str | None = row.get("errors", {}).get("ours")
    return text


def _ratio(row: Message) -> float:
    """The speed-up of a row that has one."""
    return float(row["reference_us"]) / float(row["ours_us"])


def _mean(rows: Iterable[Message]) -> float:
    """Geometric mean of the speed-ups."""
    return math.exp(statistics.fmean(math.log(_ratio(row)) for row in rows))


def _origin(document: Message) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    state = [f"driver {document['driver']}"]
    if document.get("clock_mhz"):
        state.append(f"SM clock {document['clock_mhz']:.0f} MHz, {document['power_w']:.0f} W")
    return (
        f"{document['gpu']} ({', '.join(state)}), {document['date']}, commit "
        f"{document['commit']}; {versions}. Microseconds; {document['method']}."
    )


def _dense(rows: Sequence[Message]) -> str:
    """The rows as a table. A column in which nothing was measured is left out."""
    if not rows:
        return ""
    lines = [_cells(row) for row in rows]
    columns = [index for index in range(len(_HEAD)) if any(line[index] for line in lines)]
    table = [_HEAD, ["---"] * len(_HEAD), *([cell or "-" for cell in line] for line in lines)]
    return "\n".join("| " + " | ".join(line[index] for index in columns) + " |" for line in table)


def _cells(row: Message) -> list[str]:
    times = [_number(row.get(name), 1) for name in _TIMES]
    floor, ours = row.get("floor_us"), row.get("ours_us")
    share = floor / ours if floor and ours else None
    sizes = [str(row[name]) for name in ("m", "n", "k")]
    ratios = [_number(speed_up(row), 2), _number(share, 2)]
    return [*sizes, *times, _number(floor, 1), *ratios]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
