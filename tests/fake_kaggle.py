"""A small Kaggle on 127.0.0.1 for the real client: competitions, submissions, datasets and kernels over the
client's own protocol, with failures on demand. `python -m tests.fake_kaggle` serves it by hand."""

import argparse
import base64
import contextlib
import hashlib
import io
import json
import mimetypes
import os
import random
import re
import secrets
import shutil
import signal
import site
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
import urllib.parse
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

BLOCK = 1 << 16
ARCHIVES = (".tar.7z", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip", ".7z", ".tgz", ".tar")
KINDS = (
    "cut", "403", "404", "429", "500", "503", "length", "slow", "hang", "drop", "refuse", "corrupt",
    "nolength", "html",
)  # fmt: skip
TRANSIENT = tuple(kind for kind in KINDS if kind not in ("403", "404"))
RULES = "You must accept this competition's rules before you'll be able to download files."
PLANET = "planet-understanding-the-amazon-from-space"
MIRROR = "nikitarom/planets-dataset"
HPA = "human-protein-atlas-image-classification"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

Json = dict[str, Any]


class Refusal(Exception):
    """An answer other than 200: its status and what the client is told."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


@dataclass
class Reply:
    """What is sent back: bytes, or the bytes `start` to `stop` of a file."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    path: Path | None = None
    start: int = 0
    stop: int = 0

    def __len__(self) -> int:
        return self.stop - self.start if self.path else len(self.body)

    def blocks(self) -> Iterator[bytes]:
        """The body in blocks of at most BLOCK bytes."""
        if self.path is None:
            yield from (self.body[i : i + BLOCK] for i in range(0, len(self.body), BLOCK))
            return
        with self.path.open("rb") as file:
            file.seek(self.start)
            left = len(self)
            while left > 0 and (block := file.read(min(BLOCK, left))):
                yield block
                left -= len(block)


@dataclass
class Failure:
    """A failure that waits for its requests; `at` below 1 and not whole is a share of the body."""

    kind: str
    match: re.Pattern[str] = re.compile("")
    times: int = 1
    at: float = 0
    after: int = 0
    seconds: float | None = None

    def offset(self, size: int) -> int:
        """`at` in bytes of a body of `size` bytes."""
        return int(self.at * size) if 0 < self.at < 1 else int(self.at)


@dataclass
class Blob:
    """An uploaded file; `size` is what its uploader announced."""

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
    """A dataset and its versions; a version is served once it is ready, and until then the one before."""

    ref: str
    id: int
    title: str
    license: str
    private: bool
    versions: list[DatasetVersion] = field(default_factory=list)

    @property
    def status(self) -> str:
        """Of the newest version: 'pending' or 'ready'."""
        return "ready" if self.versions[-1].ready_at <= time.time() else "pending"

    @property
    def current(self) -> DatasetVersion | None:
        """The newest version that is ready."""
        return next((v for v in reversed(self.versions) if v.ready_at <= time.time()), None)

    @property
    def files(self) -> dict[str, Path]:
        """Of the newest version, ready or not."""
        return self.versions[-1].files


@dataclass
class KernelRun:
    """One version of a kernel: what was pushed and how its run went."""

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
        """As Kaggle keeps it: a JSON list of {stream_name, time, data}."""
        return "[" + "\n,".join(json.dumps(event) for event in list(self.events)) + "\n]"

    @property
    def files(self) -> dict[str, Path]:
        """The output: what the run left in its working folder."""
        return {
            p.relative_to(self.working).as_posix(): p for p in sorted(self.working.rglob("*")) if p.is_file()
        }


@dataclass
class Kernel:
    ref: str
    id: int
    title: str
    runs: list[KernelRun] = field(default_factory=list)


class FakeKaggle:
    """Kaggle as far as its client needs it. Set the attributes below and add competitions and datasets at any
    time; `folder` keeps what is uploaded, built and run."""

    def __init__(self, folder: Path, port: int = 0):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.users = {"tester": "0123456789abcdef-secret"}
        self.tokens = {"KGAT_secret_token": "tester"}
        self.redirect = True  # downloads are answered by a redirect to the storage
        self.with_hashes = True  # the storage tells checksums
        self.lying_limit = False  # "Successfully submitted" at the daily limit, and nothing recorded
        self.score_after = 0.5  # seconds
        self.ready_after = 0.5  # seconds until a dataset's new version is there
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
            _kill(run.process)

    # What tests set up and look at

    def add_competition(
        self,
        slug: str,
        files: dict[str, bytes | Path],
        sample: str | None = None,
        solution: str | None = None,
        daily_limit: int = 5,
        accepted: bool = True,
        beta: float = 2.0,
        average: str = "samples",
        code: bool = False,
    ) -> None:
        """Add or replace a competition. `files` by the name they are listed under, which may hold folders;
        `sample` is the listed name of the sample submission, a CSV or a zip of one; `solution` is a CSV text
        of id, tags and Usage (Public or Private); `code` takes submissions from kernels only."""
        kept = self._keep(files)
        with self._lock:
            self.competitions[slug] = Competition(
                slug, kept, sample, solution, daily_limit, accepted, beta, average, code, datetime.now(UTC)
            )

    def add_dataset(self, ref: str, files: dict[str, bytes | Path], title: str | None = None) -> None:
        """Add a public dataset "owner/slug", or a new version of it, that is ready at once."""
        kept = self._keep(files)
        with self._lock:
            if ref not in self.datasets:
                name = title or ref.split("/")[1]
                self.datasets[ref] = Dataset(ref, self._new_id(), name, "CC0-1.0", False)
            self._add_version(self.datasets[ref], kept, "", time.time())

    def fail(
        self,
        kind: str,
        match: str = "",
        times: int = 1,
        at: float = 0,
        after: int = 0,
        seconds: float | None = None,
    ) -> None:
        """Queue a failure for the next `times` requests whose "METHOD path" matches, past the first `after`.

        cut: `at` bytes of the body, then the end (of an upload: that many are taken). 403, 404, 429, 500,
        503: that status (Retry-After: `seconds`). length: Content-Length off by `at`. slow: `at` bytes a
        second. hang: nothing for `seconds`, then the end. drop: the work is done, no answer comes. refuse:
        closed before anything. corrupt: the byte `at` is flipped. nolength: no Content-Length, the body ends
        with the connection (cut after `at` bytes if set). html: 200 with a page. An `at` between 0 and 1 is a
        share of the body."""
        if kind not in KINDS:
            raise ValueError(f"unknown failure {kind!r}; known: {', '.join(KINDS)}")
        with self._lock:
            self._failures.append(Failure(kind, re.compile(match), times, at, after, seconds))

    def chaos(self, seed: int, rate: float, kinds: Sequence[str] = TRANSIENT, seconds: float = 0.2) -> None:
        """Let each request fail with probability `rate`, drawn from the seed, the request's kind and name and
        how often it came: the order of different requests doesn't matter. Rate 0 ends it."""
        with self._lock:
            self._chaos = (seed, rate, tuple(kinds), seconds) if rate > 0 else None
            self._seen.clear()

    @property
    def submissions(self) -> list[Json]:
        """All submissions, oldest first, as the client sees them, with competition, user and path."""
        with self._lock:
            return [
                {**self._view(s), "competition": s.competition, "user": s.user, "path": s.path}
                for s in self._submissions
            ]

    def paths(self, method: str = "") -> list[str]:
        """The paths asked for, in order, of one method or of all."""
        return [path for verb, path, _ in list(self.requests) if not method or verb == method]

    # What the handler asks for

    def next_failure(self, verb: str, path: str) -> Failure | None:
        """The failure for this request, if one waits or chaos draws one."""
        with self._lock:
            for failure in self._failures:
                if failure.times < 1 or not failure.match.search(f"{verb} {path}"):
                    continue
                if failure.after > 0:
                    failure.after -= 1
                    continue
                failure.times -= 1
                return failure
            if self._chaos is None:
                return None
            seed, rate, kinds, seconds = self._chaos
            key = f"{verb} {re.sub('^/(storage|upload)/[^/]+', lambda m: '/' + m[1], path)}"
            self._seen[key] += 1
            rng = random.Random(f"{seed}|{key}|{self._seen[key]}")
            if rng.random() >= rate:
                return None
            kind, share = rng.choice(kinds), rng.uniform(0.01, 0.99)
            at = {"length": rng.choice([-3, -1, 1, 7]), "slow": 1e6}.get(kind, share)
            return Failure(kind, at=at, seconds=seconds)

    def user_of(self, authorization: str | None) -> str | None:
        """The user of an Authorization header, None if it is missing or wrong."""
        scheme, _, value = (authorization or "").partition(" ")
        if scheme == "Bearer":
            return self.tokens.get(value)
        if scheme == "Basic":
            with contextlib.suppress(ValueError):
                user, _, key = base64.b64decode(value).decode().partition(":")
                return user if key and self.users.get(user) == key else None
        return None

    def call(self, service: str, method: str, request: Json, user: str | None) -> Reply:
        """Answer one call of the API."""
        if user is None and method != "IntrospectToken":
            raise Refusal(401, "Unauthenticated: the credentials are missing or wrong")
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", method).lower()
        action = getattr(self, f"_{service.split('.')[0]}_{snake}", None)
        if action is None:
            raise Refusal(404, f"{service}/{method} is not part of this server")
        with self._lock:
            self.calls.append((method, request))
        answer = action(request, user)
        return answer if isinstance(answer, Reply) else json_reply(answer)

    def stored(self, key: str, signature: str | None, headers: Any) -> Reply:
        """Answer a request to the storage, whole or in part."""
        secret, path = self._stored.get(key, ("", Path()))
        if "Authorization" in headers:
            raise Refusal(400, "Only one auth mechanism allowed")
        if not secret or signature != secret:
            raise Refusal(403, "The provided signature does not match")
        if not path.is_file():
            raise Refusal(404, "The specified key does not exist")
        return self._file_reply(path, headers)

    def upload(self, key: str, content_range: str | None, blocks: Iterable[bytes]) -> Reply:
        """Take the bytes of an upload, or the rest of one, or tell how much is there."""
        blob = self._blobs.get(key)
        if blob is None:
            raise Refusal(404, "No such upload")
        match = re.fullmatch(r"bytes (?:\*|(\d+)-(\d+))/(\d+|\*)", content_range or "bytes 0-0/*")
        there = blob.path.stat().st_size if blob.path.exists() else 0
        if match is None or (match[1] and 0 < int(match[1]) != there):
            raise Refusal(400, f"Content-Range {content_range} does not follow {there} bytes")
        if match[1] is not None:
            with blob.path.open("ab" if int(match[1]) else "wb") as file:
                for block in blocks:
                    file.write(block)
                    file.flush()
        if blob.complete:
            return json_reply({"name": blob.name, "size": str(blob.size)})
        there = blob.path.stat().st_size if blob.path.exists() else 0
        return Reply(308, [("Range", f"bytes=0-{there - 1}")] if there else [])

    # Security and blobs

    def _security_introspect_token(self, request: Json, _user: str | None) -> Json:
        user = self.tokens.get(request.get("token", ""))
        return {"active": True, "username": user, "userId": 1} if user else {"active": False}

    def _blobs_start_blob_upload(self, request: Json, _user: str) -> Json:
        return self._start_upload(request["name"], request.get("contentLength", 0))

    def _start_upload(self, name: str, size: int) -> Json:
        key = secrets.token_hex(12)
        path = self.folder / "uploads" / key
        path.parent.mkdir(exist_ok=True)
        with self._lock:
            self._blobs[key] = Blob(Path(name).name, size, path)
        if size == 0:
            path.touch()
        return {"token": f"token-{key}", "createUrl": f"{self.url}/upload/{key}"}

    def _uploaded(self, token: str) -> Blob:
        blob = self._blobs.get(token.removeprefix("token-"))
        if blob is None or not blob.complete:
            raise Refusal(400, "The upload was not found or is not complete")
        return blob

    # Competitions

    def _competition(self, request: Json, *, rules: bool = False) -> Competition:
        slug = request.get("competitionName", "").rstrip("/").split("/")[-1]
        if slug not in self.competitions:
            raise Refusal(404, f"Competition {slug} was not found")
        if rules and not self.competitions[slug].accepted:
            raise Refusal(403, RULES)
        return self.competitions[slug]

    def _competitions_list_competitions(self, request: Json, _user: str) -> Json:
        found = [c for slug, c in self.competitions.items() if request.get("search", "") in slug]
        page, token = _page(found if request.get("page", 1) == 1 else [], request)
        return {"competitions": [self._about(c) for c in page], "nextPageToken": token}

    def _competitions_get_competition(self, request: Json, _user: str) -> Json:
        return self._about(self._competition(request))

    def _about(self, competition: Competition) -> Json:
        return {
            "id": 1,
            "ref": f"https://www.kaggle.com/competitions/{competition.slug}",
            "url": f"https://www.kaggle.com/competitions/{competition.slug}",
            "title": competition.slug.replace("-", " ").title(),
            "userHasEntered": competition.accepted,
            "maxDailySubmissions": competition.daily_limit,
            "isKernelsSubmissionsOnly": competition.code,
            "enabledDate": _iso(competition.created),
            "deadline": "2030-01-01T00:00:00Z",
        }

    def _competitions_list_data_files(self, request: Json, _user: str) -> Json:
        competition = self._competition(request)
        page, token = _page(sorted(competition.files), request)
        created = _iso(competition.created)
        files = [
            {
                "ref": n,
                "name": n,
                "totalBytes": competition.files[n].stat().st_size,
                "creationDate": created,
            }
            for n in page
        ]
        return {"files": files, "nextPageToken": token}

    def _competitions_download_data_file(self, request: Json, _user: str) -> Reply:
        competition = self._competition(request, rules=True)
        name = request.get("fileName", "")
        if name not in competition.files:
            raise Refusal(404, f"File {name} was not found in {competition.slug}")
        return self._hand_out(competition.files[name], Path(name).name)

    def _competitions_download_data_files(self, request: Json, _user: str) -> Reply:
        competition = self._competition(request, rules=True)
        stamp = f"{competition.slug}-{int(competition.created.timestamp() * 1e6)}"
        return self._hand_out(self._zip(stamp, competition.files), f"{competition.slug}.zip")

    def _competitions_start_submission_upload(self, request: Json, _user: str) -> Json:
        self._competition(request, rules=True)
        return self._start_upload(request.get("fileName", "submission.csv"), request.get("contentLength", 0))

    def _competitions_create_submission(self, request: Json, user: str) -> Json:
        competition = self._competition(request, rules=True)
        if competition.code:
            raise Refusal(400, "This competition only accepts Submissions from Notebooks")
        blob = self._uploaded(request.get("blobFileTokens", ""))
        description = request.get("submissionDescription", "")
        return self._submit(competition, user, blob.path, blob.name, description)

    def _competitions_create_code_submission(self, request: Json, user: str) -> Json:
        competition = self._competition(request, rules=True)
        kernel = self._kernel(request.get("kernelOwner", user), request["kernelSlug"])
        number = request.get("kernelVersion", len(kernel.runs))
        run = next((r for r in kernel.runs if r.number == number), None)
        name = request.get("fileName", "submission.csv")
        if run is None or run.status != "COMPLETE" or name not in run.files:
            raise Refusal(400, f"Version {number} of the notebook has no output {name}")
        description = request.get("submissionDescription", "")
        return self._submit(competition, user, run.files[name], name, description)

    def _submit(self, competition: Competition, user: str, path: Path, name: str, description: str) -> Json:
        title = competition.slug.replace("-", " ").title()
        with self._lock:
            if self._today(competition, user) >= competition.daily_limit:
                if self.lying_limit:
                    return {"message": f"Successfully submitted to {title}", "ref": 0}
                raise Refusal(
                    400,
                    "Submission not allowed: Your team has used its daily Submission allowance "
                    f"({competition.daily_limit}) today, please try again tomorrow UTC (in a few hours).",
                )
            ref = 40_000_000 + self._new_id()
            submission = Submission(ref, competition.slug, user, name, description, path, datetime.now(UTC))
            self._submissions.append(submission)
        threading.Thread(target=_judge, args=(competition, submission), daemon=True).start()
        return {"message": f"Successfully submitted to {title}", "ref": ref}

    def _today(self, competition: Competition, user: str) -> int:
        """How many submissions of today count: those that didn't fail."""
        today = datetime.now(UTC).date()
        mine = [s for s in self._submissions if (s.competition, s.user) == (competition.slug, user)]
        return sum(s.date.date() == today and self._view(s)["status"] != "ERROR" for s in mine)

    def _view(self, submission: Submission) -> Json:
        seconds = (datetime.now(UTC) - submission.date).total_seconds()
        view = {
            "ref": submission.ref,
            "fileName": submission.name,
            "date": _iso(submission.date),
            "description": submission.description,
            "totalBytes": submission.path.stat().st_size,
            "submittedBy": submission.user,
            "submittedByRef": submission.user,
            "teamName": submission.user,
            "url": f"https://www.kaggle.com/submissions/{submission.ref}",
            "status": "PENDING",
            "publicScore": "",
            "privateScore": "",
            "errorDescription": "",
        }
        if seconds < self.score_after or not submission.judged.is_set():
            return view
        if submission.error:
            return {**view, "status": "ERROR", "errorDescription": submission.error}
        scores = (f"{s:.5f}" if s is not None else "" for s in (submission.public, submission.private))
        return {**view, "status": "COMPLETE", **dict(zip(("publicScore", "privateScore"), scores))}

    def _competitions_get_submission(self, request: Json, user: str) -> Json:
        with self._lock:
            found = next((s for s in self._submissions if s.ref == request.get("ref")), None)
        if found is None or found.user != user:
            raise Refusal(404, f"Submission {request.get('ref')} was not found")
        return self._view(found)

    def _competitions_list_submissions(self, request: Json, user: str) -> Json:
        competition = self._competition(request, rules=True)
        with self._lock:
            mine = [s for s in self._submissions if (s.competition, s.user) == (competition.slug, user)]
        page, token = _page(mine[::-1], request)
        return {"submissions": [self._view(s) for s in page], "nextPageToken": token}

    def _competitions_get_submission_limits(self, request: Json, user: str) -> Json:
        competition = self._competition(request, rules=True)
        with self._lock:
            today = self._today(competition, user)
            mine = [s for s in self._submissions if (s.competition, s.user) == (competition.slug, user)]
        left = max(0, competition.daily_limit - today)
        return {"numToday": today, "numTotal": len(mine), "numAllowedNow": left, "limitedByTotal": False}

    # Datasets

    def _dataset(self, request: Json) -> Dataset:
        ref = f"{request.get('ownerSlug')}/{request.get('datasetSlug')}"
        if ref not in self.datasets:
            raise Refusal(self.unknown_dataset, f"Permission 'datasets.get' was denied for {ref}")
        return self.datasets[ref]

    def _version(self, request: Json) -> DatasetVersion:
        dataset = self._dataset(request)
        number = request.get("datasetVersionNumber")
        found = dataset.current
        if number:
            found = next((v for v in dataset.versions if v.number == number), None)
        if found is None or found.ready_at > time.time():
            raise Refusal(404, f"{dataset.ref} has no version {number or ''} that is ready")
        return found

    def _datasets_list_datasets(self, request: Json, user: str) -> Json:
        found = [d for ref, d in self.datasets.items() if request.get("search", "") in ref]
        if "MY" in request.get("group", ""):
            found = [d for d in found if d.ref.startswith(f"{user}/")]
        return {"datasets": [self._describe(d) for d in found if request.get("page", 1) == 1]}

    def _datasets_get_dataset(self, request: Json, _user: str) -> Json:
        return self._describe(self._dataset(request))

    def _describe(self, dataset: Dataset) -> Json:
        owner = dataset.ref.split("/")[0]
        return {
            "id": dataset.id,
            "ref": dataset.ref,
            "title": dataset.title,
            "ownerName": owner,
            "ownerRef": owner,
            "url": f"https://www.kaggle.com/datasets/{dataset.ref}",
            "isPrivate": dataset.private,
            "licenseName": dataset.license,
            "totalBytes": sum(p.stat().st_size for p in dataset.files.values()),
            "lastUpdated": _iso(dataset.versions[-1].created),
            "currentVersionNumber": dataset.current.number if dataset.current else None,
            "versions": [
                {"versionNumber": v.number, "versionNotes": v.notes, "creationDate": _iso(v.created)}
                for v in dataset.versions
            ],
        }

    def _datasets_get_dataset_metadata(self, request: Json, _user: str) -> Json:
        dataset = self._dataset(request)
        owner, slug = dataset.ref.split("/")
        info = {
            "datasetId": dataset.id,
            "datasetSlug": slug,
            "ownerUser": owner,
            "title": dataset.title,
            "isPrivate": dataset.private,
            "licenses": [{"name": dataset.license}],
        }
        return {"info": info}

    def _datasets_get_dataset_status(self, request: Json, _user: str) -> Json:
        return {"status": "READY" if self._dataset(request).status == "ready" else "BLOBS_RECEIVED"}

    def _datasets_list_dataset_files(self, request: Json, _user: str) -> Json:
        version = self._version(request)
        page, token = _page(sorted(version.files), request)
        created = _iso(version.created)
        files = [
            {
                "ref": n,
                "name": n,
                "totalBytes": version.files[n].stat().st_size,
                "creationDate": created,
                "fileType": Path(n).suffix,
            }
            for n in page
        ]
        return {"datasetFiles": files, "nextPageToken": token}

    def _datasets_download_dataset(self, request: Json, _user: str) -> Reply:
        version = self._version(request)
        if name := request.get("fileName"):
            if name not in version.files:
                raise Refusal(404, f"File {name} was not found in {request['datasetSlug']}")
            return self._hand_out(version.files[name], Path(name).name)
        stamp = f"{request['ownerSlug']}-{request['datasetSlug']}-v{version.number}"
        return self._hand_out(self._zip(stamp, version.files), f"{request['datasetSlug']}.zip")

    def _datasets_create_dataset(self, request: Json, user: str) -> Json:
        ref = f"{request.get('ownerSlug')}/{request.get('slug')}"
        if not ref.startswith(f"{user}/"):
            raise Refusal(403, f"Permission 'datasets.create' was denied for {ref}")
        files = self._new_files(request)
        with self._lock:
            if ref in self.datasets:
                return {"status": "error", "error": f"The dataset {ref} exists already", "ref": ref}
            title, licence = request.get("title", ref), request.get("licenseName", "unknown")
            dataset = Dataset(ref, self._new_id(), title, licence, bool(request.get("isPrivate")))
            return self._new_version(dataset, files, "Initial release")

    def _datasets_create_dataset_version(self, request: Json, user: str) -> Json:
        dataset = self._dataset(request)
        if not dataset.ref.startswith(f"{user}/"):
            raise Refusal(403, f"Permission 'datasets.update' was denied for {dataset.ref}")
        body = request.get("body", {})
        files = self._new_files(body)
        with self._lock:
            if body.get("deleteOldVersions"):
                dataset.versions[:-1] = []
            return self._new_version(dataset, files, body.get("versionNotes", ""))

    def _datasets_create_dataset_version_by_id(self, request: Json, user: str) -> Json:
        found = next((d for d in self.datasets.values() if d.id == request.get("id")), None)
        if found is None:
            raise Refusal(self.unknown_dataset, "Permission 'datasets.update' was denied")
        owner, slug = found.ref.split("/")
        return self._datasets_create_dataset_version(
            {**request, "ownerSlug": owner, "datasetSlug": slug}, user
        )

    def _new_version(self, dataset: Dataset, files: dict[str, Path], notes: str) -> Json:
        answer = {"ref": dataset.ref, "url": f"https://www.kaggle.com/datasets/{dataset.ref}"}
        if not files:
            return {**answer, "status": "error", "error": "The dataset needs at least one file"}
        self.datasets[dataset.ref] = dataset
        self._add_version(dataset, files, notes, time.time() + self.ready_after)
        return {**answer, "status": "ok"}

    def _add_version(self, dataset: Dataset, files: dict[str, Path], notes: str, ready_at: float) -> None:
        number = dataset.versions[-1].number + 1 if dataset.versions else 1
        dataset.versions.append(DatasetVersion(number, files, ready_at, notes, datetime.now(UTC)))

    def _new_files(self, body: Json, prefix: str = "") -> dict[str, Path]:
        """The files of a request that names uploads; archives become folders, as on Kaggle."""
        files: dict[str, Path] = {}
        for blob in [self._uploaded(f.get("token", "")) for f in body.get("files", [])]:
            files |= self._unpacked(prefix + blob.name, blob.path)
        for folder in body.get("directories", []):
            files |= self._new_files(folder, f"{prefix}{folder['name']}/")
        return files

    # Kernels

    def _kernel(self, owner: str, slug: str) -> Kernel:
        if f"{owner}/{slug}" not in self.kernels:
            raise Refusal(403, f"Permission 'kernels.get' was denied for {owner}/{slug}")
        return self.kernels[f"{owner}/{slug}"]

    def _run_of(self, request: Json) -> KernelRun:
        return self._kernel(request.get("userName", ""), request.get("kernelSlug", "")).runs[-1]

    def _kernels_save_kernel(self, request: Json, user: str) -> Json:
        ref, title = request.get("slug", ""), request.get("newTitle", "")
        if not ref.startswith(f"{user}/"):
            raise Refusal(403, f"Permission 'kernels.update' was denied for {ref}")
        if ref not in self.kernels and title:  # the title names a new kernel, whatever its id says
            ref = f"{user}/{re.sub('[^a-z0-9]+', '-', title.lower()).strip('-')}"
        known = {
            "Dataset": lambda s: s in self.datasets and self.datasets[s].current is not None,
            "Competition": lambda s: s in self.competitions and self.competitions[s].accepted,
            "Kernel": lambda s: s in self.kernels,
            "Model": lambda s: False,
        }
        sources, invalid = {}, {}
        for kind, is_known in known.items():
            named = request.get(f"{kind.lower()}DataSources", [])
            sources[f"{kind.lower()}DataSources"] = [s for s in named if is_known(s)]
            invalid[f"invalid{kind}Sources"] = [s for s in named if not is_known(s)]
        with self._lock:
            if ref not in self.kernels:
                self.kernels[ref] = Kernel(ref, self._new_id(), title)
            kernel = self.kernels[ref]
            number = len(kernel.runs) + 1
            folder = self.folder / "kernels" / ref / str(number)
            run = KernelRun(number, {**request, **sources}, folder)
            kernel.runs.append(run)
        threading.Thread(target=self._run, args=(run,), daemon=True).start()
        url = f"https://www.kaggle.com/code/{ref}"
        return {"ref": f"/code/{ref}", "url": url, "versionNumber": number, "kernelId": kernel.id, **invalid}

    def _kernels_get_kernel_session_status(self, request: Json, _user: str) -> Json:
        run = self._run_of(request)
        return {"status": run.status, "failureMessage": run.failure}

    def _kernels_list_kernel_session_output(self, request: Json, _user: str) -> Json:
        run = self._run_of(request)
        if not run.done:
            return {"files": [], "log": ""}
        files = run.files
        page, token = _page(list(files), request)
        listed = [{"fileName": n, "url": self._store(files[n], Path(n).name)} for n in page]
        return {"files": listed, "log": run.log, "nextPageToken": token}

    def _kernels_list_kernel_files(self, request: Json, _user: str) -> Json:
        files = self._run_of(request).files
        page, token = _page(list(files), request)
        listed = [
            {"name": n, "size": files[n].stat().st_size, "creationDate": _iso(datetime.now(UTC))}
            for n in page
        ]
        return {"files": listed, "nextPageToken": token}

    def _kernels_download_kernel_output(self, request: Json, _user: str) -> Reply:
        run = self._kernel(request.get("ownerSlug", ""), request.get("kernelSlug", "")).runs[-1]
        name = request.get("filePath", "")
        if name not in run.files:
            raise Refusal(404, f"The output has no file {name}")
        return self._hand_out(run.files[name], Path(name).name)

    def log_of(self, owner: str, slug: str) -> Reply:
        """The log of a kernel's last run."""
        return Reply(200, [("Content-Type", "text/plain")], self._kernel(owner, slug).runs[-1].log.encode())

    def _run(self, run: KernelRun) -> None:
        """Run a pushed kernel as Kaggle would: its inputs mounted, its credentials gone."""
        try:
            if self.stopping.wait(self.queued_for):
                return
            for name in ("src", "input", "working", "home"):
                (run.folder / name).mkdir(parents=True)
            self._mount(run)
            code = run.folder / "src" / "script.py"
            text = run.request.get("text", "")
            code.write_text(_notebook_code(text) if run.request.get("kernelType") == "notebook" else text)
            run.status = "RUNNING"
            run.process = subprocess.Popen(
                [str(self.python), str(code)], cwd=run.working, env=self._environment(run), text=True,
                errors="replace", stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
            started = time.monotonic()
            readers = [
                threading.Thread(target=self._read, args=(run, name, started), daemon=True)
                for name in ("stdout", "stderr")
            ]
            for reader in readers:
                reader.start()
            limit = run.request.get("sessionTimeoutSeconds")
            try:
                code_of_exit = run.process.wait(limit or None)
            except subprocess.TimeoutExpired:
                _kill(run.process)
                code_of_exit, run.failure = run.process.wait(), "Your notebook was stopped: it took too long"
            for reader in readers:
                reader.join(5)
            if code_of_exit and not run.failure:
                run.failure = f"Your notebook exited with code {code_of_exit}"
        except Exception as error:
            run.failure = f"The notebook could not be run: {error}"
        run.status = "ERROR" if run.failure else "COMPLETE"

    def _read(self, run: KernelRun, name: str, started: float) -> None:
        assert run.process
        for line in getattr(run.process, name):
            seconds = round(time.monotonic() - started, 6)
            run.events.append({"stream_name": name, "time": seconds, "data": line})

    def _environment(self, run: KernelRun) -> dict[str, str]:
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("KAGGLE_", "COMP_")) and k != "PYTHONPATH"
        }
        if run.request.get("enableInternet") is False:  # what reads proxies finds nobody there
            kept = {k: v for k, v in kept.items() if k.lower() not in ("no_proxy", "all_proxy")}
            proxies = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
            kept |= dict.fromkeys(proxies, "http://127.0.0.1:9")
        return kept | {
            "COMP_KAGGLE_INPUT": str(run.folder / "input"),
            "COMP_KAGGLE_WORKING": str(run.working),
            "KAGGLE_KERNEL_RUN_TYPE": "Batch",
            "HOME": str(run.folder / "home"),
            "PYTHONUSERBASE": site.getuserbase(),
            "PYTHONUNBUFFERED": "1",
        }

    def _mount(self, run: KernelRun) -> None:
        """Lay out the inputs: plain files as they are listed, a competition's archives unpacked."""
        mounts: dict[str, dict[str, Path]] = {}
        for slug in run.request["competitionDataSources"]:
            files: dict[str, Path] = {}
            for name, path in self.competitions[slug].files.items():
                files |= self._unpacked(name, path)
            mounts[f"competitions/{slug}"] = files
        for ref in run.request["datasetDataSources"]:
            current = self.datasets[ref].current
            mounts[f"datasets/{ref}"] = current.files if current else {}
        for ref in run.request["kernelDataSources"]:
            finished = next((r for r in reversed(self.kernels[ref].runs) if r.status == "COMPLETE"), None)
            mounts[f"notebooks/{ref}"] = finished.files if finished else {}
        for place, files in mounts.items():
            flat = self.mount_layout == "flat"
            folder = run.folder / "input" / (place.split("/")[-1] if flat else place)
            folder.mkdir(parents=True, exist_ok=True)
            for name, path in files.items():
                _link(path, folder / name)

    # Files

    def _new_id(self) -> int:
        with self._lock:
            self._ids += 1
            return self._ids

    def _keep(self, files: dict[str, bytes | Path]) -> dict[str, Path]:
        """The files as paths; bytes are written into the folder."""
        kept = {}
        for name, content in files.items():
            if isinstance(content, bytes):
                path = self.folder / "given" / str(self._new_id()) / Path(name).name
                path.parent.mkdir(parents=True)
                path.write_bytes(content)
                content = path
            kept[name] = Path(content)
        return kept

    def _zip(self, stamp: str, files: dict[str, Path]) -> Path:
        """A zip of all files, not compressed, built once."""
        target = self.folder / "zips" / f"{stamp}.zip"
        with self._building:
            if not target.exists():
                target.parent.mkdir(exist_ok=True)
                partial = target.with_suffix(".partial")
                with zipfile.ZipFile(partial, "w") as archive:
                    for name in sorted(files):
                        archive.write(files[name], name)
                partial.replace(target)
        return target

    def _unpacked(self, name: str, path: Path) -> dict[str, Path]:
        """A file, or the members of an archive: x.csv for x.csv.zip, else in a folder of its stem."""
        suffix = next((s for s in ARCHIVES if name.lower().endswith(s)), None)
        if suffix is None:
            return {name: path}
        stat = path.stat()
        stamp = hashlib.md5(f"{path} {stat.st_mtime_ns} {stat.st_size}".encode()).hexdigest()[:12]
        folder, stem = self.folder / "unpacked" / stamp, name[: -len(suffix)]
        with self._building:
            if not folder.exists():
                partial = folder.with_suffix(".partial")
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                _extract(path, suffix, partial)
                partial.replace(folder)
        members = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
        if list(members) == [Path(stem).name]:
            return {stem: members[Path(stem).name]}
        return {f"{stem}/{member}": p for member, p in members.items()}

    def _store(self, path: Path, name: str) -> str:
        """A signed address of a file, good for anyone who has it."""
        key, signature = secrets.token_hex(8), secrets.token_hex(24)
        with self._lock:
            self._stored[key] = (signature, path)
        return f"{self.storage_url}/storage/{key}/{urllib.parse.quote(name)}?X-Goog-Signature={signature}"

    def _hand_out(self, path: Path, name: str) -> Reply:
        if not self.redirect:
            return self._file_reply(path, {})
        return Reply(302, [("Location", self._store(path, name)), ("Content-Type", "text/html")])

    def _file_reply(self, path: Path, headers: Any) -> Reply:
        stat = path.stat()
        size = stat.st_size
        modified = formatdate(stat.st_mtime, usegmt=True)
        md5, crc = _hashes(path, stat.st_mtime_ns, size)
        etag = f'"{md5.hex()}"' if self.with_hashes else f'"v{stat.st_mtime_ns:x}-{size:x}"'
        answer = [
            ("Content-Type", mimetypes.guess_type(path.name)[0] or "application/octet-stream"),
            ("Accept-Ranges", "bytes"),
            ("ETag", etag),
            ("Last-Modified", modified),
        ]
        if self.with_hashes:
            answer += [
                ("x-goog-hash", f"crc32c={base64.b64encode(crc).decode()}"),
                ("x-goog-hash", f"md5={base64.b64encode(md5).decode()}"),
            ]
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("Range") or "")
        if match is None or not any(match.groups()) or headers.get("If-Range", etag) not in (etag, modified):
            return Reply(200, answer, path=path, stop=size)
        if match[1]:
            start, stop = int(match[1]), min(int(match[2] or size) + 1, size)
        else:
            start, stop = max(0, size - int(match[2])), size
        if start >= stop:
            return Reply(416, [("Content-Range", f"bytes */{size}"), *answer])
        return Reply(
            206,
            [*answer, ("Content-Range", f"bytes {start}-{stop - 1}/{size}")],
            path=path,
            start=start,
            stop=stop,
        )


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], kaggle: FakeKaggle):
        super().__init__(address, Handler)
        self.kaggle = kaggle

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.kaggle.connections.add(self.connection)

    def finish(self) -> None:
        self.server.kaggle.connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        kaggle = self.server.kaggle
        path = urllib.parse.urlsplit(self.path).path
        shown = {k: "present" if k.lower() == "authorization" else v for k, v in self.headers.items()}
        kaggle.requests.append((self.command, path, shown))
        failure = kaggle.next_failure(self.command, path)
        kind = failure.kind if failure else ""
        try:
            if kind == "refuse":
                self.close_connection = True
                return
            cut = failure.offset(self._announced()) if failure and kind == "cut" else self._announced()
            body = self._blocks(cut)
            if kind in ("hang", "html") or kind.isdigit():
                for _ in body:
                    pass
            if failure and kind == "hang":
                kaggle.stopping.wait(60 if failure.seconds is None else failure.seconds)
                self.close_connection = True
                return
            refused = failure if kind == "html" or kind.isdigit() else None
            reply = self._refused(refused) if refused else self._answer(path, body)
            if kind == "drop" or (self.command == "PUT" and cut < self._announced()):
                self.close_connection = True
                return
            self._send(reply, failure)
        except OSError:
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_GET

    def _announced(self) -> int:
        return int(self.headers.get("Content-Length") or 0)

    def _blocks(self, most: int) -> Iterator[bytes]:
        """The request's body; of an upload no more than `most` bytes."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = min(most, self._announced()) if self.command == "PUT" else self._announced()
        while left > 0 and (block := self.rfile.read(min(BLOCK, left))):
            left -= len(block)
            yield block

    def _answer(self, path: str, body: Iterator[bytes]) -> Reply:
        """Do what is asked."""
        kaggle = self.server.kaggle
        parts = path.strip("/").split("/")
        try:
            if self.command == "PUT" and parts[0] == "upload" and len(parts) == 2:
                return kaggle.upload(parts[1], self.headers.get("Content-Range"), body)
            sent = b"".join(body)
            if self.command in ("GET", "HEAD") and parts[0] == "storage" and len(parts) == 3:
                query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
                return kaggle.stored(parts[1], query.get("X-Goog-Signature", [None])[0], self.headers)
            user = kaggle.user_of(self.headers.get("Authorization"))
            if self.command == "GET" and parts[:4] == ["v1", "kernels", "logs", "stream"] and len(parts) == 6:
                return kaggle.log_of(parts[4], parts[5])
            if self.command == "POST" and parts[0] == "v1" and len(parts) == 3:
                return kaggle.call(parts[1], parts[2], json.loads(sent or b"{}"), user)
            raise Refusal(404, f"{self.command} {path} is not part of this server")
        except Refusal as refusal:
            return self._error(refusal.status, refusal.message)
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            return self._bug()
        except Exception:
            return self._bug()
        finally:
            with contextlib.suppress(OSError, ValueError):
                for _ in body:
                    pass

    def _bug(self) -> Reply:
        self.server.kaggle.errors.append(traceback.format_exc())
        traceback.print_exc()
        return self._error(500, "The server failed")

    def _refused(self, failure: Failure) -> Reply:
        if failure.kind == "html":
            page = b"<!DOCTYPE html><html><body><h1>We'll be right back</h1></body></html>"
            return Reply(200, [("Content-Type", "text/html; charset=utf-8")], page)
        reply = self._error(int(failure.kind), f"A failure that was asked for: {failure.kind}")
        if failure.kind == "429" or failure.seconds is not None:
            seconds = 1 if failure.seconds is None else failure.seconds
            reply.headers.append(("Retry-After", f"{seconds:g}"))
        return reply

    def _error(self, status: int, message: str) -> Reply:
        if urllib.parse.urlsplit(self.path).path.startswith("/storage/"):
            text = f"<?xml version='1.0' encoding='UTF-8'?><Error><Message>{message}</Message></Error>"
            return Reply(status, [("Content-Type", "application/xml; charset=UTF-8")], text.encode())
        return json_reply({"code": status, "message": message}, status)

    def _send(self, reply: Reply, failure: Failure | None) -> None:
        """Send the reply, or what the failure leaves of it."""
        kind, size = (failure.kind if failure else ""), len(reply)
        at = failure.offset(size) if failure else 0
        declared: int | None = size
        limit = size
        if kind == "cut":
            limit = min(max(at, 0), size)
        elif kind == "length":
            declared = max(0, size + at)
        elif kind == "nolength":
            declared, limit = None, min(at, size) if at > 0 else size
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        if declared is not None and not (reply.status == 308 and not size):
            self.send_header("Content-Length", str(declared))
        elif reply.status == 308:
            self.send_header("Content-Length", "0")
        if kind == "nolength":
            self.send_header("Connection", "close")
        self.end_headers()
        if limit < size or kind in ("length", "nolength"):
            self.close_connection = True
        if self.command == "HEAD":
            return
        rate = at if kind == "slow" and failure and failure.at >= 1 else None
        flipped = min(max(at, 0), size - 1) if kind == "corrupt" else -1
        sent = 0
        for block in reply.blocks():
            if sent <= flipped < sent + len(block):
                spot = flipped - sent
                block = block[:spot] + bytes([block[spot] ^ 1]) + block[spot + 1 :]
            block = block[: limit - sent]
            sent += len(block)
            if rate is None:
                self.wfile.write(block)
                continue
            step = max(1, rate // 10)
            for i in range(0, len(block), step):
                self.wfile.write(block[i : i + step])
                if self.server.kaggle.stopping.wait(len(block[i : i + step]) / rate):
                    return


def json_reply(answer: Json, status: int = 200) -> Reply:
    """An answer as JSON, without the fields that are None."""
    text = json.dumps({k: v for k, v in answer.items() if v is not None})
    return Reply(status, [("Content-Type", "application/json; charset=utf-8")], text.encode())


def _page(items: Sequence[Any], request: Json) -> tuple[Sequence[Any], str]:
    """The page that a request asks for and the token of the next."""
    size = min(request.get("pageSize") or 20, 200)
    start = (max(request.get("page") or 1, 1) - 1) * size
    if token := request.get("pageToken"):
        try:
            start = int(base64.urlsafe_b64decode(token))
        except ValueError as error:
            raise Refusal(400, "The page token is not valid") from error
    more = base64.urlsafe_b64encode(str(start + size).encode()).decode() if start + size < len(items) else ""
    return items[start : start + size], more


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _kill(process: subprocess.Popen[str] | None) -> None:
    if process is not None and process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _extract(path: Path, suffix: str, folder: Path) -> None:
    if suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
    elif suffix.endswith(".7z"):
        import py7zr

        with py7zr.SevenZipFile(path) as archive:
            archive.extractall(folder)
        for inner in list(folder.glob("*.tar")):
            _extract(inner, ".tar", folder)
            inner.unlink()
    else:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")


def _notebook_code(text: str) -> str:
    """A notebook's code cells as a script; "!" lines go to the shell, "%" lines are left out."""
    lines = []
    for cell in json.loads(text).get("cells", []):
        if cell.get("cell_type") != "code":
            continue
        for line in "".join(cell.get("source", "")).splitlines():
            bare = line.lstrip()
            indent = line[: len(line) - len(bare)]
            if bare.startswith("!"):
                line = f"{indent}__import__('subprocess').run({bare[1:]!r}, shell=True)"
            elif bare.startswith("%"):
                line = f"{indent}pass"
            lines.append(line)
    return "\n".join(lines) + "\n"


