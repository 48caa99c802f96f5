"""Child processes that end with their parent, however it ends: each reads from a pipe that closes when the
parent is gone. A child imports nothing heavy before it watches this pipe."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any

CAN_START = hasattr(signal, "pthread_sigmask")  # not on Windows, which passes no descriptors to a child


class Child:
    """A process that calls work(*args, connection); `connection` of this object is the other end. `work` is a
    top-level function of a module."""

    def __init__(self, work: Callable[..., None], *args: Any):
        self.connection, theirs = Pipe()
        setup = f"import sys; sys.path = {sys.path!r}; from comp.child_processes import begin"
        code = f"{setup}; begin({theirs.fileno()})"
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until it handles Ctrl-C quietly
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, pass_fds=[theirs.fileno()]
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()
        self.send((work, args))

    def send(self, message: Any) -> None:
        """Send a message. If the child has exited, do nothing: the caller notices when it waits for
        the answer."""
        with contextlib.suppress(ConnectionError):
            self.connection.send(message)

    def end(self) -> None:
        """Stop the process, and wait until it is gone."""
        self.process.terminate()
        self.process.wait()
        self.connection.close()


def begin(descriptor: int) -> None:
    """Receive the work through the pipe and do it: the child's main function."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt, EOFError, ConnectionError):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        connection = Connection(descriptor)
        work, args = connection.recv()
        work(*args, connection)


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)
