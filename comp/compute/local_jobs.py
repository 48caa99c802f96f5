"""Fold jobs: in this process, or one process a GPU, or as many as there are CPU cores. Each reports to the
parent, which draws the progress; a job ends with its parent. When the time is up each stops on its own."""

import gc
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from comp.child_processes import Child
from comp.console import Bars, say
from comp.errors import CompError, TimeIsUp

Report = Callable[..., None]
Job = Callable[..., None]  # job(*arguments, device, report, deadline)


@dataclass(frozen=True)
class Device:
    name: str  # "cpu", "cuda:0", …
    n_threads: int  # for torch and for loading

    def activate(self) -> torch.device:
        torch.set_num_threads(self.n_threads if self.name == "cpu" else max(1, self.n_threads // 2))
        device = torch.device(self.name)
        if device.type == "cuda":
            torch.cuda.set_device(device)
            torch.backends.cudnn.benchmark = True
            torch.set_float32_matmul_precision("high")
        return device

    def release(self) -> None:
        """Give back the memory that no tensor is in any more."""
        gc.collect()
        if self.name != "cpu":
            torch.cuda.empty_cache()

    @property
    def n_loaders(self) -> int:
        """Processes that load batches beside a GPU; on a CPU the step itself wants the cores."""
        return 0 if self.name == "cpu" else max(1, min(8, self.n_threads - 1))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch, or a library that it calls, found no memory: not all of them say it by a class."""
    signs = (
        "can't allocate memory",
        "CUDA out of memory",
        "CUDA error: out of memory",
        "unable to find an engine",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
    )
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in signs)


def memory_in_use(device: torch.device) -> int:
    """Bytes: the most that tensors held on a GPU so far, or what the process has in memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:  # not on Linux: the most so far
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_ranks() -> bool:
    """Whether this is one of several processes of torchrun, which have to agree on when to stop."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def devices(n_jobs: int) -> list[Device]:
    """The places where jobs run at once. On CPUs the cores are shared out evenly: small networks gain more
    from folds side by side than from threads. The split depends on the number of jobs asked for and not on
    how many are left, so that a resumed run rounds as the first did."""
    n_gpus = torch.cuda.device_count()
    if n_gpus:
        return [Device(f"cuda:{i}", max(1, n_cores() // n_gpus)) for i in range(n_gpus)]
    n_workers = max(1, min(n_jobs, n_cores()))
    return [Device("cpu", n_cores() // n_workers)] * n_workers


def run_jobs(
    job: Job, arguments: dict[str, tuple[Any, ...]], places: Sequence[Device], deadline: float
) -> None:
    """Run job(*arguments[name], device=…, report=…, deadline=…) for each name. `job` is a function of a
    module.

    A job calls report(done=…, total=…) for its bar, report(line=…) for a line, and report(saved=True) once
    it has saved what it goes on from. The first error ends all jobs and is raised here. A job that raises
    TimeIsUp ends alone: the others go on until they stop as well, no further one is started, and one TimeIsUp
    is raised here."""
    late: dict[str, str] = {}  # job: what it had done when its time was up
    if len(places) == 1:
        with Bars() as bars:
            for name, args in arguments.items():

                def report(name: str = name, **event: Any) -> None:
                    show(bars, name, event)

                if late or (time.time() > deadline and not in_ranks()):
                    late[name] = "not started"
                    continue
                try:
                    call(job, args, places[0], report, deadline)
                except TimeIsUp as stop:
                    late[name] = str(stop)
    elif arguments:
        _run_side_by_side(job, arguments, places, deadline, late)
    if late:
        raise TimeIsUp(", ".join(f"{name}: {late[name]}" for name in arguments if name in late))


class Worker(Child):
    """A process at a place, which runs one job after another: starting one takes as long as a small job."""

    def __init__(self, job: Job, place: Device, deadline: float):
        super().__init__(_work, job, place, deadline)
        self.doing: str | None = None

    def take(self, name: str, args: tuple[Any, ...]) -> None:
        self.doing = name
        self.send((name, args))

    def events(self) -> Iterator[dict[str, Any]]:
        """What it has said since. Raises CompError where it is gone before its job's end."""
        while self.doing:
            gone = self.process.poll() is not None  # seen first: what it said before comes first, too
            try:
                if self.connection.poll():
                    yield self.connection.recv()
                    continue
            except (EOFError, ConnectionError):
                gone = True
            if not gone:
                return
            code = self.process.wait()
            raise CompError(f"{self.doing} was killed ({code}); run again to go on where it was")


def _run_side_by_side(
    job: Job,
    arguments: dict[str, tuple[Any, ...]],
    places: Sequence[Device],
    deadline: float,
    late: dict[str, str],
) -> None:
    """One process a place. Jobs that the time did not suffice for are added to `late`."""
    waiting = list(arguments.items())
    workers: list[Worker] = []
    try:
        with Bars() as bars:
            if time.time() <= deadline:
                workers += [Worker(job, place, deadline) for place in places[: len(waiting)]]
            while waiting or any(worker.doing for worker in workers):
                if late or time.time() > deadline:
                    late.update({name: "not started" for name, _ in waiting})
                    waiting.clear()
                for worker in workers:
                    if not worker.doing and waiting:
                        worker.take(*waiting.pop(0))
                wait([worker.connection for worker in workers if worker.doing], timeout=0.2)
                for worker in workers:
                    for event in worker.events():
                        _see(worker, event, bars, late)
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.end()


def _see(worker: Worker, event: dict[str, Any], bars: Bars, late: dict[str, str]) -> None:
    assert worker.doing
    if "error" in event:
        raise event["error"]
    if "late" in event:
        late[worker.doing] = event["late"]
    show(bars, worker.doing, event)
    if "ended" in event:
        worker.doing = None


def call(job: Job, args: tuple[Any, ...], place: Device, report: Report, deadline: float) -> None:
    """Run the job; what users can mend becomes a CompError."""
    try:
        job(*args, device=place, report=report, deadline=deadline)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise CompError(
            "memory is full; set phases.N.accumulate, gradient_checkpointing = true, or a smaller batch_size"
        ) from error
    except OSError as error:
        raise CompError(f"{error.filename or 'system'}: {error.strerror or error}") from error


def show(bars: Bars, name: str, event: dict[str, Any]) -> None:
    """Print a job's line, or move its bar. That files were saved only matters to other machines."""
    if "line" in event:
        say(f"{name}  {event['line']}")
    elif "done" in event:
        bars.at(f"{name} {event.get('label', '')}".rstrip(), event["done"], event["total"])


def _work(job: Job, place: Device, deadline: float, connection: Connection) -> None:
    while True:
        name, args = connection.recv()
        _work_on(name, job, args, place, connection, deadline)
        connection.send({"ended": True})
        del args
        place.release()


def _work_on(
    name: str, job: Job, args: tuple[Any, ...], place: Device, connection: Connection, deadline: float
) -> None:
    try:
        call(job, args, place, lambda **event: connection.send(event), deadline)
    except TimeIsUp as stop:
        connection.send({"late": str(stop)})
    except CompError as error:
        connection.send({"error": CompError(f"{name}: {error}")})
    except Exception:
        connection.send({"error": RuntimeError(f"{name} failed:\n{traceback.format_exc()}")})
