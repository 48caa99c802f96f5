"""Competitions on Kaggle: list files, download, submit."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import requests

from comp.console import Bars
from comp.errors import CompError
from comp.kaggle import download as transfer
from comp.kaggle.download import Fetched, fetch
from comp.kaggle.errors import UNFIT, Absent, NotSent, Uncertain, _in_words
from comp.kaggle.session import _client, _quietly

T = TypeVar("T")
PAGE = 200  # files or submissions a page
MOST_PAGES = 25  # of a listing: datasets of loose images have thousands


@dataclass(frozen=True)
class RemoteFile:
    name: str  # may hold folders
    bytes: int


@dataclass(frozen=True)
class Submission:
    """What Kaggle knows of a submission. Scores are None until they are there."""

    ref: int
    file_name: str
    status: str  # pending, complete, error
    public: float | None
    private: float | None
    error: str


@dataclass(frozen=True)
class Limits:
    used: int  # today
    left: int


class Kaggle:
    """A client that is logged in. Sources are written as in Kaggle's addresses: competitions/<slug> and
    datasets/<owner>/<slug>."""

    def __init__(self) -> None:
        with _quietly():
            self.api = _client()

    @property
    def user(self) -> str:
        return self.api.config_values[self.api.CONFIG_NAME_USER]

    # --- files

    def files(self, source: str) -> tuple[list[RemoteFile], bool]:
        """The files of a source, and whether these are all: of very many, only the first are listed."""
        found: list[RemoteFile] = []
        token = ""
        for _ in range(MOST_PAGES):
            if source.startswith("competitions/"):
                page = self._call(self.api.competition_list_files, _slug(source), token, PAGE, about=source)
            else:
                page = self._call(self.api.dataset_list_files, _slug(source), token, PAGE, about=source)
            found += [RemoteFile(f.name, f.total_bytes or 0) for f in page.files or [] if f and f.name]
            token = page.next_page_token
            if not token:
                return found, True
        return found, False

    def fetch(self, source: str, file: RemoteFile | None, folder: Path) -> Fetched:
        """Bring one file of a source, or None: all of them as one zip, into `folder`."""
        name = file.name if file else f"{source.rpartition('/')[2]}.zip"

        def open_answer() -> tuple[requests.Session, requests.Response]:
            with _quietly():
                client = self.api.build_kaggle_client()
                answer = _ask_for(client, source, file.name if file else None)
            return client.http_client()._session, answer

        try:
            return fetch(open_answer, folder, name, source, file.bytes if file and file.bytes > 0 else None)
        except requests.RequestException as error:
            raise _in_words(error, source) from error

    # --- submissions

    def limits(self, slug: str) -> Limits:
        found = self._call(self.api.competition_get_submission_limits, slug, about=f"competitions/{slug}")
        return Limits(found.num_today, found.num_allowed_now)

    def submissions(self, slug: str) -> Iterator[Submission]:
        """All of the team's, newest first."""
        for number in range(1, MOST_PAGES + 1):
            page = self._call(
                lambda number=number: self.api.competition_submissions(
                    slug, page_number=number, page_size=PAGE
                ),
                about=f"competitions/{slug}",
            )
            yield from (_submission(found) for found in page or [])
            if len(page or []) < PAGE:
                return

    def submission(self, ref: int) -> Submission:
        from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionRequest

        request = ApiGetSubmissionRequest()
        request.ref = ref

        return _submission(
            self._sdk(
                lambda sdk: sdk.competitions.competition_api_client.get_submission(request),
                f"submission {ref}",
            )
        )

    def submit(self, slug: str, path: Path, message: str) -> int:
        """Send a file, and give its number on Kaggle.

        Raises NotSent where it certainly did not arrive, and Uncertain where only a look at the submissions
        can tell."""
        self.api.sent = False
        for pause in (*transfer.PAUSES, None):
            try:
                with _quietly():
                    answer = self.api.competition_submit(str(path), message, slug, quiet=True)
                break
            except (requests.RequestException, ValueError) as error:
                wait = transfer.retry_after(error)
                if wait is None:
                    raise NotSent(str(_in_words(error, f"competitions/{slug}"))) from error
                if self.api.sent:
                    raise Uncertain(transfer.words(error)) from error
                if pause is None:
                    raise NotSent(str(_in_words(error, f"competitions/{slug}"))) from error
                transfer.rest(max(wait, pause))
        if not self.api.sent:
            raise NotSent(answer.message or "the upload failed")
        if not answer.ref:
            raise Uncertain(f"its answer: {answer.message or 'no number'}")
        return answer.ref

    # --- datasets and kernels

    def dataset_status(self, ref: str) -> str | None:
        """'ready', or what it waits for; None where there is no such dataset of this user."""
        try:
            return self._call(self.api.dataset_status, ref, about=f"datasets/{ref}")
        except Absent:
            return None

    def upload_dataset(self, folder: Path, ref: str, note: str) -> None:
        """Make the files of a folder with a dataset-metadata.json a new version of a private dataset."""
        exists = self.dataset_status(ref) is not None
        with Bars() as bars:
            self.api.bars = bars
            try:
                with _quietly():
                    if exists:
                        answer = self.api.dataset_create_version(str(folder), note, quiet=True)
                    else:
                        answer = self.api.dataset_create_new(str(folder), quiet=True)
            except requests.RequestException as error:
                raise _in_words(error, f"datasets/{ref}") from error
            except ValueError as error:
                raise CompError(f"Kaggle's client does not take {folder}: {error}") from error
            finally:
                self.api.bars = None
        if answer.error:
            raise CompError(f"Kaggle refuses datasets/{ref}: {answer.error}")

    def push_kernel(self, folder: Path) -> tuple[str, int, list[str]]:
        """Save and run the kernel in a folder with a kernel-metadata.json; give its address (owner/slug), its
        version, and the inputs that it does not get. It is asked for once: a second time would be a second
        run on the quota."""
        try:
            with _quietly():
                answer = self.api.kernels_push(str(folder))
        except requests.RequestException as error:
            raise _in_words(error, "the kernel") from error
        except ValueError as error:
            raise CompError(f"Kaggle's client does not take {folder}: {error}") from error
        invalid = [
            *(f"datasets/{name}" for name in answer.invalid_dataset_sources or []),
            *(f"competitions/{name}" for name in answer.invalid_competition_sources or []),
            *(f"notebooks/{name}" for name in answer.invalid_kernel_sources or []),
        ]
        if answer.error or not answer.version_number:
            lacking = f"it has no {', '.join(invalid)} for you" if invalid else "no reason was given"
            raise CompError(f"Kaggle refuses the kernel: {answer.error or lacking}")
        return "/".join(answer.ref.strip("/").split("/")[-2:]), answer.version_number, invalid

    def kernel_status(self, ref: str) -> tuple[str, str]:
        """(queued, running, complete, error, …; why it failed)."""
        from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionStatusRequest

        request = ApiGetKernelSessionStatusRequest()
        request.user_name, request.kernel_slug = ref.split("/")
        about = f"code/{ref}"
        answer = self._sdk(
            lambda sdk: sdk.kernels.kernels_api_client.get_kernel_session_status(request), about
        )
        return answer.status.name.lower(), answer.failure_message or ""

    def kernel_output(self, ref: str, folder: Path) -> str:
        """Fetch all files that a kernel left into `folder`; give its log."""
        from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest

        request: Any = ApiListKernelSessionOutputRequest()
        request.user_name, request.kernel_slug = ref.split("/")
        request.page_size = PAGE
        log, session = "", requests.Session()

        while True:
            page = self._sdk(
                lambda sdk: sdk.kernels.kernels_api_client.list_kernel_session_output(request), f"code/{ref}"
            )
            for file in page.files or []:

                def open_answer(url: str = file.url) -> tuple[requests.Session, requests.Response]:
                    answer = session.get(url, stream=True, timeout=transfer.TIMEOUTS)
                    answer.raise_for_status()
                    return session, answer

                try:
                    fetch(open_answer, folder, file.file_name, f"code/{ref}", None, note=False)
                except requests.RequestException as error:
                    raise CompError(
                        f"{file.file_name} of code/{ref} can't be fetched ({transfer.words(error)}); "
                        "run `comp kernel watch` to try again"
                    ) from error
            log, request.page_token = page.log or log, page.next_page_token
            if not request.page_token:
                return _plain_log(log)

    # --- calls

    def _sdk(self, ask: Callable[[Any], Any], about: str) -> Any:
        """A call that the client has no function for."""

        def call() -> Any:
            with self.api.build_kaggle_client() as sdk:
                return ask(sdk)

        return self._call(call, about=about)

    def _call(self, function: Callable[..., T], *arguments: Any, about: str) -> T:
        """A call that changes nothing at Kaggle, tried again while that may help."""
        for pause in (*transfer.PAUSES, None):
            try:
                with _quietly():
                    return function(*arguments)
            except UNFIT as error:
                wait = transfer.retry_after(error)
                if wait is None or pause is None or isinstance(error, KeyError | TypeError | AttributeError):
                    raise _in_words(error, about) from error
                transfer.rest(max(wait, pause))
        raise AssertionError


