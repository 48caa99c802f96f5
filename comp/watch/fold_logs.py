"""What the files of a run say while it is trained. They are only read, without a lock, so that a training
never waits; a file is read again where it has changed."""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from comp.artifacts.files import parse_json
from comp.artifacts.paths import checkpoint_path, log_path, model_path, started_path
from comp.artifacts.schemas import Epoch, TrainingStart
from comp.config.recipe import Phase, Recipe
from comp.errors import CompError
from comp.safe_text import visible
from comp.training.schedule import epoch_work, phase_at

# a training counts as stopped after so long without news: epochs, at least seconds
QUIET_EPOCHS, QUIET_SECONDS = 3.0, 120.0
FIRST_EPOCH_SECONDS = 3600.0  # the same, where no epoch has ended yet
MAX_NAME = 60  # characters
MAX_KEPT = 5000  # rows of logs, of about 2 kB
Content = TypeVar("Content")


class FileCache:
    """The contents of files, read again where their time, size or inode has changed."""

    def __init__(self) -> None:
        self.contents: dict[Path, tuple[tuple[int, ...], Any]] = {}

    def read(self, path: Path, parse: Callable[[Path], Content]) -> Content | None:
        """Return parse(path); None where there is no such file."""
        try:
            facts = path.stat()
            mark = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
            if path not in self.contents or self.contents[path][0] != mark:
                self.contents[path] = mark, parse(path)
            return self.contents[path][1]
        except OSError:  # absent, or removed meanwhile
            self.contents.pop(path, None)
            return None


@dataclass(frozen=True)
class Log:
    """The rows of a log.jsonl, with a mark after each: a digest of all rows up to it."""

    rows: tuple[Mapping[str, Any], ...] = ()
    marks: tuple[str, ...] = ()
    n_damaged: int = 0  # lines that can't be read, without a last line that is still being written

    def after(self, mark: str) -> int:
        """Return how many rows a reader with this mark has: 0 if the log does not begin with them."""
        return self.marks.index(mark) + 1 if mark in self.marks else 0


def read_rows(path: Path) -> Log:
    """Return what can be read of a log.jsonl."""
    rows, marks, damaged, state = [], [], [], hashlib.sha256()
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, 1):
        if (row := _read_row(line)) is None:
            damaged.append(number)
            continue
        state.update(line)
        rows.append(row)
        marks.append(state.hexdigest()[:12])
    return Log(tuple(rows), tuple(marks), sum(number < len(lines) for number in damaged))


@lru_cache(maxsize=MAX_KEPT)
def _read_row(line: bytes) -> Mapping[str, Any] | None:
    """Return what is shown of a line of log.jsonl; None if it can't be read. It is kept, since a log grows
    line by line."""
    try:
        return _shown(parse_json(line, "log.jsonl", Epoch))
    except CompError:
        return None


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a row and its worst images, whose names are safe to show."""
    worst = [
        {
            "id": visible(image["id"]),
            "loss": image["loss"],
            "answers": [[visible(name, MAX_NAME), true, p] for name, true, p in image["answers"]],
        }
        for image in row.get("worst", [])
    ]
    return {key: value for key, value in row.items() if type(value) in (int, float)} | {"worst": worst}


@dataclass(frozen=True)
class Fold:
    """The training of one network. Times are seconds since 1970."""

    number: int
    log: Log
    state: str  # waiting, training, stopped, trained
    begun: float | None
    written: float | None  # when its files last changed
    next_seconds: float | None  # expected of the epoch that is trained now
    left: float | None  # expected from `written` to the end

    @property
    def ends(self) -> float | None:
        return None if self.written is None or self.left is None else self.written + self.left


def read_folds(recipe: Recipe, files: FileCache, now: float) -> list[Fold]:
    """Return the networks of a recipe without members."""
    logs = [files.read(log_path(recipe.name, fold), read_rows) or Log() for fold in range(recipe.n_networks)]
    return [_read_fold(recipe, fold, logs, files, now) for fold in range(recipe.n_networks)]


def _read_fold(recipe: Recipe, fold: int, logs: Sequence[Log], files: FileCache, now: float) -> Fold:
    name, log = recipe.name, logs[fold]
    others = [other.rows for number, other in enumerate(logs) if number != fold]
    paths = (log_path(name, fold), started_path(name, fold), checkpoint_path(name, fold))
    times = [facts.st_mtime for path in paths if (facts := _stat(path))]
    seconds = remaining_seconds(recipe.phases, log.rows, others)
    known = [second for second in seconds if second is not None]
    left = sum(known) if len(known) == len(seconds) else None
    begun = files.read(started_path(name, fold), _read_start)
    following = seconds[0] if seconds else 0.0
    if _stat(model_path(name, fold)):
        state, left = "trained", 0.0
    elif not times:
        state = "waiting"
    else:
        patience = max(QUIET_EPOCHS * following, QUIET_SECONDS) if following else FIRST_EPOCH_SECONDS
        state = "training" if now - max(times) < patience else "stopped"
    return Fold(fold, log, state, begun, max(times, default=None), following, left)


def remaining_seconds(
    phases: Sequence[Phase], rows: Sequence[Mapping[str, Any]], others: Sequence[Sequence[Mapping[str, Any]]]
) -> list[float | None]:
    """Return the expected duration of each epoch after these rows. Within a phase it is the same, but for
    the head alone."""
    found: dict[tuple[int, bool], float | None] = {}
    seconds = []
    for epoch in range(len(rows), sum(phase.epochs for phase in phases)):
        number, phase, within = phase_at(phases, epoch)
        kind = number, within < phase.head_epochs
        if kind not in found:
            found[kind] = expected_seconds(phases, epoch, rows, others)
        seconds.append(found[kind])
    return seconds


def expected_seconds(
    phases: Sequence[Phase],
    epoch: int,
    rows: Sequence[Mapping[str, Any]],
    others: Sequence[Sequence[Mapping[str, Any]]],
) -> float | None:
    """Return the expected duration of an epoch, counted from 0, of a fold with these rows: that of the last
    one like it, in this fold or in `others`; else of the last one, scaled by their work. None if there is
    none yet."""
    number, phase, within = phase_at(phases, epoch)
    head = within < phase.head_epochs
    seen = [row for other in others for row in other] + list(rows)
    last = None
    for row in reversed(seen):
        if not 1 <= row["epoch"] <= sum(one.epochs for one in phases):
            continue
        its_number, its_phase, its_within = phase_at(phases, row["epoch"] - 1)
        its_head = its_within < its_phase.head_epochs
        if (its_number, its_head) == (number, head):
            return row["seconds"]
        last = last or row
    if last is None:
        return None
    return last["seconds"] * epoch_work(phases, epoch) / epoch_work(phases, last["epoch"] - 1)


def end_of_all(folds: Sequence[Fold]) -> float | None:
    """Return when all folds will be trained, by the pace so far: as many at once as now. None if nothing is
    trained now, or the pace is not known."""
    running = [fold for fold in folds if fold.state == "training"]
    ends = [fold.ends for fold in running if fold.ends is not None]
    left = [fold.left for fold in folds if fold.state in ("waiting", "stopped")]
    if not running or len(ends) < len(running) or None in left:
        return None
    for seconds in left:
        ends.remove(first := min(ends))
        ends.append(first + (seconds or 0.0))
    return max(ends)


def _read_start(path: Path) -> float | None:
    """Return when the training began."""
    try:
        begun = parse_json(path.read_bytes(), path, TrainingStart).get("begun")
        return None if begun is None else begun / 1e9
    except (CompError, OverflowError):
        return None


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None
