"""Output for people: lines, tables that fit the terminal, and progress bars; in a log, progress is printed as
lines with the time left."""

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

from comp.safe_text import sanitize, visible

SECONDS_BETWEEN_LINES = 15.0
REPEAT_SECONDS = 2.0  # between lines about slow work on a terminal
COLUMN_GAP = 2  # characters between columns of a table
MIN_TEXT_WIDTH = 16  # characters; text is never shortened further
LONG_TEXT_WIDTH = 40  # characters; titles are wrapped before text is shortened further
MAX_NUMBER_LENGTH = 24  # characters
MAX_CELL_LENGTH, MAX_LABEL_LENGTH = 500, 60  # characters


def console() -> Console:
    """Return a console on the current standard output; 100 columns wide if that is not a terminal."""
    is_terminal = sys.stdout.isatty()  # FORCE_COLOR, which notebooks set, is ignored
    width = None if is_terminal else 100
    return Console(
        file=sys.stdout, force_terminal=is_terminal, force_jupyter=False, width=width,
        highlight=False, markup=False, emoji=False,
    )  # fmt: skip


def info(text: str) -> None:
    """Print one line; control characters and secrets in it are made safe."""
    print(sanitize(text), flush=True)


@contextlib.contextmanager
def announce_if_slow(text: str, after: float | None = None) -> Iterator[None]:
    """Print the text if the block takes longer than `after` seconds: 1 on a terminal, where a person waits,
    and 10 in a log, unless given. On a terminal, print it again every REPEAT_SECONDS."""
    if after is None:
        after = 1.0 if sys.stdout.isatty() else 10.0
    done, started = threading.Event(), time.monotonic()

    def announce() -> None:
        if done.wait(after):
            return
        info(text)
        while sys.stdout.isatty() and not done.wait(REPEAT_SECONDS):
            info(f"{text}, {time.monotonic() - started:.0f} s")

    threading.Thread(target=announce, daemon=True).start()
    try:
        yield
    finally:
        done.set()


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, shortened: int = 0) -> None:
    """Print a table. The first column is text, the others are numbers or short text. A table that is too wide
    is fitted in steps: long text is shortened; titles are wrapped; text is shortened more, first that of the
    column `shortened`; the columns are printed in several blocks. Numbers are never cut."""
    cells = [[visible(cell, MAX_CELL_LENGTH) for cell in row] for row in (columns, *rows)]
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
        screen.width = max(screen.width, sum(widths) + COLUMN_GAP * (len(widths) - 1))
        screen.print(grid)


def show_headline(title: str, metric: str, score: float, *, chosen: bool) -> None:
    """Print the score of a run in a table of its own. With `chosen` it counts a choice: each fold is decided
    by what the other folds chose."""
    table([title, metric], [["as chosen fold by fold" if chosen else "cross-fitted", f"{score:.4f}"]])


def _blocks(cells: list[list[str]], width: int, shortened: int) -> list[tuple[list[int], list[int]]]:
    """Return blocks of columns that are printed side by side: (column numbers, widths). All columns are one
    block, unless their smallest widths are too wide together. Each block begins with the first column."""
    titles, *rows = cells
    every = list(zip(*rows)) if rows else [()] * len(titles)
    words = [max(map(cell_len, title.split()), default=0) for title in titles]
    wrapped = [max([word, *map(cell_len, column)]) for word, column in zip(words, every)]
    least = [max([word, *map(_least, column)]) for word, column in zip(words, every)]
    least[0] = max(words[0], min(wrapped[0], MIN_TEXT_WIDTH))
    widths = [max(cell_len(title), known) for title, known in zip(titles, wrapped)]

    def excess() -> int:
        return sum(widths) + COLUMN_GAP * (len(widths) - 1) - width

    roomy = [max(low, min(width, LONG_TEXT_WIDTH)) for low, width in zip(least, widths)]
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
        needed = max(least[i], min(wrapped[i], width - first - COLUMN_GAP))
        if not blocks or sum(blocks[-1][1]) + COLUMN_GAP * len(blocks[-1][1]) + needed > width:
            blocks.append(([0], [first]))
        blocks[-1][0].append(i)
        blocks[-1][1].append(needed)
    return blocks or [([0], [first])]


