"""Atomic writes, JSON, locks and free space. A file that comp writes is complete or absent."""

import contextlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from comp.artifacts.safe_paths import open_no_link
from comp.config.loading import problem
from comp.errors import CompError

REMAKE = "remove it and rerun the command that writes it"
IS_WINDOWS = sys.platform == "win32"
LOCK_TIMEOUT = 10.0  # seconds; helpers of a killed process may hold its lock for some of them


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. On success it is flushed to disk and renamed to `path`; on an
    error it is removed, and `path` stays as it was. Raise CompError if the disk refuses."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if temporary.is_symlink():  # else the link's target would be written
            temporary.unlink()
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise CompError(
            f"cannot write {path}: {error.strerror or error}; nothing was left half-written"
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path, schema: Any = dict[str, Any], cure: str = REMAKE) -> dict[str, Any]:
    """Return a JSON file's content. Raise CompError unless it fits `schema`, such as one of
    comp.artifacts.schemas."""
    return parse_json(path.read_bytes(), path, schema, cure)


def parse_json(text: str | bytes, where: object, schema: Any, cure: str = REMAKE) -> Any:
    """Return the content of JSON text, unchanged. Raise CompError, with the field's name, if it does not fit
    `schema` (a pydantic type) or has a number that is not finite."""
    try:
        TypeAdapter(schema).validate_json(text)
        content = json.loads(text)
        for field, value in flatten(content).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field!r} is {value}; a finite number is expected")
            if "\0" in field or (isinstance(value, str) and "\0" in value):
                raise ValueError(f"{field!r} has a NUL character")
        return content
    except ValidationError as error:
        raise CompError(f"{where}: {problem(error)}; {cure}") from error
    except (ValueError, RecursionError) as error:
        raise CompError(f"{where}: {error}; {cure}") from error


@contextlib.contextmanager
def lock(path: Path, doing: str = "", *, wait: bool = False) -> Iterator[None]:
    """Hold a lock on `path`, which is created if absent. If another process holds it for long, raise
    CompError, which says what that one is `doing`; with `wait`, wait as long as needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_TIMEOUT
    with open(path, "a", opener=open_no_link) as file:
        while True:
            if _take(file):
                break
            if not wait and time.monotonic() > deadline:
                raise CompError(f"another process is {doing} ({path} is locked); wait for it or stop it")
            time.sleep(0.05 if wait else 0.2)
        yield


def is_held(path: Path) -> bool:
    """Return whether a process holds the lock on `path`."""
    if not path.exists():
        return False
    with open(path, "a", opener=open_no_link) as file:
        return not _take(file)


def _take(file: IO[str]) -> bool:
    """Lock an open file until it is closed, and return whether that worked."""
    try:
        if IS_WINDOWS:
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested mappings and lists as one mapping with dotted keys."""
    if isinstance(value, Mapping) and value:
        pairs = list(value.items())
    elif isinstance(value, list | tuple) and value:
        pairs = list(enumerate(value))
    else:
        return {prefix: value}
    return {
        k: v
        for key, item in pairs
        for k, v in flatten(item, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def free_bytes(path: Path) -> int:
    """Return the bytes that may still be written where `path` is or will be: what its disk has free, at most
    what is left of COMP_DISK_LIMIT. That variable holds bytes and the folders that share them, as in
    60000000000:FOLDER:FOLDER, for a quota that the disk itself does not show."""
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    if limit := os.environ.get("COMP_DISK_LIMIT"):
        n_bytes, *folders = limit.split(os.pathsep)
        if not (n_bytes.isdecimal() and folders):
            raise CompError(
                f"COMP_DISK_LIMIT is {limit!r}; expected bytes and folders, such as 60000000000:FOLDER"
            )
        free = min(free, max(0, int(n_bytes) - used_bytes(folders)))
    return free


def used_bytes(folders: Sequence[str]) -> int:
    """Return the bytes on the disk of all files in these folders, each file counted once."""
    sizes: dict[tuple[int, int], int] = {}
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                with contextlib.suppress(OSError):  # removed meanwhile
                    facts = Path(place, name).lstat()
                    sizes[facts.st_dev, facts.st_ino] = facts.st_blocks * 512
    return sum(sizes.values())
