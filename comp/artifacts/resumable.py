"""Work that survives a kill: arrays filled over a long time, and the files of a job."""

import contextlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.files import locked, parse_json, read_json, write_json
from comp.artifacts.paths import checkpoint_path, fold_dir, log_path, model_path, started_path
from comp.artifacts.schemas import Epoch
from comp.artifacts.stamps import Stamp, plain
from comp.errors import CompError


def read_log(recipe: str, fold: int) -> list[dict[str, Any]]:
    """The epochs of a fold's log.jsonl; none where it is absent."""
    path = log_path(recipe, fold)
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [
        parse_json(line, f"{path}, line {number}", Epoch, "mend it, or train again")
        for number, line in enumerate(lines, 1)
    ]


@dataclass(frozen=True)
class JobFiles:
    """What one job writes: its files, in an order in which they can be copied at any moment (what marks the
    job complete comes last), and the lock that is held meanwhile."""

    paths: tuple[Path, ...]
    lock: Path
    doing: str
    every: float = math.inf  # seconds after which a copy is worth it, besides those when the job says so

    def locked(self) -> contextlib.AbstractContextManager[None]:
        return locked(self.lock, self.doing)


def training_files(recipe: str, fold: int) -> JobFiles:
    paths = [f(recipe, fold) for f in (log_path, started_path, checkpoint_path, model_path)]
    return JobFiles(tuple(paths), fold_dir(recipe, fold) / ".lock", f"training fold {fold} of {recipe}")


def prediction_files(path: Path) -> JobFiles:
    """Of predictions that will be at `path`, an npz file, and grow in an npy file beside it."""
    paths = (*growing_paths(path.with_suffix(".npy")), path)
    return JobFiles(paths, path.with_name(f".{path.name}.lock"), f"predicting {path}", every=30.0)


def growing_paths(path: Path) -> tuple[Path, Path, Path]:
    """A growing array's rows, its flags, and its stamp: a copy made in this order flags no row that it
    lacks."""
    partial, flags, meta = (
        path.with_name(f".{path.name}.{end}") for end in ("partial", "done", "stamp.json")
    )
    return partial, flags, meta


class GrowingArray:
    """A memory-mapped array at `path`, filled row by row in any order, that a killed process leaves
    resumable.

    Until `finish` it is `.<name>.partial` with one flag a row in `.<name>.done`; `finish` renames it to
    `path`. Space is reserved at the start, so that a full disk is an error here and not a crash in the
    middle."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str, stamp: Stamp):
        self.path = path
        self.partial, self.flags, self.meta = growing_paths(path)
        meta = self.meta
        wanted = plain({"shape": shape, "dtype": dtype, **stamp})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = all(p.is_file() and not p.is_symlink() for p in (meta, self.partial, self.flags))
            if not (kept and self._is_whole(wanted)):
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

    def _is_whole(self, wanted: Stamp) -> bool:
        """Whether there is something to go on from, made from the same."""
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
        for file_path in (self.partial, self.flags, self.meta):
            with contextlib.suppress(OSError):
                file_path.unlink(missing_ok=True)

    def missing(self) -> np.ndarray:
        """Indices of the rows that are still to be filled, ascending."""
        return np.flatnonzero(self.done[: len(self.rows)] == 0)

    def put(self, index: np.ndarray | int, rows: np.ndarray) -> None:
        self.rows[index] = rows
        self.done[index] = 1

    def finish(self) -> None:
        self.rows.flush()
        self.partial.replace(self.path)
        self.remove()
