"""The fake Kaggle as tests start it: its services behind two servers, the API's and the storage's."""

import contextlib
import socket
import threading
from pathlib import Path

from tests.fake_kaggle.api import Api
from tests.fake_kaggle.kernels import kill
from tests.fake_kaggle.web import Server


class FakeKaggle(Api):
    """Kaggle as far as its client needs it. Set the attributes of State and add competitions and datasets at
    any time; `folder` keeps what is uploaded, built and run."""

    def __init__(self, folder: Path, port: int = 0):
        super().__init__(folder)
        self._servers = [Server(("127.0.0.1", p), self) for p in (port, 0)]
        self.url, self.storage_url = (f"http://127.0.0.1:{s.server_address[1]}" for s in self._servers)

    def __enter__(self) -> "FakeKaggle":
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for run in [run for kernel in self.kernels.values() for run in kernel.runs]:
            kill(run.process)

    def paths(self, method: str = "") -> list[str]:
        """The paths asked for, in order, of one method or of all."""
        return [path for verb, path, _ in list(self.requests) if not method or verb == method]