# Scores


def _judge(competition: Competition, submission: Submission) -> None:
    try:
        submission.public, submission.private = score(competition, submission.path)
    except ValueError as error:
        submission.error = str(error)
    except Exception as error:
        submission.error = f"Evaluation failed: {type(error).__name__}: {error}"
    submission.judged.set()


def score(competition: Competition, path: Path) -> tuple[float | None, float | None]:
    """Public and private F-beta of a submission against the competition's solution.

    Without a solution the truth is made up: the tags of the sample submission, each third row private. Raises
    ValueError with what Kaggle would tell for a submission that doesn't fit the sample."""
    if competition.sample is None:
        raise ValueError("The competition has no sample submission")
    sample = _table(competition.files[competition.sample])
    try:
        table = _table(path)
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"Evaluation Exception: the file can't be read as CSV ({error})") from error
    key, tags = sample.columns[:2]
    if missing := [c for c in sample.columns if c not in table.columns]:
        raise ValueError(f"Evaluation Exception: Submission must have columns {missing}")
    if len(table) != len(sample):
        raise ValueError(f"Evaluation Exception: Submission must have {len(sample)} rows, not {len(table)}")
    if set(table[key]) != set(sample[key]):
        unknown = sorted(set(table[key]) ^ set(sample[key]))
        raise ValueError(f"Evaluation Exception: Submission has wrong or repeated ids, such as {unknown[0]}")
    if competition.solution is not None:
        truth = pd.read_csv(io.StringIO(competition.solution), dtype=str, keep_default_na=False)
        truth = truth.rename(columns=dict(zip(truth.columns, (key, tags, "Usage"))))
    else:
        thirds = np.arange(len(sample)) % 3
        truth = sample.assign(Usage=np.where(thirds == 2, "Private", "Public"))
    guess = table.set_index(key)[tags].reindex(truth[key])
    names = sorted({t for column in (truth[tags], guess) for text in column for t in str(text).split()})
    target, decided = (_indicator(column, names) for column in (truth[tags], guess))
    scores: list[float | None] = []
    for usage in ("Public", "Private"):
        rows = (truth["Usage"] == usage).to_numpy()
        scores.append(_f_beta(target[rows], decided[rows], competition) if rows.any() else None)
    return scores[0], scores[1]


