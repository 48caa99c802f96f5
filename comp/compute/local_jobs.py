"""Jobs on this machine: one process per GPU or share of the cores."""

import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from comp.child_processes import Child
from comp.compute.devices import Device, in_ranks
from comp.compute.jobs import Job, call, raise_if_late, show
from comp.console import ProgressBars
from comp.errors import CompError, TimeIsUp


def run_jobs(
    job: Job, arguments: dict[str, tuple[Any, ...]], places: Sequence[Device], deadline: float
) -> None:
    """Run job(*arguments[name], device=…, report=…, deadline=…) for each name. `job` is a function of a
    module.

    A job calls report(done=…, total=…) to move its bar, report(line=…) to print a line, and
    report(saved=True) after it has saved a checkpoint. It adds share=…, the share of the work that is done,
    where that isn't done / total. The first error ends all jobs and is raised here. After a TimeIsUp
    no further job starts, running jobs go on until their own TimeIsUp, and one TimeIsUp is raised here."""
    late: dict[str, str] = {}  # by name: what a job had done when its time was up
    if len(places) == 1:
        with ProgressBars() as bars:
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
    raise_if_late(arguments, late)


class Worker(Child):
    """A process on a device that runs one job after another, since starting it takes as long as a small
    job."""

    def __init__(self, job: Job, place: Device, deadline: float):
        super().__init__(_work, job, place, deadline)
        self.doing: str | None = None

    def take(self, name: str, args: tuple[Any, ...]) -> None:
        self.doing = name
        self.send((name, args))

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the events since the last call. Raise CompError if the process ended before its job."""
        while self.doing:
            gone = self.process.poll() is not None  # checked first: its last events still arrive below
            try:
                if self.connection.poll():
                    yield self.connection.recv()
                    continue
            except (EOFError, ConnectionError):
                gone = True
            if not gone:
                return
            code = self.process.wait()
            why = ", as the system does when memory runs out" if code == -signal.SIGKILL else ""
            raise CompError(f"{self.doing} was killed ({code}){why}; run again to resume")


def _run_side_by_side(
    job: Job,
    arguments: dict[str, tuple[Any, ...]],
    places: Sequence[Device],
    deadline: float,
    late: dict[str, str],
) -> None:
    """Run jobs in one process per device. Add jobs that did not finish in time to `late`."""
    waiting = list(arguments.items())
    workers: list[Worker] = []
    try:
        with ProgressBars() as bars:
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


def _see(worker: Worker, event: dict[str, Any], bars: ProgressBars, late: dict[str, str]) -> None:
    assert worker.doing
    if "error" in event:
        raise event["error"]
    if "late" in event:
        late[worker.doing] = event["late"]
    show(bars, worker.doing, event)
    if "ended" in event:
        worker.doing = None


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
