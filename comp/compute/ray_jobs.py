"""Jobs on a Ray cluster: start, watch, retry."""

import contextlib
import logging
import os
import platform
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from comp.artifacts.files import atomic_write
from comp.artifacts.paths import runs_dir
from comp.artifacts.resumable import JobFiles
from comp.artifacts.stamps import digest
from comp.compute.devices import Device
from comp.compute.jobs import Job, raise_if_late, show
from comp.compute.ray_worker import CHUNK_BYTES, RemoteJob, replace_paths, work
from comp.config.loading import PACKAGE_DIR
from comp.console import ProgressBars, info
from comp.errors import CompError

MAX_LOST_WORKERS = 5  # of a job in a row, with no file received in between


def _source(ray: Any, home: str) -> Any:
    """Return an actor on the node `home` that reads files in chunks, for machines without them."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    class Source:  # defined here it is pickled by value, so its process need not import torch
        def read(self, path: str, offset: int) -> bytes:
            with Path(path).open("rb") as file:
                file.seek(offset)
                return file.read(CHUNK_BYTES)

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
    """Run jobs as `run_jobs` does, but on a Ray cluster that this machine belongs to.

    Paths in the arguments are files that the job reads, or those of `files[name]`, which it writes.
    `environment` holds files that it finds by a variable. `n_jobs` is the number of requested jobs; the CPUs
    are shared among so many. Raise TimeIsUp as `run_jobs` does, and CompError without a cluster."""
    if not arguments:
        return
    with contextlib.ExitStack() as stack:
        for name in arguments:
            stack.enter_context(files[name].locked())
        ray = _connected()
        stack.callback(ray.shutdown)  # ends all running jobs
        jobs = RayJobRunner(ray, job, arguments, files, n_jobs, deadline, dict(environment or {}))
        jobs.run()
    raise_if_late(arguments, jobs.late)


def _connected() -> Any:
    """Return the module ray, connected. Raise CompError if it isn't installed or there is no cluster."""
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
        # If nobody listens, Ray itself would try for minutes.
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address, runtime_env=package, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        looked = f"RAY_ADDRESS={wanted}" if wanted else "on this machine"
        raise CompError(
            f"no Ray cluster ({looked}): {' '.join(str(error).split()).split('. ')[0][:200]}; start one with "
            "`ray start --head` here and `ray start --address=…` on other machines, or leave out --on ray"
        ) from error
    ray._private.worker._worker_logs_enabled = False  # comp prints its own line on a lost worker
    return ray


def device_for(nodes: Iterable[Mapping[str, float]], n_jobs: int) -> Device:
    """Return the device of each job from the nodes' resources: a GPU and its share of cores, if there are
    GPUs; else the most cores with which all jobs run at once (on one node as `devices` returns)."""
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


class RayJobRunner:
    """Start jobs, show what they report, write their files, and start lost ones again."""

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
        # A job waits while 8 of its items are unread, so memory stays bounded.
        self.attempt = ray.remote(
            num_returns="streaming", max_retries=0, _generator_backpressure_num_objects=8
        )(work)
        self.device = device_for(self._nodes(), n_jobs)
        self.running: dict[Any, str] = {}  # by a job's stream of items: its name
        self.machines: dict[str, str] = {}  # by name, of jobs that have started
        self.losses = dict.fromkeys(arguments, 0)
        self.late: dict[str, str] = {}  # by name: what a job had done when its time was up

    def run(self) -> None:
        """Run all jobs to their end, or until `late` holds those that did not finish in time."""
        for name in self.arguments:
            self._start(name)
        last_line = time.monotonic()
        with ProgressBars() as bars:
            while self.running:
                waiting = {stream: name for stream, name in self.running.items() if name not in self.machines}
                if waiting and (self.late or time.time() > self.deadline):
                    for stream, name in waiting.items():
                        self._withdraw(stream)
                        self.late[name] = "not started"
                    continue
                if waiting and not any(_fits(self.device, node) for node in self._nodes()):
                    self.device = device_for(self._nodes(), self.n_jobs)  # its machines are lost
                    for stream, name in waiting.items():
                        self._withdraw(stream)
                        self._start(name)
                if len(waiting) == len(self.running) and time.monotonic() - last_line > 30:
                    last_line = time.monotonic()
                    info("waiting for free resources in the Ray cluster")
                for stream in self.ray.wait(list(self.running), num_returns=1, timeout=1)[0]:
                    self._next(stream, bars)

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def _start(self, name: str) -> None:
        args, paths = self.arguments[name], self.files[name].paths
        job = RemoteJob(
            self.job,
            args,
            self.device,
            {path: file_identity(path) for path in find_paths((args, self.environment), but=paths)},
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
        self.running[self.attempt.options(**resources).remote(job, self.source)] = name

    def _withdraw(self, stream: Any) -> None:
        self.ray.cancel(stream)
        del self.running[stream]

    def _next(self, stream: Any, bars: ProgressBars) -> None:
        """Handle the next item of a job, or its end."""
        name, errors = self.running[stream], self.ray.exceptions
        try:
            self._take(name, self.ray.get(next(stream)), stream, bars)
        except StopIteration:
            del self.running[stream]
        except errors.RayTaskError as error:
            last = str(error).strip().splitlines()[-1]
            raise CompError(
                f"{name} can't start: {last}; install comp's dependencies on all machines of the cluster"
            ) from error
        except errors.RayError as error:
            del self.running[stream]
            self.losses[name] += 1
            machine = self.machines.get(name, "a machine")
            if self.losses[name] > MAX_LOST_WORKERS:
                reason = str(error).strip().splitlines()[0]
                raise CompError(
                    f"{name} lost its worker {self.losses[name]} times in a row, last on {machine}: {reason}"
                ) from error
            info(f"{name}  lost its worker on {machine} ({type(error).__name__}); starting it again")
            self._start(name)

    def _take(self, name: str, event: dict[str, Any], stream: Any, bars: ProgressBars) -> None:
        if "machine" in event:
            self.machines[name] = event["machine"]
        elif (path := event.get("file") or event.get("gone")) and path not in self.files[name].paths:
            raise CompError(f"{name} on {self.machines.get(name)} sent {path}, which is not one of its files")
        elif "file" in event:
            with atomic_write(event["file"]) as temporary, temporary.open("wb") as file:
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


def file_identity(path: Path) -> tuple[int, str]:
    """Return a file's size, and the name of its copy on other machines."""
    stat = path.stat()
    parts = (platform.node(), str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino)
    return stat.st_size, digest(*parts) + path.suffix


def find_paths(value: Any, but: Iterable[Path]) -> set[Path]:
    """Return all paths in nested tuples, lists, dicts and dataclasses, except `but`."""
    found: set[Path] = set()

    def note(path: Path) -> Path:
        found.add(path)
        return path

    replace_paths(value, note)
    return found - set(but)
