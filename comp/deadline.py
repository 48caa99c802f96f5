"""--time-budget as a deadline: a moment of the wall clock that all processes of a command share."""

import math
import re
import time

from comp.errors import CompError, TimeIsUp

NEVER = math.inf  # deadline without a time budget
SECONDS_PER_UNIT = {"h": 3600.0, "m": 60.0, "s": 1.0}


def parse_budget(text: str) -> float:
    """Return the seconds of '8.5h', '90m' or '3600s'. Raise CompError for other text, also for a number
    without a unit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([hms])", text.strip())
    if not match or not float(match[1]):
        raise CompError(
            f"--time-budget {text}: expected a number and its unit (h, m or s), such as 8.5h or 90m"
        )
    return float(match[1]) * SECONDS_PER_UNIT[match[2]]


def deadline_in(budget: float | None) -> float:
    """Return the deadline (seconds since 1970) of a budget in seconds that starts now; NEVER for None."""
    return NEVER if budget is None else time.time() + budget


def check_time(deadline: float, done: str, *, needed: float = 0.0) -> None:
    """Raise TimeIsUp with the text `done` if `needed` more seconds would pass the deadline."""
    if time.time() + needed > deadline:
        raise TimeIsUp(done)
