"""Follow log.jsonl and tell trackers, without slowing a training."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

from comp.child_processes import Child
from comp.console import say
from comp.errors import CompError
from comp.tracking.clients import TRACKERS, Tracker, _first_line
from comp.tracking.run import Run

BETWEEN_LOOKS = 1.0  # seconds
BETWEEN_TRIES = 60.0  # seconds, after an error
PATIENCE = 30.0  # seconds that trackers have at the end
END = "end"  # what a tracker's process is told at the end


# --- here ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def tracked(runs: Sequence[Run], *, grow: bool = False) -> Iterator[None]:
    """Have the runs of a recipe followed by its trackers: those that lack something, or all where the runs
    grow meanwhile."""
    wanted = [name for name in (runs[0].recipe.track if runs else ()) if grow or _lacks(runs, name)]
    started = {}
    for name in wanted:
        child = Child(_follow, name, runs)
        started[name] = child, threading.Thread(target=_repeat, args=(name, child.connection), daemon=True)
        started[name][1].start()
    try:
        yield
    finally:
        for child, _ in started.values():
            child.send(END)
        deadline = time.monotonic() + PATIENCE
        for name, (child, lines) in started.items():
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
                say(f"{name}: stopped after {PATIENCE:.0f} s, and may lack {TRACKERS[name].lost}")
            lines.join()
            n_rows = n_told = 0
            with contextlib.suppress(CompError):  # a log that can't be read, which the tracker said
                n_rows, n_told = sum(len(run.rows()) for run in runs), sum(run.n_told(name) for run in runs)
            if n_told < n_rows:
                say(f"{name}: lacks {n_rows - n_told} of {n_rows} rows; the same command tries again")


def _lacks(runs: Sequence[Run], tracker: str) -> bool:
    return any(run.n_told(tracker) < run.n_rows for run in runs)


def _repeat(name: str, lines: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            say(f"{name}: {lines.recv()}")


# --- in a tracker's process ---------------------------------------------------------------------------------


def _follow(name: str, runs: Sequence[Run], lines: Connection) -> None:
    """Tell the tracker what there is, until the parent says that it is over. The first error is sent as a
    line; after each the next try waits for a while."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    silence = os.open(os.devnull, os.O_WRONLY)  # clients talk much
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    told: dict[int | None, Tracker] = {}
    failed = False
    while True:
        is_last = lines.poll()
        try:
            for run in runs:
                _tell(name, run, told, lines)
            if is_last:
                for tracker in told.values():
                    tracker.close()
        except ImportError as error:
            lines.send(f"{error}; pip install {name}. log.jsonl has it all")
            return
        except Exception as error:
            told.clear()
            if not failed:
                lines.send(f"{_first_line(error)}; training goes on, and log.jsonl has it all")
            failed = True
        if is_last:
            return
        lines.poll(BETWEEN_TRIES if failed else BETWEEN_LOOKS)


def _tell(name: str, run: Run, told: dict[int | None, "Tracker"], lines: Connection) -> None:
    rows, n_told = run.rows(), run.n_told(name)
    if len(rows) <= n_told:
        return
    if run.fold not in told:
        told[run.fold] = TRACKERS[name](run, n_told, lines)
        n_told = max(n_told, told[run.fold].n_known)
        run.note(name, n_told)
    for epoch, row in enumerate(rows[n_told:], n_told + 1):
        told[run.fold].log(epoch, row)
        run.note(name, epoch)
