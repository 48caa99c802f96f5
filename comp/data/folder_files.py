"""The files below a folder, without hidden ones and what comp wrote."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from comp.artifacts.paths import data_dir, runs_dir
from comp.artifacts.stamps import digest
from comp.data.image_files import template_to_regex, to_nfc

MAX_DEPTH = 5  # folders below a source that are searched, besides those of a template's own


def folder_contents(folder: Path, pattern: str) -> dict[str, Any]:
    """Return the number of files in a folder that match a pattern, their bytes, and a digest of their names
    and sizes. An id may include folders."""
    fits = template_to_regex(pattern, identifier=".+").fullmatch
    sizes = sorted((name, entry.stat().st_size) for name, entry in files_in(folder, pattern) if fits(name))
    return {"files": len(sizes), "bytes": sum(size for _, size in sizes), "digest": digest(sizes)}


def files_in(folder: Path, pattern: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield (path below the folder, file) for the files as deep as a pattern needs, without caches, runs and
    what comp unpacked."""
    folder = folder.absolute()
    start = len(str(folder)) + 1
    written = {
        os.path.realpath(path) for name in ("cache", "unpacked") for path in data_dir("").glob(f"*/{name}")
    }
    written.add(os.path.realpath(runs_dir()))
    for _, _, entries in walk(folder, MAX_DEPTH + pattern.count("/"), lambda _, real: real in written):
        yield from ((to_nfc(entry.path[start:]), entry) for entry in entries)


def walk(
    place: Path, depth: int, left_out: Callable[[Path, str], bool], real: str = ""
) -> Iterator[tuple[Path, str, list[os.DirEntry[str]]]]:
    """Yield (folder, its path without links, its files) for a place and the folders below it, without hidden
    files and folders."""
    real = real or os.path.realpath(place)
    with os.scandir(place) as entries:
        items = sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    yield place, real, [item for item in items if item.is_file()]
    for item in items if depth else ():
        if item.is_dir():
            path = Path(item.path)
            below = os.path.realpath(path) if item.is_symlink() else f"{real}/{item.name}"
            if not left_out(path, below):
                yield from walk(path, depth - 1, left_out, below)
