"""The one error that users see as a single line."""

from collections.abc import Iterable


class CompError(Exception):
    """What was found, what was expected and what to do, in one line. `comp` prints it and exits with 1."""


def some(items: Iterable[object], limit: int = 5) -> str:
    """'3 (a, b, c)' or '812 (a, b, c, d, e, …)': how many, and the first few by name."""
    names = [str(item) for item in items]
    shown = ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
    return f"{len(names):,} ({shown})"
