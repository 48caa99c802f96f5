"""Paths whose names came from a file: nothing outside of comp's own folders is read, written or removed by
them."""

import contextlib
import os
import re
import shutil
import unicodedata
from pathlib import Path, PurePosixPath

from comp.errors import CompError

OWN = re.compile(r"\.(.*\.)?(lock|partial|partial\.json|fetched\.json|done|stamp\.json)")
LEADS_OUT = "{}: {!r} leads out of {}, and nothing there is touched; mend or remove it"


def is_own(name: str) -> bool:
    """Whether a name, with its folders, holds one that comp keeps for its notes, locks and unfinished files,
    or one that some file system takes for such a name."""
    seen = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    return any(OWN.fullmatch(part) for part in seen.casefold().replace("\\", "/").split("/"))


def below(folder: Path, name: str, named_by: object) -> Path:
    """`folder`/`name`. Raises CompError where the name that `named_by` gives leads out of the folder; links
    are not looked at."""
    if not isinstance(name, str) or "\0" in name or ".." in (way := PurePosixPath(name)).parts or way.root:
        raise CompError(LEADS_OUT.format(named_by, name, folder))
    return folder / name


def inside(folder: Path, name: str, named_by: object) -> Path:
    """As `below`, and links are followed: what they lead to lies in the folder too."""
    path = below(folder, name, named_by)
    with contextlib.suppress(OSError, RuntimeError):  # a name too long, links in a circle
        if path.resolve().is_relative_to(folder.resolve()):
            return path
    raise CompError(LEADS_OUT.format(named_by, name, folder))


def remove(path: Path, *, inside: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it; nothing where it isn't there. Raises
    CompError where it does not lie below the folder `inside`, links on the way followed, or where that is a
    link itself: what is removed by a name from outside is never anything but comp's own."""
    refuse_link(inside)
    if path.name in ("", "..") or not path.parent.resolve().is_relative_to(inside.resolve()):
        raise CompError(f"{path} is not removed: it does not lie in {inside}")
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise CompError(f"cannot remove {path}: {error.strerror or error}") from error


def refuse_link(path: Path) -> None:
    """Raise CompError where what comp writes on in place, or a folder in which it removes, is a link."""
    if path.is_symlink():
        raise CompError(
            f"{path} is a link, and comp writes and removes there; remove the link (all of data/ or runs/ "
            "lies elsewhere by COMP_DATA or COMP_RUNS)"
        )


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)
