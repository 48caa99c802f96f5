"""Kaggle's errors in words."""

import contextlib

import requests

from comp.errors import CompError
from comp.kaggle import download as transfer

# What the client raises: on a bad answer, and on answers that it does not understand.
UNFIT = (requests.RequestException, ValueError, KeyError, TypeError, AttributeError)
HOW_TO_LOG_IN = (
    "no Kaggle credentials were found; on kaggle.com/settings choose 'Generate New Token' and put it into "
    "KAGGLE_API_TOKEN or ~/.kaggle/access_token (or a legacy kaggle.json into ~/.kaggle)"
)


class NoCredentials(CompError):
    """There are none on this machine."""


class Absent(CompError):
    """There is nothing of this name, or not for this user."""


class NotSent(CompError):
    """The submission did not reach Kaggle."""


class Uncertain(CompError):
    """Whether the submission reached Kaggle is not known."""


def _in_words(error: Exception, about: str) -> CompError:
    """What an error of the client means, and what to do."""
    answer = getattr(error, "response", None)
    kind, _, rest = about.partition("/")
    page = f"https://www.kaggle.com/{about}" if rest else "https://www.kaggle.com"
    if answer is None:
        if isinstance(error, requests.RequestException):
            return CompError(
                f"Kaggle can't be reached for {about} ({transfer.words(error)}); is there a network?"
            )
        hint = ", or is HTTPS_PROXY no http://HOST:PORT?" if requests.utils.getproxies() else ""
        return CompError(f"Kaggle's answer about {about} was not understood; try again later{hint}")
    status, said = answer.status_code, _said(answer)
    if status == 401:
        return CompError(f"Kaggle refuses the credentials; {HOW_TO_LOG_IN.partition('; ')[2]}")
    if status == 403 and kind == "competitions":
        return CompError(
            f"Kaggle refuses {about}{said}; join it and accept its rules at {page}/rules, then run again"
        )
    if status in (403, 404) and kind == "datasets":
        return Absent(f"there is no {about} for you{said}; see {page}")
    if status == 404:
        return Absent(f"Kaggle has no {about}{said}; is the slug right? see {page}")
    if status == 429:
        return CompError(f"Kaggle asks to wait before {about} is asked for again; try again in some minutes")
    return CompError(f"Kaggle answered {status} about {about}{said}; try again later")


def _said(answer: requests.Response) -> str:
    """' (its message)' of an error answer, if it has one."""
    with contextlib.suppress(ValueError, AttributeError, requests.RequestException):
        message = answer.json().get("message")
        if isinstance(message, str) and message:
            return f" ({' '.join(message.split())[:200].rstrip('.')})"
    return ""
