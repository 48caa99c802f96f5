"""What a person sees: progress bars on a terminal, plain lines with the time left in a log, tables that fit
both."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from rich.cells import cell_len, set_cell_size
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

from comp.safe_text import told, visible

SECONDS_BETWEEN_LINES = 15.0
GAP = 2  # between columns of a table
LEAST = 16  # characters that are left of shortened text
LONG = 40  # characters that text keeps until the titles are wrapped
LONGEST_NUMBER = 24
MOST_OF_CELL, MOST_OF_LABEL = 500, 60  # characters


def console() -> Console:
    """On standard output as it is now; 100 columns where that is no terminal."""
    seen = sys.stdout.isatty()  # whatever FORCE_COLOR says, which notebooks set
    width = None if seen else 100
    return Console(
        file=sys.stdout, force_terminal=seen, width=width, highlight=False, markup=False, emoji=False
    )


def say(text: str) -> None:
    """A line, whatever the names in it are."""
    print(told(text), flush=True)


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
    """A table whose first column is text and whose others are numbers, or short text. Where it is too wide,
    long text is shortened, then titles are wrapped, then text is shortened more, that of the column
    `shortened` first; at last columns follow below each other. Numbers are never cut."""
    cells = [[visible(cell, MOST_OF_CELL) for cell in row] for row in (columns, *rows)]
    screen = console()
    for number, (shown, widths) in enumerate(_blocks(cells, screen.width, shortened)):
        if number:
            screen.print()
        grid = Table(box=None, pad_edge=False)
        for i, width in zip(shown, widths):
            justify: Literal["left", "right"] = "left" if i in (0, shortened) else "right"
            grid.add_column(cells[0][i], justify=justify, overflow="fold", width=width)
        for row in cells[1:]:
            grid.add_row(*(_cut(row[i], width, i != shortened or i == 0) for i, width in zip(shown, widths)))
        screen.width = max(screen.width, sum(widths) + GAP * (len(widths) - 1))
        screen.print(grid)


def _blocks(cells: list[list[str]], width: int, shortened: int) -> list[tuple[list[int], list[int]]]:
    """The columns that stand beside each other, and their widths: one block of all, or where even the least
    widths of all are too much several, which all begin with the first column."""
    titles, *rows = cells
    every = list(zip(*rows)) if rows else [()] * len(titles)
    words = [max(map(cell_len, title.split()), default=0) for title in titles]
    wrapped = [max([word, *map(cell_len, column)]) for word, column in zip(words, every)]
    least = [max([word, *map(_least, column)]) for word, column in zip(words, every)]
    least[0] = max(words[0], min(wrapped[0], LEAST))
    widths = [max(cell_len(title), known) for title, known in zip(titles, wrapped)]

    def excess() -> int:
        return sum(widths) + GAP * (len(widths) - 1) - width

    roomy = [max(low, min(width, LONG)) for low, width in zip(least, widths)]
    each = range(len(titles))
    for floor, choice in ((roomy, each), (wrapped, each), (least, [shortened]), (least, each)):
        while excess() > 0 and (wide := [i for i in choice if widths[i] > floor[i]]):
            widths[max(wide, key=lambda i: widths[i])] -= 1
    if excess() <= 0:
        return [(list(range(len(titles))), widths)]
    first = min(wrapped[0], max(least[0], width // 3))
    blocks: list[tuple[list[int], list[int]]] = []
    for i in range(1, len(titles)):
        if not any(every[i]):
            continue
        needed = max(least[i], min(wrapped[i], width - first - GAP))
        if not blocks or sum(blocks[-1][1]) + GAP * len(blocks[-1][1]) + needed > width:
            blocks.append(([0], [first]))
        blocks[-1][0].append(i)
        blocks[-1][1].append(needed)
    return blocks or [([0], [first])]


def _least(text: str) -> int:
    """The width that a cell needs: all of '0.93', '+0.0012 +0.0031' and '12.5 MB', part of a name."""
    is_number = len(text) <= LONGEST_NUMBER and text.lstrip("+-")[:1].isdigit()
    return cell_len(text) if is_number else min(cell_len(text), LEAST)


def _cut(text: str, width: int, is_name: bool) -> str:
    """The text, or where it is wider its beginning, and of names the end as well."""
    if cell_len(text) <= width:
        return text
    tail = (width - 1) // 3 if is_name else 0
    end = set_cell_size(text[::-1], tail)[::-1]
    return f"{set_cell_size(text, width - 1 - tail).rstrip()}…{end.lstrip()}"


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
            text, bar = TextColumn("{task.description}", markup=False), BarColumn(bar_width=30)
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
                text = visible(label, MOST_OF_LABEL)
                task = self.tasks[label] = self.live.add_task(text, total=total, count="")
            self.live.update(task, completed=done, total=total, count=" of ".join(count))
        else:
            start, first = self.started.setdefault(label, (now, done))
            if now - self.printed.setdefault(label, now) >= SECONDS_BETWEEN_LINES and first < done < total:
                self.printed[label] = now
                left = (now - start) / (done - first) * (total - done)
                line = f"{visible(label, MOST_OF_LABEL)}: {' of '.join(count)}, {clock(left)} left"
                print(line, file=self.out, flush=True)
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
