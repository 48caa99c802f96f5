"""A file over HTTP, whole and right or not at all: cut transfers go on where they were, and what arrives is
checked against every length and checksum that the server gives."""

import base64
import contextlib
import errno
import hashlib
import json
import re
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import requests
import urllib3

from comp.artifacts.files import free_bytes, read_json, write_json
from comp.artifacts.safe_paths import inside, is_own, refuse_link
from comp.artifacts.schemas import Note
from comp.console import Bars, size_text
from comp.data.archives import stem_of
from comp.errors import CompError

# Seconds before each further try; a try that brought bytes starts them anew.
PAUSES = (1.0, 2.0, 5.0, 15.0, 30.0)
LONGEST_PAUSE = 300.0  # seconds; where a server asks for more, people decide
TIMEOUTS = (15.0, 60.0)  # seconds to connect, and between two bytes
CHUNK = 1 << 16  # a cut loses what it has of one
NOTE = ".fetched.json"
PASSING = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Fetched:
    """A file that arrived whole."""

    file: str  # its name here
    name: str  # and at its source
    source: str
    bytes: int
    sha256: str
    mtime_ns: int


class Unfit(Exception):
    """An answer that is not the file: it is asked for again."""


Open = Callable[[], tuple[requests.Session, requests.Response]]


