"""Kaggle's errors as one-line messages."""

import contextlib

import requests

from comp.errors import CompError
from comp.kaggle import retries

# Raised by the official client for error responses and for responses that it can't parse.
BAD_RESPONSES = (requests.RequestException, ValueError, KeyError, TypeError, AttributeError)
HOW_TO_LOG_IN = (
    "no Kaggle credentials found; on kaggle.com/settings choose 'Generate New Token' and put the token into "
    "KAGGLE_API_TOKEN or ~/.kaggle/access_token (or a legacy kaggle.json into ~/.kaggle)"
)


class NoCredentials(CompError):
    """This machine has no Kaggle credentials."""


class NotFound(CompError):
    """The name does not exist on Kaggle, or not for this user."""


class NotSent(CompError):
    """The submission certainly did not reach Kaggle."""


class MaybeSent(CompError):
    """The submission may have reached Kaggle; only the list of submissions can tell."""


def explain_error(error: Exception, about: str) -> CompError:
    """Return a CompError that says what the client's error means and what to do."""
    answer = getattr(error, "response", None)
    kind, _, rest = about.partition("/")
    page = f"https://www.kaggle.com/{about}" if rest else "https://www.kaggle.com"
    if answer is None:
        if isinstance(error, requests.RequestException):
            return CompError(
                f"Kaggle can't be reached for {about} ({retries.describe(error)}); check the network"
            )
        hint = ", or set HTTPS_PROXY to http://HOST:PORT" if requests.utils.getproxies() else ""
        return CompError(f"Kaggle's response about {about} could not be parsed; try again later{hint}")
    status, said = answer.status_code, _server_message(answer)
    if status == 401:
        return CompError(f"Kaggle refuses the credentials; {HOW_TO_LOG_IN.partition('; ')[2]}")
    if status == 403 and kind == "competitions":
        return CompError(
            f"Kaggle refuses {about}{said}; join it and accept its rules at {page}/rules, then run again"
        )
    if status in (403, 404) and kind == "datasets":
        return NotFound(f"{about} does not exist or is private{said}; see {page}")
    if status == 404:
        return NotFound(f"Kaggle has no {about}{said}; check the slug: {page}")
    if status == 429:
        return CompError(f"Kaggle's rate limit is reached for {about}; try again in a few minutes")
    return CompError(f"Kaggle answered {status} for {about}{said}; try again later")


def _server_message(answer: requests.Response) -> str:
    """Return ' (message)' of an error response, or '' if it has no message."""
    with contextlib.suppress(ValueError, AttributeError, requests.RequestException):
        message = answer.json().get("message")
        if isinstance(message, str) and message:
            return f" ({' '.join(message.split())[:200].rstrip('.')})"
    return ""
