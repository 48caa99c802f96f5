"""A job on a machine of a Ray cluster: its files travel there and back."""

import contextlib
import hashlib
import os
import queue
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comp.artifacts.files import replacing, waiting_lock
from comp.artifacts.safe_paths import remove
from comp.compute.devices import Device
from comp.compute.jobs import Job, call
from comp.console import size_text
from comp.errors import CompError, TimeIsUp

CHUNK = 128 * 2**20  # bytes of a file that are in memory at once
KEPT_SECONDS = 30 * 86400  # for which a machine keeps copies that nobody uses
BETWEEN_BARS = 0.5  # seconds


@dataclass(frozen=True)
class Parcel:
    """A job as it travels. Paths are those of the machine that asked for it."""

    job: Job
    args: tuple[Any, ...]
    device: Device
    inputs: dict[Path, tuple[int, str]]  # size in bytes, and a name that is the same for the same content
    environment: dict[str, Path]  # variables whose value is one of the inputs
    written: dict[Path, int | None]  # the job's files, in order; the size of those that are there already
    runs: Path
    every: float
    home: str  # Ray's id of the machine that asked
    folder: Path  # where its relative paths begin
    deadline: float


def replaced(value: Any, change: Callable[[Path], Path]) -> Any:
    """The same nested tuples, lists and dicts with other paths."""
    if isinstance(value, Path):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(replaced(item, change) for item in value)
    if type(value) is dict:
        return {key: replaced(item, change) for key, item in value.items()}
    return value


def work(parcel: Parcel, source: Any) -> Iterator[Any]:
    """Run the job in a thread and yield what it reports and what it writes."""
    import ray

    yield {"machine": ray.util.get_node_ip_address()}
    events: queue.Queue = queue.Queue(maxsize=8)
    threading.Thread(target=_work, args=(parcel, source, events), daemon=True).start()
    while (event := events.get()) is not None:
        yield event


def _work(parcel: Parcel, source: Any, events: queue.Queue) -> None:
    local: dict[Path, Path] = {}  # by the path that the machine that asked has for it
    try:
        if time.time() > parcel.deadline:
            raise TimeIsUp("not started")
        store = Path(tempfile.gettempdir()) / f"comp-ray-{os.getuid()}"
        store.mkdir(exist_ok=True, mode=0o700)
        if store.is_symlink() or store.stat().st_uid != os.getuid():  # others may write there, too
            raise CompError(f"{store} is a link or not your own; remove it")
        _tidy(store)
        with tempfile.TemporaryDirectory(prefix="job-", dir=store) as folder:
            local[parcel.runs] = Path(folder)
            _work_in(Path(folder), store, parcel, source, local, events.put)
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
    parcel: Parcel,
    source: Any,
    local: dict[Path, Path],
    put: Callable[[Any], None],
) -> None:
    """Lay the files, run the job in `folder` and put its reports and its files; fills `local`."""
    import ray

    at_home = ray.get_runtime_context().get_node_id() == parcel.home
    for path, (size, name) in parcel.inputs.items():
        if at_home:
            local[path] = parcel.folder / path
            continue
        local[path] = store / name
        with waiting_lock(store / f".{name}.lock"):
            if local[path].exists():
                os.utime(local[path])  # says that it is used
                continue
            if size > CHUNK:
                put({"line": f"copies {path.name} ({size_text(size)})"})
            _fetch(source, parcel.folder / path, size, local[path])
    sent: dict[Path, str] = {}
    written = {path: folder / path.relative_to(parcel.runs) for path in parcel.written}
    for path, size_there in parcel.written.items():
        if size_there is not None:
            _fetch(source, parcel.folder / path, size_there, written[path])
            sent[path] = _content(written[path])
    os.environ["COMP_RUNS"] = str(folder)
    os.environ.update({key: str(local[path]) for key, path in parcel.environment.items()})
    last_bar, last_files = 0.0, time.monotonic()

    def report(**event: Any) -> None:
        nonlocal last_bar, last_files
        now = time.monotonic()
        if "line" in event or event.get("done") == event.get("total") or now - last_bar > BETWEEN_BARS:
            last_bar = now if "done" in event else last_bar
            put(event)
        if event.get("saved") or now - last_files > parcel.every:
            _send(written, sent, put)
            last_files = time.monotonic()

    args = replaced(parcel.args, lambda path: written.get(path) or local[path])
    try:
        call(parcel.job, args, parcel.device, report, parcel.deadline)
    finally:
        _send(written, sent, put)


def _fetch(source: Any, path: Path, size: int, target: Path) -> None:
    import ray

    with replacing(target) as temporary, temporary.open("wb") as file:
        for offset in range(0, size, CHUNK):
            try:
                piece = ray.get(source.read.remote(str(path), offset))
            except ray.exceptions.RayError as error:
                raise CompError(f"{path} can't be copied: {str(error).strip().splitlines()[-1]}") from error
            file.write(piece)
        if file.tell() != size:
            raise CompError(f"{path} was changed while it was copied; run again")


def _send(written: Mapping[Path, Path], sent: dict[Path, str], put: Callable[[Any], None]) -> None:
    """Put those of the job's files that aren't there as they are now, in their order; then what is gone."""
    for path, ours in written.items():
        if ours.exists() and sent.get(path) != (content := _content(ours)):
            put({"file": path, "pieces": -(-ours.stat().st_size // CHUNK)})
            with ours.open("rb") as file:
                while piece := file.read(CHUNK):
                    put(piece)
            sent[path] = content
    for path in [path for path in sent if not written[path].exists()]:
        put({"gone": path})
        del sent[path]


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tidy(store: Path) -> None:
    """Remove copies, and what killed jobs left, that nobody has used for long."""
    for entry in store.iterdir():
        with contextlib.suppress(OSError, CompError):
            if entry.lstat().st_mtime < time.time() - KEPT_SECONDS:
                remove(entry, inside=store)
