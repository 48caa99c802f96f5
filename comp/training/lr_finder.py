"""What a learning-rate range test (Smith 2017) says: the losses of steps whose rate grows from each to the
next by the same factor."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from comp.errors import CompError

MEMORY = 0.95  # of the running mean by which the test is stopped
LOST = 4.0  # times the lowest loss so far
WIDTH = 0.25  # decades: the deviation of the window in which the curve is taken for straight


@dataclass(frozen=True)
class Reading:
    """The smoothed curve, and two places on it."""

    smooth: np.ndarray  # (N,) the loss at each rate
    steepest: int  # the rate at which it falls fastest
    lowest: int


def lost(losses: Sequence[float]) -> bool:
    """Whether the loss is not finite, or its running mean (corrected for its start, as in Adam) has risen to
    4 times the lowest it had."""
    mean, lowest = 0.0, np.inf
    for i, loss in enumerate(losses):
        mean = MEMORY * mean + (1 - MEMORY) * loss
        corrected = mean / (1 - MEMORY ** (i + 1))
        lowest = min(lowest, corrected)
    return bool(losses) and not (np.isfinite(losses[-1]) and corrected <= LOST * lowest)


def read(rates: np.ndarray, losses: np.ndarray) -> Reading:
    """Of losses (N,) at rates (N,), where the loss falls fastest against the logarithm of the rate, up to its
    lowest. Lines are fitted around each rate (Cleveland 1979, with Gaussian weights): a running mean would
    lag behind and find rates that are too high. Raises CompError where the loss never falls."""
    x = np.log10(rates)
    away = x[None, :] - x[:, None]  # (N, N): of each rate from the one at which the line is fitted
    weights = np.exp(-0.5 * (away / WIDTH) ** 2)
    weights /= weights.sum(1, keepdims=True)
    centre, level = (weights * away).sum(1), weights @ losses
    spread = (weights * away**2).sum(1) - centre**2
    slopes = ((weights * away) @ losses - centre * level) / np.maximum(spread, 1e-12)
    smooth = level - slopes * centre
    lowest = int(smooth.argmin())
    steepest = int(slopes[: lowest + 1].argmin())
    if slopes[steepest] >= 0:
        raise CompError(f"the loss falls at no rate from {rates[0]:.1e} to {rates[-1]:.1e}; widen --rates")
    return Reading(smooth, steepest, lowest)
