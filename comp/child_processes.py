"""Processes that work for this one and end with it, however it ends: each reads from a pipe that closes when
nobody is left to write to it. They import nothing heavy before they watch it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any


class Child:
    """A process that calls work(*args, connection). `connection` here is the other end of that one. `work` is
    a function of a module."""

    def __init__(self, work: Callable[..., None], *args: Any):
        self.connection, theirs = Pipe()
        code = f"import sys; sys.path = {sys.path!r}; from comp.child_processes import begin; begin({theirs.fileno()})"
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until it can end without a word
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, pass_fds=[theirs.fileno()]
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()
        self.send((work, args))

    def send(self, message: Any) -> None:
        """Send it; where nobody is there any more, whoever waits for an answer sees that."""
        with contextlib.suppress(ConnectionError):
            self.connection.send(message)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.connection.close()


def begin(descriptor: int) -> None:
    """What the process does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt, EOFError, ConnectionError):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        connection = Connection(descriptor)
        work, args = connection.recv()
        work(*args, connection)


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)
