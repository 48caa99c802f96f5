"""Fold jobs on the machines of a Ray cluster, which share no disk. The package and what a job reads travel to
its machine; what it writes comes back to the names that a local run gives it, after each epoch and at the
end, so a job whose machine or process is lost goes on elsewhere from what came back."""

import contextlib
import hashlib
import logging
import os
import platform
import queue
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comp.artifacts.stamps import JobFiles, digest, remove, replacing, runs_dir, waiting_lock
from comp.compute.local_jobs import Device, Job, call, show
from comp.config.loading import PACKAGE_DIR
from comp.console import Bars, say, size_text
from comp.errors import CompError, TimeIsUp

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
        jobs = Jobs(ray, job, arguments, files, n_jobs, deadline, dict(environment or {}))
        jobs.run()
    if late := jobs.late:
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
    package = {"py_modules": [str(PACKAGE_DIR)], "excludes": ["__pycache__"]}
    try:
        address = canonicalize_bootstrap_address_or_die(wanted or "auto")
        host, _, port = address.rpartition(":")
        # Where nobody listens Ray would try for minutes.
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address, runtime_env=package, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        looked = f"RAY_ADDRESS={wanted}" if wanted else "on this machine"
        raise CompError(
            f"no Ray cluster ({looked}): {' '.join(str(error).split()).split('. ')[0][:200]}; start one with "
            "`ray start --head` here and `ray start --address=…` on other machines, or leave out --on ray"
        ) from error
    ray._private.worker._worker_logs_enabled = False  # its words on lost workers; a line of ours says it
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


class Jobs:
    """The jobs of a run: started, shown, their files written, and those that are lost started again."""

    def __init__(
        self,
        ray: Any,
        job: Job,
        arguments: dict[str, tuple[Any, ...]],
        files: dict[str, JobFiles],
        n_jobs: int,
        deadline: float,
        environment: dict[str, Path],
    ):
        self.ray, self.job, self.arguments, self.files = ray, job, arguments, files
        self.n_jobs, self.deadline, self.environment = n_jobs, deadline, environment
        self.home = ray.get_runtime_context().get_node_id()
        self.source = _source(ray, self.home)
        # What a job sends waits on its machine once 8 pieces are unread, so that memory stays bounded.
        self.attempt = ray.remote(
            num_returns="streaming", max_retries=0, _generator_backpressure_num_objects=8
        )(work)
        self.device = place(self._nodes(), n_jobs)
        self.running: dict[Any, str] = {}  # the stream of what a job sends, and its name
        self.machines: dict[str, str] = {}  # of the jobs that have started
        self.losses = dict.fromkeys(arguments, 0)
        self.late: dict[str, str] = {}  # the jobs that the time did not suffice for, and what they had done

    def run(self) -> None:
        for name in self.arguments:
            self._start(name)
        told = time.monotonic()
        with Bars() as bars:
            while self.running:
                waiting = {stream: name for stream, name in self.running.items() if name not in self.machines}
                if waiting and (self.late or time.time() > self.deadline):
                    for stream, name in waiting.items():
                        self._withdraw(stream)
                        self.late[name] = "not started"
                    continue
                if waiting and not any(_fits(self.device, node) for node in self._nodes()):
                    self.device = place(self._nodes(), self.n_jobs)  # the machines it was chosen for are lost
                    for stream, name in waiting.items():
                        self._withdraw(stream)
                        self._start(name)
                if len(waiting) == len(self.running) and time.monotonic() - told > 30:
                    told = time.monotonic()
                    say("waits for a free place in the Ray cluster")
                for stream in self.ray.wait(list(self.running), num_returns=1, timeout=1)[0]:
                    self._next(stream, bars)

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _start(self, name: str) -> None:
        args, paths = self.arguments[name], self.files[name].paths
        parcel = Parcel(
            self.job,
            args,
            self.device,
            {path: identity(path) for path in paths_in((args, self.environment), but=paths)},
            self.environment,
            {path: path.stat().st_size if path.exists() else None for path in paths},
            runs_dir(),
            self.files[name].every,
            self.home,
            Path.cwd(),
            self.deadline,
        )
        on_cpu = self.device.name == "cpu"
        resources = {"num_cpus": self.device.n_threads if on_cpu else 0, "num_gpus": 0 if on_cpu else 1}
        self.machines.pop(name, None)
        self.running[self.attempt.options(**resources).remote(parcel, self.source)] = name

    def _withdraw(self, stream: Any) -> None:
        self.ray.cancel(stream)
        del self.running[stream]

    def _next(self, stream: Any, bars: Bars) -> None:
        """Take what a job has sent, or see that it has ended."""
        name, errors = self.running[stream], self.ray.exceptions
        try:
            self._take(name, self.ray.get(next(stream)), stream, bars)
        except StopIteration:
            del self.running[stream]
        except errors.RayTaskError as error:
            last = str(error).strip().splitlines()[-1]
            raise CompError(
                f"{name} can't start: {last}; all machines of the cluster need what comp needs"
            ) from error
        except errors.RayError as error:
            del self.running[stream]
            self.losses[name] += 1
            machine = self.machines.get(name, "a machine")
            if self.losses[name] > MAX_LOSSES:
                reason = str(error).strip().splitlines()[0]
                raise CompError(
                    f"{name} lost its worker {self.losses[name]} times in a row, last on {machine}: {reason}"
                ) from error
            say(f"{name}  lost its worker on {machine} ({type(error).__name__}); it is started again")
            self._start(name)

    def _take(self, name: str, event: dict[str, Any], stream: Any, bars: Bars) -> None:
        if "machine" in event:
            self.machines[name] = event["machine"]
        elif (path := event.get("file") or event.get("gone")) and path not in self.files[name].paths:
            raise CompError(f"{name} on {self.machines.get(name)} sent {path}, which is no file of this job")
        elif "file" in event:
            with replacing(event["file"]) as temporary, temporary.open("wb") as file:
                for _ in range(event["pieces"]):
                    file.write(self.ray.get(next(stream)))
            self.losses[name] = 0
        elif "gone" in event:
            event["gone"].unlink(missing_ok=True)
        elif "late" in event:
            self.late[name] = event["late"]
        elif "error" in event:
            raise CompError(f"{name} on {self.machines[name]}: {event['error']}")
        elif "failed" in event:
            raise RuntimeError(f"{name} on {self.machines[name]} failed:\n{event['failed']}")
        else:
            show(bars, name, event)


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
