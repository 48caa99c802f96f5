"""Atomic writes, JSON, locks and free space: a file is whole or absent."""

import contextlib
import fcntl
import json
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from comp.artifacts.safe_paths import _no_link
from comp.config.loading import problem
from comp.errors import CompError

REMAKE = "remove it and run the stage that writes it again"
PATIENCE = 10.0  # seconds that the helpers of a killed process may take to notice


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`, on an
    error it is removed and `path` stays as it was."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if temporary.is_symlink():  # it would be written through
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
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path, schema: Any = dict[str, Any], cure: str = REMAKE) -> dict[str, Any]:
    """What a JSON file holds, once it was found to fit `schema`, one of comp.artifacts.schemas. Raises CompError."""
    return parse_json(path.read_bytes(), path, schema, cure)


def parse_json(text: str | bytes, where: object, schema: Any, cure: str = REMAKE) -> Any:
    """What a JSON text holds, as it stands there. Raises CompError that names the field which does not fit
    `schema`, a pydantic type, or holds a number that isn't finite."""
    try:
        TypeAdapter(schema).validate_json(text)
        content = json.loads(text)
        for field, value in flat(content).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field!r} is {value}, and a finite number is expected")
            if "\0" in field or (isinstance(value, str) and "\0" in value):
                raise ValueError(f"{field!r} holds a NUL character")
        return content
    except ValidationError as error:
        raise CompError(f"{where}: {problem(error)}; {cure}") from error
    except (ValueError, RecursionError) as error:
        raise CompError(f"{where}: {error}; {cure}") from error


@contextlib.contextmanager
def locked(path: Path, doing: str) -> Iterator[None]:
    """Hold `path` (made if absent) so that a second process fails instead of writing the same files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + PATIENCE
    with open(path, "a", opener=_no_link) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise CompError(
                        f"another process is {doing} ({path} is held); wait for it or stop it"
                    ) from error
                time.sleep(0.2)
        yield


def is_held(path: Path) -> bool:
    """Whether a process holds `path` as `locked` does."""
    if not path.exists():
        return False
    with open(path, "a", opener=_no_link) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextlib.contextmanager
def waiting_lock(path: Path) -> Iterator[None]:
    """Hold `path` (made if absent), waiting for whoever holds it: for files that several processes append
    to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", opener=_no_link) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings and lists as one mapping with dotted keys."""
    if isinstance(value, Mapping) and value:
        pairs = list(value.items())
    elif isinstance(value, list | tuple) and value:
        pairs = list(enumerate(value))
    else:
        return {prefix: value}
    return {
        k: v for key, item in pairs for k, v in flat(item, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def free_bytes(path: Path) -> int:
    """Free space, in bytes, where `path` is or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
