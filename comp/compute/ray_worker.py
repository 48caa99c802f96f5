"""A job on a machine of a Ray cluster: copy its input files there, and send back what it writes."""

import contextlib
import hashlib
import os
import queue
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from comp.artifacts.files import atomic_write, lock
from comp.artifacts.safe_paths import remove
from comp.compute.devices import Device
from comp.compute.jobs import Job, call
from comp.console import size_text
from comp.errors import CompError, TimeIsUp

CHUNK_BYTES = 128 * 2**20  # bytes; of a file, no more is in memory at once
KEPT_SECONDS = 30 * 86400  # after its last use, a copy is removed
BAR_INTERVAL = 0.5  # seconds between reports of progress


@dataclass(frozen=True)
class RemoteJob:
    """A job as it is sent to a machine. Paths are those of the head, the machine that sent it."""

    job: Job
    args: tuple[Any, ...]
    device: Device
    inputs: dict[Path, tuple[int, str]]  # size in bytes, and the name of its copy
    environment: dict[str, Path]  # by variable: one of the inputs
    written: dict[Path, int | None]  # the job's files in order, and their sizes, if they exist
    runs: Path
    every: float  # seconds between sending files
    home: str  # Ray's id of the head
    folder: Path  # what relative paths are relative to
    deadline: float


def replace_paths(value: Any, change: Callable[[Path], Path]) -> Any:
    """Return nested tuples, lists, dicts and dataclasses with all paths changed."""
    if isinstance(value, Path):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(replace_paths(item, change) for item in value)
    if type(value) is dict:
        return {key: replace_paths(item, change) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        return replace(value, **replace_paths(parts, change))
    return value


def work(job: RemoteJob, source: Any) -> Iterator[Any]:
    """Run the job in a thread. Yield its reports and the files that it writes."""
    import ray

    yield {"machine": ray.util.get_node_ip_address()}
    events: queue.Queue = queue.Queue(maxsize=8)
    threading.Thread(target=_work, args=(job, source, events), daemon=True).start()
    while (event := events.get()) is not None:
        yield event


def _work(job: RemoteJob, source: Any, events: queue.Queue) -> None:
    local: dict[Path, Path] = {}  # by the head's path
    try:
        if time.time() > job.deadline:
            raise TimeIsUp("not started")
        store = Path(tempfile.gettempdir()) / f"comp-ray-{os.getuid()}"
        store.mkdir(exist_ok=True, mode=0o700)
        if store.is_symlink() or store.stat().st_uid != os.getuid():  # other users may write to this place
            raise CompError(f"{store} is a link or belongs to another user; remove it")
        _remove_unused(store)
        with tempfile.TemporaryDirectory(prefix="job-", dir=store) as folder:
            local[job.runs] = Path(folder)
            _work_in(Path(folder), store, job, source, local, events.put)
    except TimeIsUp as stop:
        events.put({"late": str(stop)})
    except CompError as error:
        text = str(error)
        for theirs, ours in sorted(local.items(), key=lambda pair: -len(str(pair[1]))):
            text = text.replace(str(ours), str(theirs))
        events.put({"error": text})
    except Exception:
        events.put({"failed": traceback.format_exc()})
    finally:
        events.put(None)


def _work_in(
    folder: Path,
    store: Path,
    job: RemoteJob,
    source: Any,
    local: dict[Path, Path],
    put: Callable[[Any], None],
) -> None:
    """Copy the input files, run the job in `folder`, and put its reports and files. Fill `local`."""
    import ray

    at_home = ray.get_runtime_context().get_node_id() == job.home
    for path, (size, name) in job.inputs.items():
        if at_home:
            local[path] = job.folder / path
            continue
        local[path] = store / name
        with lock(store / f".{name}.lock", wait=True):
            if local[path].exists():
                os.utime(local[path])  # its last use
                continue
            if size > CHUNK_BYTES:
                put({"line": f"copying {path.name} ({size_text(size)})"})
            _fetch(source, job.folder / path, size, local[path])
    sent: dict[Path, str] = {}
    written = {path: folder / path.relative_to(job.runs) for path in job.written}
    for path, size_there in job.written.items():
        if size_there is not None:
            _fetch(source, job.folder / path, size_there, written[path])
            sent[path] = _content(written[path])
    os.environ["COMP_RUNS"] = str(folder)
    os.environ.update({key: str(local[path]) for key, path in job.environment.items()})
    last_bar, last_files = 0.0, time.monotonic()

    def report(**event: Any) -> None:
        nonlocal last_bar, last_files
        now = time.monotonic()
        if "line" in event or event.get("done") == event.get("total") or now - last_bar > BAR_INTERVAL:
            last_bar = now if "done" in event else last_bar
            put(event)
        if event.get("saved") or now - last_files > job.every:
            _send(written, sent, put)
            last_files = time.monotonic()

    args = replace_paths(job.args, lambda path: written.get(path) or local[path])
    try:
        call(job.job, args, job.device, report, job.deadline)
    finally:
        _send(written, sent, put)


def _fetch(source: Any, path: Path, size: int, target: Path) -> None:
    """Copy a file of the head. Raise CompError if it can't be read or has changed."""
    import ray

    with atomic_write(target) as temporary, temporary.open("wb") as file:
        for offset in range(0, size, CHUNK_BYTES):
            try:
                piece = ray.get(source.read.remote(str(path), offset))
            except ray.exceptions.RayError as error:
                raise CompError(f"{path} can't be copied: {str(error).strip().splitlines()[-1]}") from error
            file.write(piece)
        if file.tell() != size:
            raise CompError(f"{path} changed while it was copied; run again")


def _send(written: Mapping[Path, Path], sent: dict[Path, str], put: Callable[[Any], None]) -> None:
    """Put the job's new and changed files in their order, then the names of removed ones."""
    for path, ours in written.items():
        if ours.exists() and sent.get(path) != (content := _content(ours)):
            put({"file": path, "pieces": -(-ours.stat().st_size // CHUNK_BYTES)})
            with ours.open("rb") as file:
                while piece := file.read(CHUNK_BYTES):
                    put(piece)
            sent[path] = content
    for path in [path for path in sent if not written[path].exists()]:
        put({"gone": path})
        del sent[path]


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove_unused(store: Path) -> None:
    """Remove copies, and leftovers of killed jobs, that were not used for KEPT_SECONDS."""
    for entry in store.iterdir():
        with contextlib.suppress(OSError, CompError):
            if entry.lstat().st_mtime < time.time() - KEPT_SECONDS:
                remove(entry, inside=store)
