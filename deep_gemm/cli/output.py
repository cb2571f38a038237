"""Tables and progress that read well on a terminal and in a pipe alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

_PIPE_COLUMNS = 10_000
"""Width of a pipe: whoever reads it wants each fact on one line."""


def print_table(rows: Iterable[Sequence[str | Text]], first_width: int = 0) -> None:
    """Prints rows without borders. On a terminal the last column folds; in a pipe no line does.

    Args:
        rows: cells, as many in every row; a cell may have several lines.
        first_width: columns that the first cells take at least, to line up several tables.
    """
    rows = list(rows)
    table = Table.grid(padding=(0, 2, 0, 0))
    for index in range(len(rows[0])):
        is_last = index == len(rows[0]) - 1
        min_width = first_width if index == 0 else None
        table.add_column(no_wrap=not is_last, overflow="fold", min_width=min_width)
    for row in rows:
        table.add_row(*row)
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    with console.capture() as capture:
        console.print(table)
    # The table pads its lines to its width.
    print("\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n")), flush=True)


def print_line(text: str, style: str = "") -> None:
    """Prints one line, in a style if there is a terminal to show it."""
    Console(markup=False, highlight=False, emoji=False, soft_wrap=True).print(text, style=style)


def progress(text: str) -> Status:
    """A context that shows a spinner and a text while work goes on; on a terminal only.

    It is on stderr, so that it does not mix with the output in a pipe.
    """
    return Console(stderr=True, markup=False, highlight=False).status(text)
