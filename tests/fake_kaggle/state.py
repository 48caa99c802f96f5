"""The server's state: settings, competitions, datasets, kernels, uploads and requests."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from tests.fake_kaggle.replies import Json


@dataclass
class Failure:
    """A queued failure; a fraction `at` below 1 is a share of the body."""

    kind: str
    match: re.Pattern[str] = re.compile("")
    times: int = 1
    at: float = 0
    after: int = 0
    seconds: float | None = None

    def offset(self, size: int) -> int:
        """Return `at` in bytes for a body of `size` bytes."""
        return int(self.at * size) if 0 < self.at < 1 else int(self.at)


@dataclass
class Blob:
    """An uploaded file; `size` is the announced size."""

    name: str
    size: int
    path: Path

    @property
    def complete(self) -> bool:
        return self.path.exists() and self.path.stat().st_size == self.size


@dataclass
class Competition:
    slug: str
    files: dict[str, Path]
    sample: str | None
    solution: str | None
    daily_limit: int
    accepted: bool
    beta: float
    average: str
    code: bool
    created: datetime


@dataclass
class Submission:
    ref: int
    competition: str
    user: str
    name: str
    description: str
    path: Path
    date: datetime
    public: float | None = None
    private: float | None = None
    error: str = ""
    judged: threading.Event = field(default_factory=threading.Event)


@dataclass
class DatasetVersion:
    number: int
    files: dict[str, Path]
    ready_at: float
    notes: str
    created: datetime


@dataclass
class Dataset:
    """A dataset and its versions; the newest version that is ready is served."""

    ref: str
    id: int
    title: str
    license: str
    private: bool
    versions: list[DatasetVersion] = field(default_factory=list)

    @property
    def status(self) -> str:
        """The status of the newest version: 'pending' or 'ready'."""
        return "ready" if self.versions[-1].ready_at <= time.time() else "pending"

    @property
    def current(self) -> DatasetVersion | None:
        """The newest version that is ready."""
        return next((v for v in reversed(self.versions) if v.ready_at <= time.time()), None)

    @property
    def files(self) -> dict[str, Path]:
        """The files of the newest version, ready or not."""
        return self.versions[-1].files


@dataclass
class KernelRun:
    """One version of a kernel: the pushed request and its run."""

    number: int
    request: Json
    folder: Path
    status: str = "QUEUED"
    failure: str = ""
    events: list[Json] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    @property
    def working(self) -> Path:
        return self.folder / "working"

    @property
    def done(self) -> bool:
        return self.status in ("COMPLETE", "ERROR")

    @property
    def log(self) -> str:
        """The log in Kaggle's format: a JSON list of {stream_name, time, data}."""
        return "[" + "\n,".join(json.dumps(event) for event in list(self.events)) + "\n]"

    @property
    def files(self) -> dict[str, Path]:
        """The output: the files in the run's working folder."""
        return {
            p.relative_to(self.working).as_posix(): p for p in sorted(self.working.rglob("*")) if p.is_file()
        }


@dataclass
class Kernel:
    ref: str
    id: int
    title: str
    runs: list[KernelRun] = field(default_factory=list)


class State:
    """The attributes shared by all parts of the server: settings first."""

    url: str
    storage_url: str

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.users = {"tester": "0123456789abcdef-secret"}
        self.tokens = {"KGAT_secret_token": "tester"}
        self.redirect = True  # downloads redirect to storage
        self.with_hashes = True  # storage sends checksums
        self.lying_limit = False  # at the daily limit report success but record nothing
        self.score_after = 0.5  # seconds
        self.ready_after = 0.5  # seconds until a dataset's new version is ready
        self.queued_for = 0.1  # seconds until a kernel runs
        self.unknown_dataset = 403
        self.mount_layout = "new"  # or "flat"
        self.python = sys.executable
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.calls: list[tuple[str, Json]] = []
        self.errors: list[str] = []
        self.competitions: dict[str, Competition] = {}
        self.datasets: dict[str, Dataset] = {}
        self.kernels: dict[str, Kernel] = {}
        self._submissions: list[Submission] = []
        self._blobs: dict[str, Blob] = {}
        self._stored: dict[str, tuple[str, Path]] = {}
        self._failures: list[Failure] = []
        self._chaos: tuple[int, float, tuple[str, ...], float] | None = None
        self._seen: Counter[str] = Counter()
        self._ids = 0
        self._lock = threading.RLock()
        self._building = threading.Lock()
        self.stopping = threading.Event()
        self.connections: set[socket.socket] = set()

    def _new_id(self) -> int:
        with self._lock:
            self._ids += 1
            return self._ids
