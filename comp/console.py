"""What a person sees: progress bars on a terminal, plain lines with the time left in a log, tables that fit
both."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

SECONDS_BETWEEN_LINES = 15.0


def console() -> Console:
    """On standard output as it is now; 100 columns where that is no terminal."""
    seen = sys.stdout.isatty()  # whatever FORCE_COLOR says, which notebooks set
    width = None if seen else 100
    return Console(file=sys.stdout, force_terminal=seen, width=width, highlight=False, markup=False)


def say(text: str) -> None:
    print(text, flush=True)


@contextlib.contextmanager
def said_if_slow(text: str, after: float = 1.0) -> Iterator[None]:
    """Say it where what is done here takes longer than `after` seconds."""
    timer = threading.Timer(after, say, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, shortened: int = 0) -> None:
    """A table whose first column is text and whose others are numbers. Where it is too wide, the column
    `shortened`, which is text as well, is cut."""
    cells = [[str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells)]
    screen = console()
    spare = max(8, screen.width - sum(widths) + widths[shortened] - 2 * (len(columns) - 1))
    grid = Table(box=None, pad_edge=False)
    for i, column in enumerate(columns):
        justify: Literal["left", "right"] = "left" if i in (0, shortened) else "right"
        grid.add_column(column, justify=justify, no_wrap=True, overflow="ellipsis")
    for row in cells[1:]:
        text = row[shortened]
        row[shortened] = text if len(text) <= spare else text[: spare - 1] + "…"
        grid.add_row(*row)
    screen.print(grid)


def size_text(n_bytes: float) -> str:
    """'1.4 GB', '603.2 MB', '12 kB'."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes / 1e3:,.0f} kB"


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Bars:
    """Several labelled counts that move at once."""

    def __init__(self) -> None:
        self.live: Progress | None = None
        self.out = sys.stdout  # as it is now: while it is redirected, bars go on
        if sys.stdout.isatty():
            text, bar = TextColumn("{task.description}"), BarColumn(bar_width=30)
            count = TextColumn("{task.fields[count]}")
            self.live = Progress(
                text, bar, count, TimeElapsedColumn(), "left", TimeRemainingColumn(), console=console()
            )
        self.tasks: dict[str, TaskID] = {}
        self.started: dict[str, tuple[float, int]] = {}
        self.printed: dict[str, float] = {}

    def __enter__(self) -> "Bars":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def at(self, label: str, done: int, total: int, *, in_bytes: bool = False) -> None:
        """`label` has come to `done` of `total`."""
        now = time.monotonic()
        count = [size_text(n) if in_bytes else f"{n:,}" for n in (done, total)]
        if self.live:
            task = self.tasks.get(label)
            if task is None:
                task = self.tasks[label] = self.live.add_task(label, total=total, count="")
            self.live.update(task, completed=done, total=total, count=" of ".join(count))
        else:
            start, first = self.started.setdefault(label, (now, done))
            if now - self.printed.setdefault(label, now) >= SECONDS_BETWEEN_LINES and first < done < total:
                self.printed[label] = now
                left = (now - start) / (done - first) * (total - done)
                print(f"{label}: {' of '.join(count)}, {clock(left)} left", file=self.out, flush=True)
        if done >= total:
            self.started.pop(label, None)
            if self.live and label in self.tasks:
                self.live.remove_task(self.tasks.pop(label))


@contextlib.contextmanager
def progress(label: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yield a function that is told how many more are done."""
    with Bars() as bars:
        bars.at(label, done, total)

        def advance(n: int) -> None:
            nonlocal done
            done += n
            bars.at(label, done, total)

        yield advance