def _least(text: str) -> int:
    """Return the smallest width of a cell: all of '0.93', '+0.0012 +0.0031' and '12.5 MB', part of a name."""
    is_number = len(text) <= MAX_NUMBER_LENGTH and text.lstrip("+-")[:1].isdigit()
    return cell_len(text) if is_number else min(cell_len(text), MIN_TEXT_WIDTH)


def _cut(text: str, width: int, is_name: bool) -> str:
    """Return the text, shortened to `width`: its beginning is kept, and the end of a name."""
    if cell_len(text) <= width:
        return text
    tail = (width - 1) // 3 if is_name else 0
    end = set_cell_size(text[::-1], tail)[::-1]
    return f"{set_cell_size(text, width - 1 - tail).rstrip()}…{end.lstrip()}"


def size_text(n_bytes: float) -> str:
    """Return '1.4 GB', '603.2 MB' or '12 kB'."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:,.1f} {unit}"
    return f"{n_bytes / 1e3:,.0f} kB"


def leaderboard_text(score: float) -> str:
    """Return a leaderboard score. Kaggle rounds to five digits, so these are shown; a score that was computed
    here has more, and is rounded to four."""
    as_on_kaggle = f"{score:.5f}"
    return as_on_kaggle if float(as_on_kaggle) == score else f"{score:.4f}"


def clock(seconds: float) -> str:
    """Return '1:02:03', or '2:03' for less than an hour."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class ProgressBars:
    """Progress of several labelled counts at once."""

    def __init__(self) -> None:
        self.live: Progress | None = None
        self.out = sys.stdout  # bars stay here while standard output is redirected
        if sys.stdout.isatty():
            text, bar = TextColumn("{task.description}", markup=False), BarColumn(bar_width=30)
            count = TextColumn("{task.fields[count]}")
            self.live = Progress(
                text, bar, count, TimeElapsedColumn(), "left", TimeRemainingColumn(), console=console()
            )
        self.tasks: dict[str, TaskID] = {}
        self.started: dict[str, tuple[float, float]] = {}
        self.printed: dict[str, float] = {}

    def __enter__(self) -> "ProgressBars":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def update(
        self, label: str, done: int, total: int, *, share: float | None = None, in_bytes: bool = False
    ) -> None:
        """Show that `label` is at `done` of `total`. `share` of the work is done, from which the time left
        follows; by default done / total."""
        now = time.monotonic()
        share = done / max(1, total) if share is None else share
        count = [size_text(n) if in_bytes else f"{n:,}" for n in (done, total)]
        if self.live:
            task = self.tasks.get(label)
            if task is None:
                text = visible(label, MAX_LABEL_LENGTH)
                task = self.tasks[label] = self.live.add_task(text, total=1.0, count="")
            self.live.update(task, completed=share, count=" of ".join(count))
        else:
            start, first = self.started.setdefault(label, (now, share))
            if now - self.printed.setdefault(label, now) >= SECONDS_BETWEEN_LINES and first < share < 1:
                self.printed[label] = now
                left = (now - start) / (share - first) * (1 - share)
                line = f"{visible(label, MAX_LABEL_LENGTH)}: {' of '.join(count)}, {clock(left)} left"
                print(line, file=self.out, flush=True)
        if done >= total:
            self.started.pop(label, None)
            if self.live and label in self.tasks:
                self.live.remove_task(self.tasks.pop(label))


@contextlib.contextmanager
def progress(label: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show a progress bar; yield a function to call with the number of items done since the last call."""
    with ProgressBars() as bars:
        bars.update(label, done, total)

        def advance(n: int) -> None:
            nonlocal done
            done += n
            bars.update(label, done, total)

        yield advance