def fetch(
    open_answer: Open, folder: Path, name: str, source: str, listed: int | None, *, note: bool = True
) -> Fetched:
    """Bring a file to `folder`/`name`, where `name` may hold folders of its own. `open_answer` asks for it
    anew and gives the streamed answer to the whole file; `listed` is its size in bytes in the source's
    listing.

    Where the answer carries an ETag or a date, bytes that an earlier call left in `.<name>.partial` are kept.
    With `note`, what came is written down beside it for `read_notes`; names that are kept for that are
    refused.
    Raises CompError for a name that leads out of the folder, and once the tries without progress are used up;
    requests' own errors for answers that trying again can't mend."""
    refuse_link(folder)
    path = inside(folder, name, source)
    if path == folder or path.is_dir():
        raise CompError(f"{source}: {path} is a folder, and can't be the file {name!r} too")
    if note and is_own(name):
        raise CompError(f"{source} holds {name!r}, a name that comp keeps for its own files; not fetched")
    partial, marker = partial_of(path), path.with_name(f".{path.name}.partial.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    for link in filter(Path.is_symlink, (partial, marker)):
        link.unlink()
    n_failed = 0
    with Bars() as bars:
        while True:
            before = size_of(partial)
            try:
                sha256, size, target = _once(open_answer, partial, marker, path, bars, name, listed)
                break
            except (*PASSING, Unfit, requests.HTTPError, urllib3.exceptions.HTTPError) as error:
                pause = retry_after(error)
                if isinstance(error, requests.HTTPError) and pause is None:
                    raise
                n_failed = 1 if size_of(partial) > before else n_failed + 1
                if n_failed > len(PAUSES):
                    raise CompError(
                        f"{name} of {source} did not arrive: {words(error)}, {n_failed} times; "
                        "what came is kept, run again to go on"
                    ) from error
                rest(max(pause or 0.0, PAUSES[n_failed - 1]))
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise CompError(
                        f"the disk is full at {path.parent}; free some space and run again to go on"
                    ) from error
                raise
    fetched = Fetched(str(target.relative_to(folder)), name, source, size, sha256, partial.stat().st_mtime_ns)
    if note:
        write_json(note_of(target), asdict(fetched))
    partial.replace(target)
    marker.unlink(missing_ok=True)
    return fetched


def _once(
    open_answer: Open, partial: Path, marker: Path, path: Path, bars: Bars, name: str, listed: int | None
) -> tuple[str, int, Path]:
    """One try: (SHA-256, bytes, where the file belongs). Raises what `fetch` tries again."""
    session, answer = open_answer()
    with answer:
        total, identity = length_of(answer), identity_of(answer)
        if "text/html" in answer.headers.get("Content-Type", "") and not path.name.endswith(
            (".html", ".htm")
        ):
            raise Unfit("a web page came instead of the file")
        target = path
        sent_as = answer.url.split("?")[0].rstrip("/").rpartition("/")[2]
        if sent_as == f"{path.name}.zip":  # Kaggle wraps some files
            target, listed = path.with_name(sent_as), None
        if total is None:
            total = listed
        if total is None:
            raise Unfit("the server does not say how long the file is")
        if listed is not None and total != listed:
            raise Unfit(f"{total:,} bytes are offered, and {listed:,} are listed")
        wanted = {"identity": identity, "bytes": total}
        start = size_of(partial)
        if start and (identity is None or read_marker(marker) != wanted or start > total):
            start = 0
        room = 2 * total if stem_of(target) else total  # archives are unpacked
        if (free := free_bytes(partial) + start) < room:
            unpacked = ", and as much again when it is unpacked" if stem_of(target) else ""
            raise CompError(
                f"{name} takes {size_text(total)}{unpacked}; {path.parent} has {size_text(free)} free: make "
                "room, or move data/ with COMP_DATA"
            )
        write_json(marker, wanted)
        sha, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        with partial.open("r+b" if start else "wb") as file:
            while piece := file.read(min(CHUNK, start - file.tell())) if start else b"":
                sha.update(piece)
                md5.update(piece)
            with contextlib.ExitStack() as stack:
                if 0 < start < total:
                    part = stack.enter_context(_from(session, answer, start, identity))
                    if part.status_code == 206:
                        begins = re.match(r"bytes (\d+)-\d+/(\d+|\*)", part.headers.get("Content-Range", ""))
                        if not begins or int(begins[1]) != start or begins[2] not in ("*", str(total)):
                            raise Unfit("another part of the file came than was asked for")
                        if identity_of(part) not in (identity, None):
                            raise Unfit("the file changed on the way")
                    elif part.status_code in (200, 416):  # another version, or no middle to go on from
                        partial.unlink(missing_ok=True)
                        raise Unfit("the server does not go on in the middle")
                    else:
                        part.raise_for_status()
                        raise Unfit(f"the server answered {part.status_code}")
                    answer = part
                done = start
                bars.at(name, done, total, in_bytes=True)
                if done < total:
                    for chunk in answer.iter_content(CHUNK):
                        file.write(chunk)
                        sha.update(chunk)
                        md5.update(chunk)
                        done += len(chunk)
                        bars.at(name, done, total, in_bytes=True)
                        if done > total:
                            break
        if done < total:
            raise requests.ConnectionError("the connection was cut")
        promised = md5_of(answer)
        if done > total or (promised and promised != md5.digest()):
            partial.unlink()
            raise Unfit("what came has another checksum than the server promised")
    return sha.hexdigest(), total, target


def _from(
    session: requests.Session, answer: requests.Response, start: int, identity: str | None
) -> requests.Response:
    """The same request as the one that was answered, from byte `start` on."""
    request = answer.request.copy()
    answer.close()
    request.headers["Range"] = f"bytes={start}-"
    request.headers["Accept-Encoding"] = "identity"
    if identity and not identity.startswith("W/"):
        request.headers["If-Range"] = identity
    assert request.url
    settings = session.merge_environment_settings(request.url, {}, True, None, None)
    return session.send(request, timeout=TIMEOUTS, **settings)


def length_of(answer: requests.Response) -> int | None:
    """The file's bytes; None where the server does not say, or packs them on the way."""
    length = answer.headers.get("Content-Length", "")
    if answer.headers.get("Content-Encoding", "identity") != "identity" or not length.isdigit():
        return None
    return int(length)


def identity_of(answer: requests.Response) -> str | None:
    """What stands for this version of the file."""
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified")


def md5_of(answer: requests.Response) -> bytes | None:
    """The MD5 of the whole file that Google's storage, where Kaggle keeps files, sends along."""
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        return None
    found = re.search(r"md5=([A-Za-z0-9+/]{22}==)", answer.headers.get("x-goog-hash", ""))
    return base64.b64decode(found[1]) if found else None


def retry_after(error: BaseException) -> float | None:
    """Seconds to wait before another try; None where another try is no use, or would be too long."""
    answer = getattr(error, "response", None)
    if answer is None:
        return 0.0
    if answer.status_code not in PASSING_STATUS:
        return None
    text, seconds = answer.headers.get("Retry-After", "0"), 0.0
    with contextlib.suppress(ValueError, TypeError):
        seconds = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    return seconds if seconds <= LONGEST_PAUSE else None


def rest(seconds: float) -> None:
    """Wait before another try, and say so where that is long."""
    if seconds >= 5:
        print(f"Kaggle is busy; trying again in {seconds:.0f} s", file=sys.__stdout__, flush=True)
    time.sleep(seconds)


def words(error: BaseException) -> str:
    """What went wrong, without addresses: those of storage carry signatures."""
    answer = getattr(error, "response", None)
    if answer is not None:
        return f"the server answered {answer.status_code}"
    if isinstance(error, Unfit):
        return str(error)
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "the server did not answer in time"
    return "the connection was cut or could not be made"


def partial_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def note_of(path: Path) -> Path:
    """Where it is written down what a fetched file was when it came."""
    return path.with_name(f".{path.name}{NOTE}")


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def read_marker(path: Path) -> dict | None:
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text())
    return None


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_as_noted(path: Path, note: dict) -> bool:
    """Whether a file is what came. It is read only where its size is right and its date is another."""
    facts = path.stat()
    if facts.st_size != note["bytes"]:
        return False
    return facts.st_mtime_ns == note["mtime_ns"] or sha256_of(path) == note["sha256"]


def read_notes(folder: Path) -> list[dict]:
    """What `fetch` wrote down of each file in `folder`. Raises CompError for a note that is not about the
    file beside it."""
    notes = []
    for path in sorted(folder.rglob(f".*{NOTE}")):
        note = read_marker(path)
        named = note.get("file") if isinstance(note, dict) else None
        about = path.parent / path.name[1:].removesuffix(NOTE)
        if named != about.relative_to(folder).as_posix() or about.is_dir():
            raise CompError(
                f"{path} names {named!r} and not the file beside it, so comp did not write it; "
                "nothing was removed: remove this note"
            )
        notes.append(read_json(path, Note))
    return notes
