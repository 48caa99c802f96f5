"""Which requests are tried again, and after how long."""

import contextlib
import sys
import time
from email.utils import parsedate_to_datetime

import requests
import urllib3

# Seconds before each retry; an attempt that received bytes restarts the list.
PAUSES = (1.0, 2.0, 5.0, 15.0, 30.0)
MAX_PAUSE = 300.0  # seconds; if a server asks for more, the command ends
TIMEOUTS = (15.0, 60.0)  # seconds to connect, and between two reads
TRANSIENT_ERRORS = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}


class BadResponse(Exception):
    """A response that is not the file; the request is repeated."""


RETRIED_ERRORS = (*TRANSIENT_ERRORS, BadResponse, requests.HTTPError, urllib3.exceptions.HTTPError)


def retry_after(error: BaseException) -> float | None:
    """Return the seconds to wait before a retry, or None if a retry is useless or the wait too long."""
    answer = getattr(error, "response", None)
    if answer is None:
        return 0.0
    if answer.status_code not in TRANSIENT_STATUS:
        return None
    text, seconds = answer.headers.get("Retry-After", "0"), 0.0
    with contextlib.suppress(ValueError, TypeError):
        seconds = float(text) if text.isdigit() else parsedate_to_datetime(text).timestamp() - time.time()
    return seconds if seconds <= MAX_PAUSE else None


def wait(seconds: float) -> None:
    """Wait before a retry; print a line if the wait is long."""
    if seconds >= 5:
        print(f"Kaggle is busy; retrying in {seconds:.0f} s", file=sys.__stdout__, flush=True)
    time.sleep(seconds)


def describe(error: BaseException) -> str:
    """Describe an error without its URL: storage URLs contain signatures."""
    answer = getattr(error, "response", None)
    if answer is not None:
        return f"the server answered {answer.status_code}"
    if isinstance(error, BadResponse):
        return str(error)
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "the server did not answer in time"
    return "the connection failed or was interrupted"