def _f_beta(target: np.ndarray, decided: np.ndarray, competition: Competition) -> float:
    from sklearn.metrics import fbeta_score

    beta, average = competition.beta, competition.average
    return float(fbeta_score(target, decided, beta=beta, average=average, zero_division=0))


def _indicator(column: Iterable[str], names: list[str]) -> np.ndarray:
    """(N, C) of 0 and 1."""
    place = {name: i for i, name in enumerate(names)}
    rows = list(column)
    matrix = np.zeros((len(rows), len(names)), int)
    for i, text in enumerate(rows):
        matrix[i, [place[t] for t in str(text).split()]] = 1
    return matrix


def _table(path: Path) -> pd.DataFrame:
    """A CSV, or the one in a zip, as text; which of the two is told by its first bytes."""
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if not is_zip:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)


# Checksums


@cache
def _hashes(path: Path, _modified: int, _size: int) -> tuple[bytes, bytes]:
    """MD5 and CRC32C of a file."""
    digest = hashlib.md5()
    state = 0xFFFFFFFF
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
            state = _crc32c(state, block)
    return digest.digest(), (state ^ 0xFFFFFFFF).to_bytes(4, "big")


def _crc32c(state: int, block: bytes, width: int = 1024) -> int:
    """CRC32C's state after a block. Rows of `width` bytes are done side by side and then joined: the state
    after a row is the row's own one from 0, XOR the state before carried over `width` zeros."""
    table, carried = _crc_tables(width)
    whole = len(block) // width * width
    if whole:
        rows = _crc_rows(np.frombuffer(block, np.uint8, whole).reshape(-1, width), table)
        for row in rows.tolist():
            state = row ^ (
                carried[0][state & 255]
                ^ carried[1][state >> 8 & 255]
                ^ carried[2][state >> 16 & 255]
                ^ carried[3][state >> 24]
            )
    steps = table.tolist()
    for byte in block[whole:]:
        state = steps[(state ^ byte) & 255] ^ (state >> 8)
    return state


