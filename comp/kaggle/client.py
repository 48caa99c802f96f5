"""Competitions on Kaggle: download files, submit, read scores."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from comp.kaggle import retries
from comp.kaggle.download import Fetched, fetch_file
from comp.kaggle.errors import MaybeSent, NotSent, explain_error
from comp.kaggle.session import MAX_PAGES, PAGE_SIZE, KaggleSession, RemoteFile, silence_output


@dataclass(frozen=True)
class Submission:
    """A submission as listed by Kaggle. Scores are None while they are pending."""

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


class Kaggle(KaggleSession):
    """Files of competitions and datasets, and submissions. Sources are written as in Kaggle's URLs:
    competitions/<slug> and datasets/<owner>/<slug>."""

    # --- files

    def fetch(self, source: str, file: RemoteFile | None, folder: Path) -> Fetched:
        """Download one file of a source to `folder`; with None, all of its files as one zip."""
        name = file.name if file else f"{source.rpartition('/')[2]}.zip"

        def open_answer() -> tuple[requests.Session, requests.Response]:
            with silence_output():
                client = self.api.build_kaggle_client()
                answer = _request_download(client, source, file.name if file else None)
            return client.http_client()._session, answer

        listed = file.bytes if file and file.bytes > 0 else None
        try:
            return fetch_file(open_answer, folder, name, source, listed)
        except requests.RequestException as error:
            raise explain_error(error, source) from error

    # --- submissions

    def get_limits(self, slug: str) -> Limits:
        """Return how many submissions the team used today, and how many are left."""
        found = self.call(self.api.competition_get_submission_limits, slug, about=f"competitions/{slug}")
        return Limits(found.num_today, found.num_allowed_now)

    def list_submissions(self, slug: str) -> Iterator[Submission]:
        """Yield all submissions of the team, newest first."""
        for number in range(1, MAX_PAGES + 1):
            page = self.call(
                lambda number=number: self.api.competition_submissions(
                    slug, page_number=number, page_size=PAGE_SIZE
                ),
                about=f"competitions/{slug}",
            )
            yield from (_parse_submission(found) for found in page or [])
            if len(page or []) < PAGE_SIZE:
                return

    def get_submission(self, ref: int) -> Submission:
        from kagglesdk.competitions.types.competition_api_service import ApiGetSubmissionRequest

        request = ApiGetSubmissionRequest()
        request.ref = ref

        return _parse_submission(
            self.call_sdk(
                lambda sdk: sdk.competitions.competition_api_client.get_submission(request),
                f"submission {ref}",
            )
        )

    def submit(self, slug: str, path: Path, message: str) -> int:
        """Send a file and return its submission number on Kaggle.

        Raise NotSent if it certainly did not arrive, MaybeSent if only the list of submissions can tell."""
        self.api.sent = False
        for pause in (*retries.PAUSES, None):
            try:
                with silence_output():
                    answer = self.api.competition_submit(str(path), message, slug, quiet=True)
                break
            except (requests.RequestException, ValueError) as error:
                wait = retries.retry_after(error)
                if wait is None:
                    raise NotSent(str(explain_error(error, f"competitions/{slug}"))) from error
                if self.api.sent:
                    raise MaybeSent(retries.describe(error)) from error
                if pause is None:
                    raise NotSent(str(explain_error(error, f"competitions/{slug}"))) from error
                retries.wait(max(wait, pause))
        if not self.api.sent:
            raise NotSent(answer.message or "the upload failed")
        if not answer.ref:
            raise MaybeSent(f"Kaggle's response: {answer.message or 'no number'}")
        return answer.ref


def _request_download(client: Any, source: str, name: str | None) -> requests.Response:
    """Request a file of a source, or with None all its files as a zip; return the streamed response."""
    from kagglesdk.competitions.types.competition_api_service import (
        ApiDownloadDataFileRequest,
        ApiDownloadDataFilesRequest,
    )
    from kagglesdk.datasets.types.dataset_api_service import ApiDownloadDatasetRequest

    kind, _, slug = source.partition("/")
    request: Any
    if kind == "competitions" and name is None:
        request = ApiDownloadDataFilesRequest()
        request.competition_name = slug
        return client.competitions.competition_api_client.download_data_files(request)
    if kind == "competitions":
        request = ApiDownloadDataFileRequest()
        request.competition_name, request.file_name = slug, name
        return client.competitions.competition_api_client.download_data_file(request)
    request = ApiDownloadDatasetRequest()
    request.owner_slug, request.dataset_slug = slug.split("/")
    if name is not None:
        request.file_name = name
    return client.datasets.dataset_api_client.download_dataset(request)


def _parse_submission(found: Any) -> Submission:
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
