"""Datasets and kernels on Kaggle: upload, push, poll, download the output."""

import contextlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import requests

from comp.console import ProgressBars
from comp.errors import CompError
from comp.kaggle import retries
from comp.kaggle.download import fetch_file
from comp.kaggle.errors import NotFound, explain_error
from comp.kaggle.session import PAGE_SIZE, KaggleSession, silence_output

HOUR = timedelta(hours=1)


class KernelClient(KaggleSession):
    """Private datasets and kernels of the user."""

    def dataset_status(self, ref: str) -> str | None:
        """Return 'ready' or another status; None if this user has no such dataset."""
        try:
            return self.call(self.api.dataset_status, ref, about=f"datasets/{ref}")
        except NotFound:
            return None

    def upload_dataset(self, folder: Path, ref: str, note: str) -> None:
        """Upload a folder with a dataset-metadata.json as a private dataset, or as its new version. Raise
        CompError."""
        exists = self.dataset_status(ref) is not None
        with ProgressBars() as bars:
            self.api.bars = bars
            try:
                with silence_output():
                    if exists:
                        answer = self.api.dataset_create_version(str(folder), note, quiet=True)
                    else:
                        answer = self.api.dataset_create_new(str(folder), quiet=True)
            except requests.RequestException as error:
                raise explain_error(error, f"datasets/{ref}") from error
            except ValueError as error:
                raise CompError(f"Kaggle's client refuses {folder}: {error}") from error
            finally:
                self.api.bars = None
        if answer.error:
            raise CompError(f"Kaggle refuses datasets/{ref}: {answer.error}")

    def push_kernel(self, folder: Path, session_limit: int) -> tuple[str, int, list[str]]:
        """Save and run the kernel in a folder with a kernel-metadata.json, for at most `session_limit`
        seconds; return (owner/slug, version, inputs that it does not get). No retry: a second request would
        start a second run on the quota."""
        try:
            with silence_output():
                answer = self.api.kernels_push(str(folder), timeout=str(session_limit))
        except requests.RequestException as error:
            raise explain_error(error, "the kernel") from error
        except ValueError as error:
            raise CompError(f"Kaggle's client refuses {folder}: {error}") from error
        invalid = [
            *(f"datasets/{name}" for name in answer.invalid_dataset_sources or []),
            *(f"competitions/{name}" for name in answer.invalid_competition_sources or []),
            *(f"notebooks/{name}" for name in answer.invalid_kernel_sources or []),
        ]
        if answer.error or not answer.version_number:
            reason = f"no access to {', '.join(invalid)}" if invalid else "no reason given"
            raise CompError(f"Kaggle refuses the kernel: {answer.error or reason}")
        return "/".join(answer.ref.strip("/").split("/")[-2:]), answer.version_number, invalid

    def gpu_hours(self) -> tuple[float, float] | None:
        """Return this week's GPU quota as (hours used, hours allowed), or None if Kaggle does not tell."""
        try:
            quota = self.call(lambda: self.api.quota_view().gpu_quota, about="the quota")
        except CompError:
            return None
        return quota and (quota.time_used / HOUR, quota.total_time_allowed / HOUR)

    def kernel_status(self, ref: str) -> tuple[str, str]:
        """Return (status, reason of a failure); the status is queued, running, complete, error, …"""
        from kagglesdk.kernels.types.kernels_api_service import ApiGetKernelSessionStatusRequest

        request = ApiGetKernelSessionStatusRequest()
        request.user_name, request.kernel_slug = ref.split("/")
        about = f"code/{ref}"
        answer = self.call_sdk(
            lambda sdk: sdk.kernels.kernels_api_client.get_kernel_session_status(request), about
        )
        return answer.status.name.lower(), answer.failure_message or ""

    def kernel_output(self, ref: str, folder: Path) -> str:
        """Download all output files of a kernel to `folder`; return its log."""
        from kagglesdk.kernels.types.kernels_api_service import ApiListKernelSessionOutputRequest

        request: Any = ApiListKernelSessionOutputRequest()
        request.user_name, request.kernel_slug = ref.split("/")
        request.page_size = PAGE_SIZE
        log, session = "", requests.Session()

        while True:
            page = self.call_sdk(
                lambda sdk: sdk.kernels.kernels_api_client.list_kernel_session_output(request), f"code/{ref}"
            )
            for file in page.files or []:

                def open_answer(url: str = file.url) -> tuple[requests.Session, requests.Response]:
                    answer = session.get(url, stream=True, timeout=retries.TIMEOUTS)
                    answer.raise_for_status()
                    return session, answer

                try:
                    fetch_file(open_answer, folder, file.file_name, f"code/{ref}", None, note=False)
                except requests.RequestException as error:
                    raise CompError(
                        f"{file.file_name} of code/{ref} can't be downloaded ({retries.describe(error)}); "
                        "run `comp kernel watch` to try again"
                    ) from error
            log, request.page_token = page.log or log, page.next_page_token
            if not request.page_token:
                return _plain_log(log)


def _plain_log(log: str) -> str:
    """Return a log as text; Kaggle keeps it as JSON with one event per line of output."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return "".join(event["data"] for event in json.loads(log))
    return log
