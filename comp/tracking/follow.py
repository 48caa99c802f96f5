"""Send the rows of log.jsonl to trackers, each from a process of its own, so training never waits."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

from comp.child_processes import Child
from comp.console import info
from comp.errors import CompError
from comp.tracking.clients import TRACKERS, Tracker, first_line
from comp.tracking.run import Run

READ_INTERVAL = 1.0  # seconds between two readings of the log
RETRY_INTERVAL = 60.0  # seconds until the next try after an error
CLOSE_SECONDS = 30.0  # time for trackers to finish after training
STOP = "end"  # message that makes a tracker's process finish


# --- in the command's process -------------------------------------------------------------------------------


@contextlib.contextmanager
def track_runs(runs: Sequence[Run], *, grow: bool = False) -> Iterator[None]:
    """Send the rows of a recipe's runs to its trackers inside a `with` block. Without `grow` start only
    trackers that lack rows."""
    wanted = [name for name in (runs[0].recipe.track if runs else ()) if grow or _lacks(runs, name)]
    started = {}
    for name in wanted:
        child = Child(_follow, name, runs)
        printer = threading.Thread(target=_print_lines, args=(name, child.connection), daemon=True)
        printer.start()
        started[name] = child, printer
    try:
        yield
    finally:
        for child, _ in started.values():
            child.send(STOP)
        deadline = time.monotonic() + CLOSE_SECONDS
        for name, (child, lines) in started.items():
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
                info(f"{name}: stopped after {CLOSE_SECONDS:.0f} s; it may lack {TRACKERS[name].may_lack}")
            lines.join()
            n_rows = n_sent = 0
            with contextlib.suppress(CompError):  # an unreadable log: the tracker's process reported it
                n_rows, n_sent = sum(len(run.rows()) for run in runs), sum(run.n_sent(name) for run in runs)
            if n_sent < n_rows:
                info(f"{name}: lacks {n_rows - n_sent} of {n_rows} rows; the same command tries again")


def _lacks(runs: Sequence[Run], tracker: str) -> bool:
    return any(run.n_sent(tracker) < run.n_rows for run in runs)


def _print_lines(name: str, lines: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            info(f"{name}: {lines.recv()}")


# --- in a tracker's process ---------------------------------------------------------------------------------


def _follow(name: str, runs: Sequence[Run], lines: Connection) -> None:
    """Send new rows to the tracker until the parent sends STOP. Report the first error as a line. Wait
    RETRY_INTERVAL after each error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    silence = os.open(os.devnull, os.O_WRONLY)  # clients print a lot
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    clients: dict[int | None, Tracker] = {}
    failed = False
    while True:
        is_last = lines.poll()
        try:
            for run in runs:
                _send_rows(name, run, clients, lines)
            if is_last:
                for tracker in clients.values():
                    tracker.close()
        except ImportError as error:
            lines.send(f"{error}; pip install {name}. log.jsonl has all rows")
            return
        except Exception as error:
            clients.clear()
            if not failed:
                lines.send(f"{first_line(error)}; training goes on, and log.jsonl has all rows")
            failed = True
        if is_last:
            return
        lines.poll(RETRY_INTERVAL if failed else READ_INTERVAL)


def _send_rows(name: str, run: Run, clients: dict[int | None, "Tracker"], lines: Connection) -> None:
    rows, n_sent = run.rows(), run.n_sent(name)
    if len(rows) <= n_sent:
        return
    if run.fold not in clients:
        clients[run.fold] = TRACKERS[name](run, n_sent, lines)
        n_sent = max(n_sent, clients[run.fold].n_known)
        run.mark_sent(name, n_sent)
    for epoch, row in enumerate(rows[n_sent:], n_sent + 1):
        clients[run.fold].log(epoch, row)
        run.mark_sent(name, epoch)
