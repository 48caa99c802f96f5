"""The time that a command may take: written 8.5h, 90m or 3600s, kept as one moment of the wall clock that all
processes of the command share."""

import math
import re
import time

from comp.errors import CompError, TimeIsUp

NEVER = math.inf  # the deadline of a command without a budget
SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def parse_budget(text: str) -> float:
    """Seconds of '8.5h', '90m' or '3600s'; a number without a unit could be any of them and is refused."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([hms])", text.strip())
    if not match or not float(match[1]):
        raise CompError(f"--time-budget {text}: a number with h, m or s is expected, such as 8.5h or 90m")
    return float(match[1]) * SECONDS[match[2]]


def deadline_in(budget: float | None) -> float:
    """The moment (seconds since 1970) at which a budget of so many seconds that starts now is used up."""
    return NEVER if budget is None else time.time() + budget


def check_time(deadline: float, done: str, *, needed: float = 0.0) -> None:
    """Raise TimeIsUp, which says what is `done`, unless `needed` more seconds end before the deadline."""
    if time.time() + needed > deadline:
        raise TimeIsUp(done)