def _crc_rows(rows: np.ndarray, table: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    state = np.zeros(len(rows), np.uint32) if start is None else start
    for column in np.ascontiguousarray(rows.T):
        state = table[(state ^ column) & 255] ^ (state >> np.uint32(8))
    return state


@cache
def _crc_tables(width: int) -> tuple[np.ndarray, list[list[int]]]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ np.uint32(0x82F63B78), table >> np.uint32(1))
    zeros = np.zeros((256, width), np.uint8)
    starts = [np.arange(256, dtype=np.uint32) << np.uint32(8 * k) for k in range(4)]
    return table, [_crc_rows(zeros, table, start).tolist() for start in starts]


# The competitions it plays


def planet(kaggle: FakeKaggle, data: Path | None = SHARED, n_images: int | None = None) -> None:
    """Planet as it is today: the competition with its CSVs and torrents, and the mirror with the images.

    The images are the 32 px ones of `data`, all or `n_images` of training, half as many of test_* and a
    quarter of file_*, and the CSVs cut to those; where `data` lacks them they are drawn."""
    train, sample, solution, images = _planet_parts(kaggle, data, n_images)
    torrents = {f"Kaggle-planet-{s}-tif.torrent": b"d8:announce0:e" for s in ("train", "test")}
    kaggle.add_competition(
        PLANET,
        {
            "train_v2.csv/train_v2.csv": train,
            "sample_submission_v2.csv/sample_submission_v2.csv": sample,
            **torrents,
        },
        sample="sample_submission_v2.csv/sample_submission_v2.csv",
        solution=solution,
    )
    where = {
        "train-jpg": "planet/planet/train-jpg",
        "test-jpg": "planet/planet/test-jpg",
        "test-jpg-additional": "test-jpg-additional/test-jpg-additional",
    }
    files = {f"{where[part]}/{p.name}": p for part, paths in images.items() for p in paths}
    tables = {"planet/planet/train_classes.csv": train, "planet/planet/sample_submission.csv": sample}
    kaggle.add_dataset(MIRROR, {**files, **tables}, "Planets Dataset")


