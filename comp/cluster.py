"""Fold jobs on the machines of a Ray cluster, which share no disk. The package and what a job reads travel to
its machine; what it writes comes back to the names that a local run gives it, after each epoch and at the
end, so a job whose machine or process is lost goes on elsewhere from what came back."""

import contextlib
import hashlib
import logging
import os
import platform
import queue
import shutil
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comp.artifacts import JobFiles, digest, replacing, runs_dir, waiting_lock
from comp.console import Bars, say, size_text
from comp.errors import CompError, TimeIsUp
from comp.parallel import Device, Job, call, show

CHUNK = 128 * 2**20  # bytes of a file that are in memory at once
MAX_LOSSES = 5  # of a job's worker in a row, without a file that came back
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


def _source(ray: Any, home: str) -> Any:
    """An actor at `home`, which reads files in pieces when another machine lacks them."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Source:  # in here it travels by value: its process needn't import torch
        def read(self, path: str, offset: int) -> bytes:
            with Path(path).open("rb") as file:
                file.seek(offset)
                return file.read(CHUNK)

    return (
        ray.remote(Source)
        .options(
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(home, soft=False),
        )
        .remote()
    )


def run_on_ray(
    job: Job,
    arguments: dict[str, tuple[Any, ...]],
    files: dict[str, JobFiles],
    *,
    n_jobs: int,
    deadline: float,
    environment: Mapping[str, Path] | None = None,
) -> None:
    """As parallel.run_jobs, but on a Ray cluster that this machine is part of. Paths in the arguments are
    files that the job reads, or those of `files[name]`, which it writes; `environment` are files that it
    finds by a variable. `n_jobs` shares out the CPUs, however many jobs are left."""
    if not arguments:
        return
    with contextlib.ExitStack() as stack:
        for name in arguments:
            stack.enter_context(files[name].locked())
        ray = _connected()
        stack.callback(ray.shutdown)  # which ends all that still runs
        late: dict[str, str] = {}
        _supervise(ray, job, arguments, files, n_jobs, deadline, dict(environment or {}), late)
    if late:
        raise TimeIsUp(", ".join(f"{name}: {late[name]}" for name in arguments if name in late))


def _connected() -> Any:
    """The module ray, connected. Raises CompError where it isn't installed or there is no cluster."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning on machines without GPU
    try:
        import ray
        from ray._private.services import canonicalize_bootstrap_address_or_die
    except ImportError as error:
        raise CompError(
            f"--on ray needs Ray, which can't be imported ({error}); pip install '.[ray]'"
        ) from error
    wanted = os.environ.get("RAY_ADDRESS")
    package = {"py_modules": [str(Path(__file__).parent)], "excludes": ["__pycache__"]}
    try:
        address = canonicalize_bootstrap_address_or_die(wanted or "auto")
        host, _, port = address.rpartition(":")
        socket.create_connection(
            (host.strip("[]"), int(port)), timeout=10
        ).close()  # Ray takes minutes for it
        ray.init(address, runtime_env=package, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        looked = f"RAY_ADDRESS={wanted}" if wanted else "on this machine"
        raise CompError(
            f"no Ray cluster ({looked}): {' '.join(str(error).split())[:200]}; start one with "
            "`ray start --head` here and `ray start --address=…` on other machines, or leave out --on ray"
        ) from error
    return ray


def place(nodes: Iterable[Mapping[str, float]], n_jobs: int) -> Device:
    """What a job gets, from the resources of each node: a GPU with its share of cores where there are GPUs,
    else the most cores with which all jobs run at once (on one node as parallel.devices has it)."""
    nodes = list(nodes)
    if with_gpu := [node for node in nodes if node.get("GPU", 0) >= 1]:
        return Device("cuda:0", max(1, min(int(node.get("CPU", 0) / node["GPU"]) for node in with_gpu)))
    cores = [int(node.get("CPU", 0)) for node in nodes]
    enough = [k for k in range(1, max(cores, default=0) + 1) if sum(c // k for c in cores) >= n_jobs]
    if not any(cores):
        raise CompError("the Ray cluster has no machine with CPUs or GPUs; `ray start --address=…` adds one")
    return Device("cpu", max(enough, default=1))


def _fits(device: Device, node: Mapping[str, float]) -> bool:
    return node.get("CPU", 0) >= device.n_threads if device.name == "cpu" else node.get("GPU", 0) >= 1


def _supervise(
    ray: Any,
    job: Job,
    arguments: dict[str, tuple[Any, ...]],
    files: dict[str, JobFiles],
    n_jobs: int,
    deadline: float,
    environment: dict[str, Path],
    late: dict[str, str],
) -> None:
    """Start all jobs, show and write what they send, and start again those that are lost. Jobs that the time
    did not suffice for are added to `late`."""
    home = ray.get_runtime_context().get_node_id()
    source = _source(ray, home)
    # What a job sends waits on its machine once 8 pieces are unread, so that memory stays bounded.
    attempt = ray.remote(num_returns="streaming", max_retries=0, _generator_backpressure_num_objects=8)(work)

    def nodes() -> list[dict[str, float]]:
        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def start(name: str) -> None:
        cores = 0 if device.name != "cpu" else device.n_threads
        resources = {"num_cpus": cores, "num_gpus": int(not cores)}
        parcel = Parcel(
            job,
            arguments[name],
            device,
            {path: identity(path) for path in paths_in((arguments[name], environment), files[name].paths)},
            environment,
            {path: path.stat().st_size if path.exists() else None for path in files[name].paths},
            runs_dir(),
            files[name].every,
            home,
            Path.cwd(),
            deadline,
        )
        machines.pop(name, None)
        running[attempt.options(**resources).remote(parcel, source)] = name

    device = place(nodes(), n_jobs)
    running: dict[Any, str] = {}  # what a job sends, and its name
    machines: dict[str, str] = {}  # of the jobs that have started
    losses = dict.fromkeys(arguments, 0)
    told = time.monotonic()
    for name in arguments:
        start(name)
    with Bars() as bars:
        while running:
            waiting = {stream: name for stream, name in running.items() if name not in machines}
            if waiting and (late or time.time() > deadline):
                for stream, name in waiting.items():
                    ray.cancel(stream)
                    late[name] = "not started"
                    del running[stream]
                continue
            if waiting and not any(_fits(device, node) for node in nodes()):
                device = place(nodes(), n_jobs)  # the machines that it was chosen for are lost
                for stream, name in waiting.items():
                    ray.cancel(stream)
                    del running[stream]
                    start(name)
            if len(waiting) == len(running) and time.monotonic() - told > 30:
                told = time.monotonic()
                say(f"waits for a free {'GPU' if device.name != 'cpu' else 'place'} in the Ray cluster")
            for stream in ray.wait(list(running), num_returns=1, timeout=1)[0]:
                name = running[stream]
                try:
                    event = ray.get(next(stream))
                    if "file" in event:
                        _receive(ray, stream, event)
                        losses[name] = 0
                    elif "gone" in event:
                        event["gone"].unlink(missing_ok=True)
                    elif "machine" in event:
                        machines[name] = event["machine"]
                    elif "late" in event:
                        late[name] = event["late"]
                    elif "error" in event:
                        raise CompError(f"{name} on {machines[name]}: {event['error']}")
                    elif "failed" in event:
                        raise RuntimeError(f"{name} on {machines[name]} failed:\n{event['failed']}")
                    else:
                        show(bars, name, event)
                except StopIteration:
                    del running[stream]
                except ray.exceptions.RayTaskError as error:
                    last = str(error).strip().splitlines()[-1]
                    raise CompError(
                        f"{name} can't start: {last}; all machines of the cluster need what comp needs"
                    ) from error
                except ray.exceptions.RayError as error:
                    del running[stream]
                    losses[name] += 1
                    machine = machines.get(name, "a machine")
                    if losses[name] > MAX_LOSSES:
                        raise CompError(
                            f"{name} lost its worker {losses[name]} times in a row, last on {machine}: "
                            f"{str(error).strip().splitlines()[0]}"
                        ) from error
                    say(f"{name}  lost its worker on {machine} ({type(error).__name__}); it is started again")
                    start(name)


def identity(path: Path) -> tuple[int, str]:
    """Size, and a name under which other machines keep their copy."""
    stat = path.stat()
    parts = (platform.node(), str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino)
    return stat.st_size, digest(*parts) + path.suffix


def paths_in(value: Any, but: Iterable[Path]) -> set[Path]:
    """All paths in nested tuples, lists and dicts, except `but`."""
    found: list[Path] = []

    def note(path: Path) -> Path:
        found.append(path)
        return path

    replaced(value, note)
    return set(found) - set(but)


def replaced(value: Any, change: Callable[[Path], Path]) -> Any:
    """The same nested tuples, lists and dicts with other paths."""
    if isinstance(value, Path):
        return change(value)
    if type(value) in (tuple, list):
        return type(value)(replaced(item, change) for item in value)
    if type(value) is dict:
        return {key: replaced(item, change) for key, item in value.items()}
    return value


def _receive(ray: Any, stream: Any, event: dict[str, Any]) -> None:
    with replacing(event["file"]) as temporary, temporary.open("wb") as file:
        for _ in range(event["pieces"]):
            file.write(ray.get(next(stream)))


# --- on the job's machine -----------------------------------------------------------------------------------


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
        with contextlib.suppress(OSError):
            if entry.stat().st_mtime < time.time() - KEPT_SECONDS:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
