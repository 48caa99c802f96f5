"""A logged-in session of the official kaggle client, with time-outs and retries. No other module imports
`kaggle`."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import requests
from requests.adapters import HTTPAdapter

from comp.console import ProgressBars
from comp.errors import CompError
from comp.kaggle import retries
from comp.kaggle.download import CHUNK_BYTES
from comp.kaggle.errors import BAD_RESPONSES, HOW_TO_LOG_IN, NoCredentials, explain_error

T = TypeVar("T")
PAGE_SIZE = 200  # files or submissions per page
MAX_PAGES = 25  # per listing: datasets of single images have thousands


@dataclass(frozen=True)
class RemoteFile:
    name: str  # may contain folders
    bytes: int


def _log_in() -> Any:
    """Return the official client, logged in and with time-outs. Raise NoCredentials or CompError."""
    try:
        from kagglesdk import kaggle_env

        if endpoint := os.environ.get("COMP_KAGGLE_ENDPOINT"):  # another server than Kaggle
            kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = endpoint
        from kaggle.api.kaggle_api_extended import KaggleApi, ResumableUploadResult
    except SystemExit as error:
        raise NoCredentials(HOW_TO_LOG_IN) from error

    class Client(KaggleApi):
        sent = False  # whether a submission may have been created

        def build_kaggle_client(self) -> Any:
            client = super().build_kaggle_client()
            http = client.http_client()
            http._init_session()
            for scheme in ("https://", "http://"):
                http._session.mount(scheme, TimeoutAdapter())
            create = client.competitions.competition_api_client.create_submission

            def create_submission(request: Any) -> Any:
                self.sent = True
                return create(request)

            client.competitions.competition_api_client.create_submission = create_submission
            return client

        bars: ProgressBars | None = None  # set while a dataset is uploaded, when every file must arrive

        def upload_complete(self, path: str, url: str, quiet: bool, resume: bool = False) -> Any:
            for pause in (*retries.PAUSES, None):
                try:
                    with Path(path).open("rb") as file:
                        data = ProgressFile(file, Path(path), self.bars)
                        answer = requests.put(url, data=data, timeout=retries.TIMEOUTS)  # type: ignore[arg-type]
                    if answer.status_code in (200, 201):
                        return ResumableUploadResult.COMPLETE
                    answer.raise_for_status()
                except requests.RequestException as error:
                    wait = retries.retry_after(error)
                    if wait is None or pause is None:
                        break
                    retries.wait(max(wait, pause))
            if self.bars:
                raise CompError(f"{path} could not be uploaded; run again to upload it")
            return ResumableUploadResult.FAILED

    api = Client()
    try:
        api.authenticate()
    except SystemExit as error:
        raise NoCredentials(HOW_TO_LOG_IN) from error
    except requests.RequestException as error:
        raise explain_error(error, "the account") from error
    except (ValueError, TypeError) as error:
        raise CompError(
            "the Kaggle token or the proxy is malformed; remove line ends and spaces from KAGGLE_API_TOKEN "
            "or ~/.kaggle/access_token, and set HTTPS_PROXY to http://HOST:PORT"
        ) from error
    return api


class KaggleSession:
    """A logged-in client whose read-only calls are retried."""

    def __init__(self) -> None:
        with silence_output():
            self.api = _log_in()

    @property
    def user(self) -> str:
        return self.api.config_values[self.api.CONFIG_NAME_USER]

    def list_files(self, source: str) -> tuple[list[RemoteFile], bool]:
        """Return the files of a source, and whether the list is complete: it ends after MAX_PAGES pages."""
        found: list[RemoteFile] = []
        token = ""
        for _ in range(MAX_PAGES):
            if source.startswith("competitions/"):
                list_page = self.api.competition_list_files
            else:
                list_page = self.api.dataset_list_files
            page = self.call(list_page, _slug(source), token, PAGE_SIZE, about=source)
            found += [RemoteFile(f.name, f.total_bytes or 0) for f in page.files or [] if f and f.name]
            token = page.next_page_token
            if not token:
                return found, True
        return found, False

    def call_sdk(self, ask: Callable[[Any], Any], about: str) -> Any:
        """Call a method of the SDK that the client does not wrap."""

        def call() -> Any:
            with self.api.build_kaggle_client() as sdk:
                return ask(sdk)

        return self.call(call, about=about)

    def call(self, function: Callable[..., T], *arguments: Any, about: str) -> T:
        """Make a call that changes nothing on Kaggle, with retries. Raise CompError."""
        for pause in (*retries.PAUSES, None):
            try:
                with silence_output():
                    return function(*arguments)
            except BAD_RESPONSES as error:
                wait = retries.retry_after(error)
                if wait is None or pause is None or isinstance(error, KeyError | TypeError | AttributeError):
                    raise explain_error(error, about) from error
                retries.wait(max(wait, pause))
        raise AssertionError


def _slug(source: str) -> str:
    return source.partition("/")[2]


class TimeoutAdapter(HTTPAdapter):
    """Add a time-out to requests that the client sends without one."""

    def send(self, request: Any, stream: bool = False, timeout: Any = None, *rest: Any, **more: Any) -> Any:
        return super().send(request, stream, timeout or retries.TIMEOUTS, *rest, **more)


class ProgressFile:
    """An open file that reports reads to a progress bar."""

    def __init__(self, file: BinaryIO, path: Path, bars: ProgressBars | None):
        self.file, self.name, self.size, self.bars = file, path.name, path.stat().st_size, bars

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(CHUNK_BYTES):
            yield block

    def read(self, n_bytes: int = -1) -> bytes:
        block = self.file.read(n_bytes)
        if self.bars:
            self.bars.update(self.name, self.file.tell(), self.size, in_bytes=True)
        return block


@contextlib.contextmanager
def silence_output() -> Iterator[None]:
    """Silence the client, which prints help texts and signed URLs; comp prints its own messages."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
