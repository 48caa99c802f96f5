"""The learning-rate range test."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comp.config.recipe import Recipe
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


def rates_between(text: str, steps: int) -> np.ndarray:
    """(steps,) rates of '1e-6,1', each the same factor above the one before."""
    try:
        lowest, highest = map(float, text.split(","))
    except ValueError:
        lowest = highest = 0.0
    if not 0 < lowest < highest < np.inf:
        raise CompError(f"--rates {text}: the lowest and the highest are expected, such as 1e-6,1")
    return np.geomspace(lowest, highest, steps)


def alone(recipe: Recipe, number: int) -> Recipe:
    """The recipe with this phase alone, whose rates say just how the body's is to the head's."""
    phase = recipe.phases[number]
    constant: dict[str, Any] = {
        "lr": 1.0,
        "body_lr": (phase.body_lr or phase.lr) / phase.lr,
        "epochs": 1,
        "head_epochs": int(phase.head_epochs == phase.epochs),
        "schedule": "constant",
        "cycles": 1,
        "warm_up": None,
    }
    phases = (phase.model_copy(update=constant),)
    return recipe.model_copy(update={"phases": phases, "ema_decay": 0.0, "swa_epochs": 0})
