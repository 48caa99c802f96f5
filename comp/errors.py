"""Errors that end a command, printed as one line."""

from collections.abc import Iterable

from comp.safe_text import visible


class CompError(Exception):
    """An error in one line: what was found, what was expected, what to do. `comp` prints it and exits with
    `code`."""

    code = 1


class NoImages(CompError):
    """No images here, and no Kaggle credentials to download them with."""

    code = 4


class Diverged(CompError):
    """The loss or the network's outputs are no longer finite."""


class TimeIsUp(Exception):
    """The time budget is used up. The text says what is done; `comp` prints it and exits with 3."""


def summarize(items: Iterable[object], limit: int = 5) -> str:
    """Return how many items there are and the first few: '3 (a, b, c)' or '812 (a, b, c, d, e, …)'."""
    names = list(items)
    shown = ", ".join(visible(name, 300) for name in names[:limit]) + (", …" if len(names) > limit else "")
    return f"{len(names):,} ({shown})"
