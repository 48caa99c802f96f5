"""Download a file over HTTP, complete and verified or not at all. Interrupted transfers resume, and every
length and checksum that the server sends is checked."""

import base64
import contextlib
import errno
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import requests

from comp.artifacts.files import free_bytes, read_json, write_json
from comp.artifacts.safe_paths import inside, is_own, refuse_link
from comp.artifacts.schemas import Note
from comp.console import ProgressBars, size_text
from comp.data.archives import unpacking_bytes
from comp.errors import CompError
from comp.kaggle import retries
from comp.kaggle.retries import RETRIED_ERRORS, BadResponse, describe, retry_after, wait

CHUNK_BYTES = 1 << 16  # an interrupted transfer loses less than one chunk
NOTE_SUFFIX = ".fetched.json"


@dataclass(frozen=True)
class Fetched:
    """A file that was downloaded completely."""

    file: str  # path relative to the folder
    name: str  # its name at the source
    source: str
    bytes: int
    sha256: str
    mtime_ns: int


Open = Callable[[], tuple[requests.Session, requests.Response]]


def fetch_file(
    open_answer: Open, folder: Path, name: str, source: str, listed: int | None, *, note: bool = True
) -> Fetched:
    """Download a file to `folder`/`name`, where `name` may contain folders. `open_answer` sends the request
    and returns the streamed response for the whole file; `listed` is the size in bytes that the source lists.

    If the response has an ETag or a date, the bytes that an earlier call left in `.<name>.partial` are
    reused. With `note`, a note for `read_notes` is written beside the file, and names reserved for notes are
    refused.
    Raise CompError for a name outside of the folder and after the last retry without progress. Raise
    requests' own errors for responses that a retry can't fix."""
    refuse_link(folder)
    path = inside(folder, name, source)
    if path == folder or path.is_dir():
        raise CompError(f"{source}: {path} is a folder here, so the file {name!r} can't be saved")
    if note and is_own(name):
        raise CompError(
            f"{source} contains {name!r}, a name that comp keeps for its own files; not downloaded"
        )
    partial, marker = partial_path(path), path.with_name(f".{path.name}.partial.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    for link in filter(Path.is_symlink, (partial, marker)):
        link.unlink()
    n_failed = 0
    with ProgressBars() as bars:
        while True:
            before = file_size(partial)
            try:
                sha256, size, target = _download_once(open_answer, partial, marker, path, bars, name, listed)
                break
            except RETRIED_ERRORS as error:
                pause = retry_after(error)
                if isinstance(error, requests.HTTPError) and pause is None:
                    raise
                n_failed = 1 if file_size(partial) > before else n_failed + 1
                if n_failed > len(retries.PAUSES):
                    raise CompError(
                        f"{name} of {source} could not be downloaded: {describe(error)} ({n_failed} "
                        "attempts); the received part is kept, run again to resume"
                    ) from error
                wait(max(pause or 0.0, retries.PAUSES[n_failed - 1]))
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise CompError(
                        f"the disk is full at {path.parent}; free some space and run again to resume"
                    ) from error
                raise
    fetched = Fetched(str(target.relative_to(folder)), name, source, size, sha256, partial.stat().st_mtime_ns)
    if note:
        write_json(note_path(target), asdict(fetched))
    partial.replace(target)
    marker.unlink(missing_ok=True)
    return fetched


def _download_once(
    open_answer: Open,
    partial: Path,
    marker: Path,
    path: Path,
    bars: ProgressBars,
    name: str,
    listed: int | None,
) -> tuple[str, int, Path]:
    """Make one attempt; return (SHA-256, bytes, final path). Raise one of RETRIED_ERRORS to be retried."""
    session, answer = open_answer()
    with answer:
        total, identity = length_of(answer), identity_of(answer)
        if "text/html" in answer.headers.get("Content-Type", "") and not path.name.endswith(
            (".html", ".htm")
        ):
            raise BadResponse("the server sent a web page instead of the file")
        target = path
        sent_as = answer.url.split("?")[0].rstrip("/").rpartition("/")[2]
        if sent_as == f"{path.name}.zip":  # Kaggle wraps some files
            target, listed = path.with_name(sent_as), None
        if total is None:
            total = listed
        if total is None:
            raise BadResponse("the server does not send the file's length")
        if listed is not None and total != listed:
            raise BadResponse(f"the server offers {total:,} bytes, but {listed:,} are listed")
        wanted = {"identity": identity, "bytes": total}
        start = file_size(partial)
        if start and (identity is None or read_marker(marker) != wanted or start > total):
            start = 0
        more = unpacking_bytes(target, total)
        if (free := free_bytes(partial) + start) < total + more:
            unpacked = ", and as much again unpacked" if more else ""
            raise CompError(
                f"{name} takes {size_text(total)}{unpacked}; {path.parent} has {size_text(free)} free: free "
                "some space, or move data/ with COMP_DATA"
            )
        write_json(marker, wanted)
        sha, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        with partial.open("r+b" if start else "wb") as file:
            while piece := file.read(min(CHUNK_BYTES, start - file.tell())) if start else b"":
                sha.update(piece)
                md5.update(piece)
            with contextlib.ExitStack() as stack:
                if 0 < start < total:
                    part = stack.enter_context(_request_rest(session, answer, start, identity))
                    if part.status_code == 206:
                        begins = re.match(r"bytes (\d+)-\d+/(\d+|\*)", part.headers.get("Content-Range", ""))
                        if not begins or int(begins[1]) != start or begins[2] not in ("*", str(total)):
                            raise BadResponse("the server sent another range than requested")
                        if identity_of(part) not in (identity, None):
                            raise BadResponse("the file changed during the download")
                    elif part.status_code in (200, 416):  # another version, or ranges are not supported
                        partial.unlink(missing_ok=True)
                        raise BadResponse("the server does not resume the file")
                    else:
                        part.raise_for_status()
                        raise BadResponse(f"the server answered {part.status_code}")
                    answer = part
                done = start
                bars.update(name, done, total, in_bytes=True)
                if done < total:
                    for chunk in answer.iter_content(CHUNK_BYTES):
                        file.write(chunk)
                        sha.update(chunk)
                        md5.update(chunk)
                        done += len(chunk)
                        bars.update(name, done, total, in_bytes=True)
                        if done > total:
                            break
        if done < total:
            raise requests.ConnectionError("the connection was interrupted")
        promised = md5_of(answer)
        if done > total or (promised and promised != md5.digest()):
            partial.unlink()
            raise BadResponse("the checksum differs from the server's")
    return sha.hexdigest(), total, target


def _request_rest(
    session: requests.Session, answer: requests.Response, start: int, identity: str | None
) -> requests.Response:
    """Repeat the answered request from byte `start` on."""
    request = answer.request.copy()
    answer.close()
    request.headers["Range"] = f"bytes={start}-"
    request.headers["Accept-Encoding"] = "identity"
    if identity and not identity.startswith("W/"):
        request.headers["If-Range"] = identity
    assert request.url
    settings = session.merge_environment_settings(request.url, {}, True, None, None)
    return session.send(request, timeout=retries.TIMEOUTS, **settings)


def length_of(answer: requests.Response) -> int | None:
    """Return the file's size in bytes, or None if it is not sent or the transfer is compressed."""
    length = answer.headers.get("Content-Length", "")
    if answer.headers.get("Content-Encoding", "identity") != "identity" or not length.isdigit():
        return None
    return int(length)


def identity_of(answer: requests.Response) -> str | None:
    """Return the ETag or date that identifies this version of the file."""
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified")


def md5_of(answer: requests.Response) -> bytes | None:
    """Return the MD5 of the whole file, which Google's storage (used by Kaggle) sends in x-goog-hash."""
    if answer.headers.get("Content-Encoding", "identity") != "identity":
        return None
    found = re.search(r"md5=([A-Za-z0-9+/]{22}==)", answer.headers.get("x-goog-hash", ""))
    return base64.b64decode(found[1]) if found else None


def partial_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def note_path(path: Path) -> Path:
    """Return the path of a downloaded file's note: its source, size, checksum and date."""
    return path.with_name(f".{path.name}{NOTE_SUFFIX}")


def file_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def read_marker(path: Path) -> dict | None:
    with contextlib.suppress(OSError, ValueError):
        return json.loads(path.read_text())
    return None


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def matches_note(path: Path, note: dict) -> bool:
    """Return whether a file is unchanged since its download. The checksum is computed only if the size is
    equal and the date differs."""
    stat = path.stat()
    if stat.st_size != note["bytes"]:
        return False
    return stat.st_mtime_ns == note["mtime_ns"] or sha256_of(path) == note["sha256"]


def read_notes(folder: Path) -> list[dict]:
    """Return the notes that `fetch_file` wrote in `folder`. Raise CompError for a note that names another
    file than the one beside it."""
    notes = []
    for path in sorted(folder.rglob(f".*{NOTE_SUFFIX}")):
        note = read_marker(path)
        named = note.get("file") if isinstance(note, dict) else None
        about = path.parent / path.name[1:].removesuffix(NOTE_SUFFIX)
        if named != about.relative_to(folder).as_posix() or about.is_dir():
            raise CompError(
                f"{path} is a download note for {named!r}, not for the file beside it, so comp did not "
                "write it; delete this note (comp leaves the file alone)"
            )
        notes.append(read_json(path, Note))
    return notes
