"""What ends a command and is seen as a single line: an error, or the end of its time."""

from collections.abc import Iterable

from comp.safe_text import visible


class CompError(Exception):
    """What was found, what was expected and what to do, in one line. `comp` prints it and exits with
    `code`."""

    code = 1


class NoImages(CompError):
    """A competition without any image here, and no credentials by which Kaggle would give them."""

    code = 4


class Diverged(CompError):
    """The loss or the network's answers are no longer finite."""


class TimeIsUp(Exception):
    """The time budget is used up. Says what is done, which is kept; `comp` prints it and exits with 3."""


def some(items: Iterable[object], limit: int = 5) -> str:
    """'3 (a, b, c)' or '812 (a, b, c, d, e, …)': how many, and the first few by name."""
    names = list(items)
    shown = ", ".join(visible(name, 300) for name in names[:limit]) + (", …" if len(names) > limit else "")
    return f"{len(names):,} ({shown})"
