"""Resume after a kill: arrays that are filled over a long time, and the files of a job."""

import contextlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.files import lock, parse_json, read_json, write_json
from comp.artifacts.paths import checkpoint_path, fold_dir, log_path, model_path, started_path
from comp.artifacts.schemas import Epoch
from comp.artifacts.stamps import Stamp, to_json
from comp.errors import CompError


def read_log(recipe: str, fold: int) -> list[dict[str, Any]]:
    """Return the epochs of a fold's log.jsonl without the worst images, [] if it is absent. Raise CompError
    for a damaged line."""
    path = log_path(recipe, fold)
    lines = path.read_bytes().splitlines() if path.exists() else []
    rows = [
        parse_json(line, f"{path}, line {number}", Epoch, "repair it, or train again")
        for number, line in enumerate(lines, 1)
    ]
    return [{key: value for key, value in row.items() if key != "worst"} for row in rows]


@dataclass(frozen=True)
class JobFiles:
    """The files that a job writes, and the lock that it holds. They can be copied in this order at any
    moment: the file that marks the job complete comes last."""

    paths: tuple[Path, ...]
    lock_path: Path
    doing: str
    every: float = math.inf  # seconds between copies, besides those that the job asks for

    def locked(self) -> contextlib.AbstractContextManager[None]:
        return lock(self.lock_path, self.doing)


def training_files(recipe: str, fold: int) -> JobFiles:
    """Return the files of training one fold."""
    paths = [f(recipe, fold) for f in (log_path, started_path, checkpoint_path, model_path)]
    return JobFiles(tuple(paths), fold_dir(recipe, fold) / ".lock", f"training fold {fold} of {recipe}")


def prediction_files(path: Path) -> JobFiles:
    """Return the files of predicting: the npz file `path`, and the growing array beside it."""
    paths = (*growing_paths(path.with_suffix(".npy")), path)
    return JobFiles(paths, path.with_name(f".{path.name}.lock"), f"predicting {path}", every=30.0)


def growing_paths(path: Path) -> tuple[Path, Path, Path]:
    """Return the files of a growing array: rows, flags, stamp. A copy made in this order never flags a row
    that it lacks."""
    partial, flags, meta = (
        path.with_name(f".{path.name}.{end}") for end in ("partial", "done", "stamp.json")
    )
    return partial, flags, meta


class GrowingArray:
    """A memory-mapped array, filled row by row in any order, that is resumed after a kill.

    Until `finish` renames it to `path`, it is `.<name>.partial`, with one flag per row in `.<name>.done`. Its
    disk space is reserved at the start, so that a full disk is an error there and not a crash later."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str, stamp: Stamp):
        self.path = path
        self.partial, self.flags, self.meta = growing_paths(path)
        meta = self.meta
        wanted = to_json({"shape": shape, "dtype": dtype, **stamp})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = all(p.is_file() and not p.is_symlink() for p in (meta, self.partial, self.flags))
            if not (kept and self._is_resumable(wanted)):
                self.remove()
                np.lib.format.open_memmap(self.partial, "w+", dtype, shape)
                self.flags.write_bytes(b"")
                for file_path, size in ((self.partial, self.partial.stat().st_size), (self.flags, shape[0])):
                    with file_path.open("r+b") as file:
                        if hasattr(os, "posix_fallocate"):  # not on macOS
                            os.posix_fallocate(file.fileno(), 0, max(size, 1))
                        file.truncate(max(size, 1))
                write_json(meta, wanted)
            self.rows = np.lib.format.open_memmap(self.partial, "r+")
            self.done = np.memmap(self.flags, np.uint8, "r+")
        except OSError as error:
            self.remove()
            raise CompError(
                f"cannot write {path}: {error.strerror or error}; nothing was left half-written"
            ) from error

    def _is_resumable(self, wanted: Stamp) -> bool:
        """Whether complete files with this stamp are there."""
        try:
            if read_json(self.meta) != wanted:
                return False
            rows = np.lib.format.open_memmap(self.partial, "r")
            n_flags = self.flags.stat().st_size
        except (CompError, OSError, ValueError):  # absent, or damaged
            return False
        same = list(rows.shape) == wanted["shape"] and rows.dtype == np.dtype(wanted["dtype"])
        return same and n_flags == max(len(rows), 1)

    def remove(self) -> None:
        """Remove the unfinished array."""
        for file_path in (self.partial, self.flags, self.meta):
            with contextlib.suppress(OSError):
                file_path.unlink(missing_ok=True)

    def missing(self) -> np.ndarray:
        """Return the indices of the rows still to be filled, ascending."""
        return np.flatnonzero(self.done[: len(self.rows)] == 0)

    def put(self, index: np.ndarray | int, rows: np.ndarray) -> None:
        """Fill rows, and flag them as done."""
        self.rows[index] = rows
        self.done[index] = 1

    def finish(self) -> None:
        """Rename the array to its final path."""
        self.rows.flush()
        self.partial.replace(self.path)
        self.remove()
