"""Fold jobs: in this process, or one process a GPU, or as many as there are CPU cores. Each reports to the
parent, which draws the progress; a job dies with its parent. When the time is up each stops on its own."""

import contextlib
import gc
import multiprocessing
import os
import queue
import resource
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

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


class Worker:
    """A process at a place, which runs one job after another: starting one takes as long as a small job."""

    def __init__(self, context: Any, job: Job, place: Device, events: Any, deadline: float):
        self.tasks = context.SimpleQueue()
        self.doing: str | None = None
        self.process = context.Process(target=_work, args=(job, place, self.tasks, events, deadline))
        self.process.start()

    def take(self, name: str, args: tuple[Any, ...]) -> None:
        self.doing = name
        self.tasks.put((name, args))


def _run_side_by_side(
    job: Job,
    arguments: dict[str, tuple[Any, ...]],
    places: Sequence[Device],
    deadline: float,
    late: dict[str, str],
) -> None:
    """One process a place. Jobs that the time did not suffice for are added to `late`."""
    context = multiprocessing.get_context("spawn")
    events: multiprocessing.Queue = context.Queue()
    waiting = list(arguments.items())
    workers: list[Worker] = []
    try:
        with Bars() as bars:
            if time.time() <= deadline:
                workers += [Worker(context, job, place, events, deadline) for place in places[: len(waiting)]]
            while waiting or any(worker.doing for worker in workers):
                if late or time.time() > deadline:
                    late.update({name: "not started" for name, _ in waiting})
                    waiting.clear()
                for worker in workers:
                    if not worker.doing and waiting:
                        worker.take(*waiting.pop(0))
                for name in _drain(events, bars, late):
                    next(worker for worker in workers if worker.doing == name).doing = None
                for worker in workers:
                    if worker.doing and not worker.process.is_alive():
                        if worker.doing in _drain(events, bars, late):
                            worker.doing = None
                            continue
                        raise CompError(
                            f"{worker.doing} was killed ({worker.process.exitcode}); "
                            "run again to go on where it was"
                        )
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join()


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


def _drain(events: multiprocessing.Queue, bars: Bars, late: dict[str, str]) -> list[str]:
    """Show what has come; give the names of the jobs that have ended."""
    ended, end = [], time.monotonic() + 0.2
    while (left := end - time.monotonic()) > 0:
        try:
            name, event = events.get(timeout=left)
        except queue.Empty:
            break
        if "error" in event:
            raise event["error"]
        if "late" in event:
            late[name] = event["late"]
        if "ended" in event:
            ended.append(name)
        show(bars, name, event)
    return ended


def show(bars: Bars, name: str, event: dict[str, Any]) -> None:
    """Print a job's line, or move its bar. That files were saved only matters to other machines."""
    if "line" in event:
        say(f"{name}  {event['line']}")
    elif "done" in event:
        bars.at(f"{name} {event.get('label', '')}".rstrip(), event["done"], event["total"])


def _work(job: Job, place: Device, tasks: Any, events: multiprocessing.Queue, deadline: float) -> None:
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            name, args = tasks.get()
            _work_on(name, job, args, place, events, deadline)
            events.put((name, {"ended": True}))
            del args
            place.release()


def _work_on(
    name: str,
    job: Job,
    args: tuple[Any, ...],
    place: Device,
    events: multiprocessing.Queue,
    deadline: float,
) -> None:
    try:
        call(job, args, place, lambda **event: events.put((name, event)), deadline)
    except TimeIsUp as stop:
        events.put((name, {"late": str(stop)}))
    except CompError as error:
        events.put((name, {"error": CompError(f"{name}: {error}")}))
    except Exception:
        events.put((name, {"error": RuntimeError(f"{name} failed:\n{traceback.format_exc()}")}))


def _die_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
