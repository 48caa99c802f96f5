"""The official kaggle client, authenticated and with time-outs. No other module imports `kaggle`."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import requests
from requests.adapters import HTTPAdapter

from comp.console import Bars
from comp.errors import CompError
from comp.kaggle import download as transfer
from comp.kaggle.errors import HOW_TO_LOG_IN, NoCredentials, _in_words


def _client() -> Any:
    """The official client with time-outs, logged in."""
    try:
        from kagglesdk import kaggle_env

        if endpoint := os.environ.get("COMP_KAGGLE_ENDPOINT"):  # a server that plays Kaggle
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
                http._session.mount(scheme, Patient())
            create = client.competitions.competition_api_client.create_submission

            def create_submission(request: Any) -> Any:
                self.sent = True
                return create(request)

            client.competitions.competition_api_client.create_submission = create_submission
            return client

        bars: Bars | None = None  # of a dataset's upload, of which every file has to arrive

        def upload_complete(self, path: str, url: str, quiet: bool, resume: bool = False) -> Any:
            for pause in (*transfer.PAUSES, None):
                try:
                    with Path(path).open("rb") as file:
                        data = Watched(file, Path(path), self.bars)
                        answer = requests.put(url, data=data, timeout=transfer.TIMEOUTS)  # type: ignore[arg-type]
                    if answer.status_code in (200, 201):
                        return ResumableUploadResult.COMPLETE
                    answer.raise_for_status()
                except requests.RequestException as error:
                    wait = transfer.retry_after(error)
                    if wait is None or pause is None:
                        break
                    transfer.rest(max(wait, pause))
            if self.bars:
                raise CompError(f"{path} could not be uploaded; run again to upload it")
            return ResumableUploadResult.FAILED

    api = Client()
    try:
        api.authenticate()
    except SystemExit as error:
        raise NoCredentials(HOW_TO_LOG_IN) from error
    except requests.RequestException as error:
        raise _in_words(error, "the account") from error
    except (ValueError, TypeError) as error:
        raise CompError(
            "Kaggle can't be asked with the token and proxy that are set; does KAGGLE_API_TOKEN or "
            "~/.kaggle/access_token hold a line end or a space, or HTTPS_PROXY no http://HOST:PORT?"
        ) from error
    return api


class Patient(HTTPAdapter):
    """Requests end some time, also where the client sets no limit."""

    def send(self, request: Any, stream: bool = False, timeout: Any = None, *rest: Any, **more: Any) -> Any:
        return super().send(request, stream, timeout or transfer.TIMEOUTS, *rest, **more)


class Watched:
    """An open file whose reading moves a bar."""

    def __init__(self, file: BinaryIO, path: Path, bars: Bars | None):
        self.file, self.name, self.size, self.bars = file, path.name, path.stat().st_size, bars

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        while block := self.read(transfer.CHUNK):
            yield block

    def read(self, n_bytes: int = -1) -> bytes:
        block = self.file.read(n_bytes)
        if self.bars:
            self.bars.at(self.name, self.file.tell(), self.size, in_bytes=True)
        return block


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The client prints help, and addresses with signatures in them; comp says itself what happens."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