def _ask_for(client: Any, source: str, name: str | None) -> requests.Response:
    """The streamed answer to a file of a source, or to all its files as a zip."""
    from kagglesdk.competitions.types.competition_api_service import (
        ApiDownloadDataFileRequest,
        ApiDownloadDataFilesRequest,
    )
    from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

    kind, _, rest = source.partition("/")
    request: Any
    if kind == "competitions" and name is None:
        request = ApiDownloadDataFilesRequest()
        request.competition_name = rest
        return client.competitions.competition_api_client.download_data_files(request)
    if kind == "competitions":
        request = ApiDownloadDataFileRequest()
        request.competition_name, request.file_name = rest, name
        return client.competitions.competition_api_client.download_data_file(request)
    request = ApiDownloadDatasetRequest()
    request.owner_slug, request.dataset_slug = rest.split("/")
    if name is not None:
        request.file_name = name
    return client.datasets.dataset_api_client.download_dataset(request)


def _slug(source: str) -> str:
    return source.partition("/")[2]


def _submission(found: Any) -> Submission:
    def number(text: str | None) -> float | None:
        with contextlib.suppress(TypeError, ValueError):
            return float(text)  # type: ignore[arg-type]
        return None

    return Submission(
        ref=found.ref,
        file_name=found.file_name or "",
        status=found.status.name.lower(),
        public=number(found.public_score),
        private=number(found.private_score),
        error=found.error_description or "",
    )


def _plain_log(log: str) -> str:
    """Kaggle keeps logs as JSON, an event a line of output."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return "".join(event["data"] for event in json.loads(log))
    return log
