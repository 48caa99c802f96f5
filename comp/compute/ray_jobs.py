"""Jobs on a Ray cluster: starting, watching, retrying."""

import contextlib
import logging
import os
import platform
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from comp.artifacts.files import replacing
from comp.artifacts.paths import runs_dir
from comp.artifacts.resumable import JobFiles
from comp.artifacts.stamps import digest
from comp.compute.devices import Device
from comp.compute.jobs import Job, show
from comp.compute.ray_worker import CHUNK, Parcel, replaced, work
from comp.config.loading import PACKAGE_DIR
from comp.console import Bars, say
from comp.errors import CompError, TimeIsUp

MAX_LOSSES = 5  # of a job's worker in a row, without a file that came back


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