def old_planet(kaggle: FakeKaggle, data: Path | None = SHARED, n_images: int | None = None) -> None:
    """Planet as it was served until December 2019: archives of the images, zips of the CSVs. The images and
    their number are those of `planet`."""
    real = data / "planet32" if data else None
    if n_images is None and real and real.is_dir():
        files: dict[str, bytes | Path] = {p.name: p for p in sorted(real.iterdir())}
        solution = None
    else:
        train, sample, solution, images = _planet_parts(kaggle, data, n_images)
        files = {"train_v2.csv.zip": _zipped("train_v2.csv", train)}
        files["sample_submission_v2.csv.zip"] = _zipped("sample_submission_v2.csv", sample)
        for part, paths in images.items():
            files[f"{part}.tar.7z"] = _tar_7z(kaggle.folder / "planet" / f"{part}.tar.7z", paths)
    kaggle.add_competition(PLANET, files, sample="sample_submission_v2.csv.zip", solution=solution)


def hpa(kaggle: FakeKaggle, data: Path | None = SHARED, n_train: int = 40, n_test: int = 20) -> None:
    """The protein atlas with real ids and labels and, as each image in turn, one of the two real ones of
    `data`, which therefore don't show what their labels say; all of it made up where `data` lacks it."""
    real = data / "hpa" if data and (data / "hpa").is_dir() else None
    if real:
        train = _table(real / "train.csv.zip")
        train = train.iloc[_rows(train["Target"], n_train)]
        sample = _table(real / "sample_submission.csv.zip").head(n_test)
    else:
        ids = [f"{i:08x}-bad0-11e8-b2b8-ac1f6b6435d0" for i in range(n_train + n_test)]
        targets = [f"{i % 28} {(i * 5 + 1) % 28}" for i in range(n_train)]
        train = pd.DataFrame({"Id": ids[:n_train], "Target": targets})
        sample = pd.DataFrame({"Id": ids[n_train:], "Predicted": "0"})
    archives: dict[str, Path] = {}
    for split, table in (("train", train), ("test", sample)):
        archives[split] = kaggle.folder / "hpa" / f"{split}.zip"
        archives[split].parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(archives[split], "w") as archive:
            for i, name in enumerate(table["Id"]):
                for colour in ("red", "green", "blue", "yellow"):
                    archive.writestr(f"{name}_{colour}.png", _stain(real, i % 2, colour))
    kaggle.add_competition(
        HPA,
        {
            "train.zip": archives["train"],
            "test.zip": archives["test"],
            "train.csv": _csv(train),
            "sample_submission.csv": _csv(sample),
        },
        sample="sample_submission.csv",
        beta=1,
        average="macro",
    )


