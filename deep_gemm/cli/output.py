"""Tables and progress that read well on a terminal and in a pipe alike."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
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


class ProgressBar:
    """A bar for one stage after the other, on stderr, and on a terminal only; and lines that stay.

    A context: the bar goes when it ends.
    """

    def __init__(self, text: str = "starting") -> None:
        console = Console(stderr=True, markup=False, highlight=False, emoji=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(
            *(*columns, TimeRemainingColumn()),
            console=console,
            transient=True,
            redirect_stdout=False,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(text, total=None)

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def begin(self, text: str, total: int) -> None:
        """A stage of so many steps begins."""
        self._progress.reset(self._task, description=text, total=total)

    def reach(self, done: int) -> None:
        """So many of them are done."""
        self._progress.update(self._task, completed=done)

    def say(self, line: str) -> None:
        """Prints a line on stdout; on a terminal above the bar."""
        if self._progress.console.is_terminal and sys.stdout.isatty():
            self._progress.console.print(line, soft_wrap=True)
        else:
            print(line, flush=True)
