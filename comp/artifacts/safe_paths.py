"""Check paths whose names come from a file, so that nothing outside of comp's folders is read, written or
removed."""

import contextlib
import os
import re
import shutil
import unicodedata
from pathlib import Path, PurePosixPath

from comp.errors import CompError

OWN_NAME = re.compile(r"\.(.*\.)?(lock|partial|partial\.json|fetched\.json|done|stamp\.json)")
POINTS_OUTSIDE = "{}: {!r} points outside {}, so nothing is done there; correct or remove this name"


def is_own(name: str) -> bool:
    """Return whether a name or one of its folders is one that comp uses for notes, locks and unfinished
    files, or one that some file system takes for it."""
    seen = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    return any(OWN_NAME.fullmatch(part) for part in seen.casefold().replace("\\", "/").split("/"))


def below(folder: Path, name: str, named_by: object) -> Path:
    """Return `folder`/`name`. Raise CompError, which names `named_by`, if the name points outside the folder;
    links are not resolved."""
    if not isinstance(name, str) or "\0" in name or ".." in (way := PurePosixPath(name)).parts or way.root:
        raise CompError(POINTS_OUTSIDE.format(named_by, name, folder))
    return folder / name


def inside(folder: Path, name: str, named_by: object) -> Path:
    """Return `folder`/`name`, as `below`. Raise CompError also if it points outside the folder through a
    link."""
    path = below(folder, name, named_by)
    with contextlib.suppress(OSError, RuntimeError):  # too long a name, or a cycle of links
        if path.resolve().is_relative_to(folder.resolve()):
            return path
    raise CompError(POINTS_OUTSIDE.format(named_by, name, folder))


def remove(path: Path, *, inside: Path) -> None:
    """Remove a file, a link, or a folder with its content, if it exists. Raise CompError if it is not inside
    the folder `inside` (links in its path are followed), or if that folder is a link."""
    refuse_link(inside)
    if path.name in ("", "..") or not path.parent.resolve().is_relative_to(inside.resolve()):
        raise CompError(f"{path} is not removed: it is not inside {inside}")
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise CompError(f"cannot remove {path}: {error.strerror or error}") from error


def refuse_link(path: Path) -> None:
    """Raise CompError if the path is a link: comp writes there in place, or removes files there."""
    if path.is_symlink():
        raise CompError(
            f"{path} is a link, and comp writes and removes files there; remove the link (COMP_DATA and "
            "COMP_RUNS move all of data/ and runs/ elsewhere)"
        )


def open_no_link(path: str, flags: int) -> int:
    """Open a file, but not through a link: an `opener` of open()."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)  # not on Windows