def _planet_parts(
    kaggle: FakeKaggle, data: Path | None, n_images: int | None
) -> tuple[bytes, bytes, str | None, dict[str, list[Path]]]:
    """train_v2.csv, the sample submission, a solution if there is one, and the images by their folder."""
    folder = kaggle.folder / "planet"
    folder.mkdir(exist_ok=True)
    real = data / "planet32" if data else None
    if real is None or not (real / "train-jpg.tar.7z").exists():
        return _drawn_planet(folder, n_images or 120)
    train, sample = (_table(real / f"{name}.csv.zip") for name in ("train_v2", "sample_submission_v2"))
    if n_images is not None:
        train = train.iloc[_rows(train["tags"], n_images)]
        first = sample["image_name"].str.startswith("test_")
        sample = pd.concat([sample[first].head(n_images // 2), sample[~first].head(n_images // 4)])
    names = {
        "train-jpg": train["image_name"],
        "test-jpg": [n for n in sample["image_name"] if n.startswith("test_")],
        "test-jpg-additional": [n for n in sample["image_name"] if n.startswith("file_")],
    }
    images: dict[str, list[Path]] = {}
    for part, ids in names.items():
        tar, places = _chips(real / f"{part}.tar.7z")
        (folder / part).mkdir(exist_ok=True)
        images[part] = [folder / part / f"{name}.jpg" for name in ids]
        with tar.open("rb") as file:
            for path in images[part]:
                offset, size = places[path.name]
                file.seek(offset)
                path.write_bytes(file.read(size))
    return _csv(train), _csv(sample), None, images


def _drawn_planet(folder: Path, n_images: int) -> tuple[bytes, bytes, str | None, dict[str, list[Path]]]:
    """The demo's drawn images under Planet's names; its mines are artisinal_mine here."""
    from comp.config import Drawn, load_competition
    from comp.demo import draw

    n_first, n_second = n_images // 2, n_images // 4
    drawn = Drawn(n_train=max(50, n_images), n_test=max(50, n_first + n_second), size=32)
    draw(load_competition("demo").model_copy(update={"drawn": drawn}), folder)
    place = folder / "drawn"
    train, sample, solution = (
        _table(place / f"{name}.csv") for name in ("train", "sample_submission", "solution")
    )
    names = [f"test_{i}" for i in range(n_first)] + [f"file_{i}" for i in range(n_second)]
    images = {"train-jpg": [place / "train-jpg" / f"train_{i}.jpg" for i in range(n_images)]}
    images["test-jpg"] = [place / "test-jpg" / f"test_{i}.jpg" for i in range(n_first)]
    images["test-jpg-additional"] = [place / "test-jpg" / f"file_{i}.jpg" for i in range(n_second)]
    for i, path in enumerate(images["test-jpg-additional"]):
        path.with_name(f"test_{n_first + i}.jpg").replace(path)
    sample, solution = (t.head(len(names)).assign(image_name=names) for t in (sample, solution))
    train, solution = (
        t.assign(tags=t["tags"].str.replace(r"\bmine\b", "artisinal_mine", regex=True))
        for t in (train.head(n_images), solution)
    )
    return _csv(train), _csv(sample), _csv(solution).decode(), images


def _rows(tags: pd.Series, count: int) -> list[int]:
    """`count` row numbers in order: of each label, the rarest first, some of its first rows, then the first
    rows of all."""
    sets = [set(text.split()) for text in tags]
    totals = Counter(label for labels in sets for label in labels)
    each = max(1, min(4, count // len(totals)))
    chosen: set[int] = set()
    for label in sorted(totals, key=lambda name: (totals[name], name)):
        have = sum(label in sets[i] for i in chosen)
        more = [i for i, labels in enumerate(sets) if label in labels and i not in chosen]
        chosen.update(more[: max(0, min(each - have, count - len(chosen)))])
    rest = (i for i in range(len(sets)) if i not in chosen)
    return sorted([*chosen, *(i for i, _ in zip(rest, range(count - len(chosen))))])


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fake-kaggle-")


@cache
def _chips(archive: Path) -> tuple[Path, dict[str, tuple[int, int]]]:
    """The tar of a tar.7z, unpacked once per process, and where in it each file is: offset and size."""
    import py7zr

    with py7zr.SevenZipFile(archive) as packed:
        packed.extractall(_scratch().name)
    tar = Path(_scratch().name) / archive.stem
    with tarfile.open(tar) as members:
        return tar, {Path(m.name).name: (m.offset_data, m.size) for m in members if m.isfile()}


@cache
def _stain(real: Path | None, which: int, colour: str) -> bytes:
    """One channel of one of two images as PNG, 512 px."""
    if real:
        return (real / "rgby" / f"{('800_A6_1', '89_B5_1')[which]}_{colour}.png").read_bytes()
    from PIL import Image

    turns = 3 + 2 * which + ("red", "green", "blue", "yellow").index(colour)
    wave = np.sin(np.linspace(0, turns * np.pi, 512)) * 0.5 + 0.5
    file = io.BytesIO()
    Image.fromarray((np.outer(wave, wave) * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()


def _zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def _tar_7z(target: Path, paths: list[Path]) -> Path:
    """train-jpg.tar.7z: the files in a folder train-jpg, in a tar, in a 7z."""
    import py7zr

    part = target.name.removesuffix(".tar.7z")
    tar = target.with_name(f"{part}.tar")
    with tarfile.open(tar, "w") as members:
        for path in paths:
            members.add(path, f"{part}/{path.name}")
    with py7zr.SevenZipFile(target, "w") as archive:
        archive.write(tar, tar.name)
    tar.unlink()
    return target


# By hand


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve Planet, its mirror and the protein atlas until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.fake_kaggle", description=__doc__)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder with planet32 and hpa")
    parser.add_argument("--images", type=int, help="how many training images of Planet (default: all)")
    parser.add_argument("--proteins", type=int, default=40, help="how many training images of the atlas")
    parser.add_argument("--old", action="store_true", help="Planet with its archives, as once served")
    parser.add_argument("--folder", type=Path, help="where uploads and runs are kept (default: thrown away)")
    parser.add_argument("--score-after", type=float, default=0.5, metavar="SECONDS")
    parser.add_argument("--ready-after", type=float, default=0.5, metavar="SECONDS")
    parser.add_argument("--layout", choices=("new", "flat"), default="new", help="of kernels' inputs")
    parser.add_argument("--rules", action="store_true", help="the rules of Planet are not accepted yet")
    parser.add_argument("--daily-limit", type=int, default=5)
    parser.add_argument("--chaos", metavar="SEED:RATE", help="each request fails with this probability")
    parser.add_argument(
        "--fail", action="append", default=[], metavar="KIND:REGEX[:AT]", help=f"one of {', '.join(KINDS)}"
    )
    options = parser.parse_args(arguments)
    failures = []
    for text in options.fail:
        if (match := re.fullmatch(r"(\w+):(.*?)(?::(-?[\d.]+))?", text)) is None or match[1] not in KINDS:
            parser.error(f"--fail {text}: expected KIND:REGEX[:AT], KIND one of {', '.join(KINDS)}")
        failures.append((match[1], match[2], float(match[3] or 0)))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with contextlib.ExitStack() as stack, contextlib.suppress(KeyboardInterrupt):
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            kaggle = stack.enter_context(FakeKaggle(folder, options.port))
        except OSError as error:
            parser.error(f"cannot listen on port {options.port}: {error.strerror}; choose another --port")
        kaggle.score_after, kaggle.ready_after = options.score_after, options.ready_after
        kaggle.mount_layout = options.layout
        (old_planet if options.old else planet)(kaggle, options.data, options.images)
        hpa(kaggle, options.data, options.proteins, max(1, options.proteins // 2))
        for competition in kaggle.competitions.values():
            competition.daily_limit = options.daily_limit
        kaggle.competitions[PLANET].accepted = not options.rules
        for kind, match_text, at in failures:
            kaggle.fail(kind, match_text, at=at)
        if options.chaos:
            seed, _, rate = options.chaos.partition(":")
            kaggle.chaos(int(seed), float(rate))
        user, key = next(iter(kaggle.users.items()))
        print(f"export COMP_KAGGLE_ENDPOINT={kaggle.url} KAGGLE_USERNAME={user} KAGGLE_KEY={key}")
        print("Ctrl-C ends it", file=sys.stderr, flush=True)
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
