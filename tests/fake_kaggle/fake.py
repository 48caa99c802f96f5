"""The fake Kaggle that tests start: its services behind two servers, one for the API and one for storage."""

import contextlib
import socket
import threading
from pathlib import Path

from tests.fake_kaggle.api import Api
from tests.fake_kaggle.kernels import kill
from tests.fake_kaggle.web import Server


class FakeKaggle(Api):
    """The parts of Kaggle that the client uses. The attributes of State can be set, and competitions and
    datasets added, at any time. `folder` keeps uploads, archives and runs."""

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
        """Return the requested paths in order, for one HTTP method or all."""
        return [path for verb, path, _ in list(self.requests) if not method or verb == method]
