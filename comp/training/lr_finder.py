"""The learning-rate range test."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comp.compute.jobs import Report
from comp.config.recipe import Recipe
from comp.errors import CompError
from comp.training.optimizer import set_rates
from comp.training.trainer import Trainer

SMOOTHING = 0.95  # decay of the running mean that decides when the test stops
MAX_RISE = 4.0  # the test stops at this multiple of the lowest running mean
WINDOW_DEVIATION = 0.25  # decades: standard deviation of the Gaussian window of the line fits


@dataclass(frozen=True)
class LrCurve:
    """The smoothed curve, and the indices of two rates."""

    smooth: np.ndarray  # (N,) smoothed loss per rate
    steepest: int  # where the loss falls fastest
    lowest: int  # where the loss is lowest


def range_test(trainer: Trainer, rates: Sequence[float], report: Report) -> Iterator[float]:
    """Train one step at each of the head's rates, and yield its loss (Smith 2017). Batches are those of the
    next phase. The body's rate keeps its ratio to the head's. Weights change in memory only."""
    _, phase, _ = trainer.phase()
    head_only = phase.head_epochs == phase.epochs
    train_step = trainer.train_step(phase, trainer.state.train_module(head_only))
    n_done = 0
    for epoch in itertools.count():
        steps = trainer.batches.steps(phase, epoch)[: len(rates) - n_done]
        if not steps:
            return
        batches = zip(train_step.feed.batches(trainer.batches.training(phase, steps), steps), rates[n_done:])
        for (batch, drawn), lr in batches:
            set_rates(trainer.state.optimizer, phase, lr / phase.lr, head_only)
            yield float(trainer.backward(train_step, drawn, batch, report))
            trainer.state.update()
        n_done += len(steps)


def has_diverged(losses: Sequence[float]) -> bool:
    """Return whether the last loss is not finite, or its bias-corrected running mean (as in Adam) has risen
    above 4 times its lowest value."""
    mean, lowest = 0.0, np.inf
    for i, loss in enumerate(losses):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        corrected = mean / (1 - SMOOTHING ** (i + 1))
        lowest = min(lowest, corrected)
    return bool(losses) and not (np.isfinite(losses[-1]) and corrected <= MAX_RISE * lowest)


def fit_curve(rates: np.ndarray, losses: np.ndarray) -> LrCurve:
    """Return the smoothed curve of losses (N,) at rates (N,), and where it falls fastest per decade of the
    rate, before its lowest value. Raise CompError where the loss never falls.

    A line is fitted around each rate (Cleveland 1979, with Gaussian weights). A running mean would lag, and
    suggest rates that are too high."""
    x = np.log10(rates)
    away = x[None, :] - x[:, None]  # (N, N): from the rate at which the line is fitted
    weights = np.exp(-0.5 * (away / WINDOW_DEVIATION) ** 2)
    weights /= weights.sum(1, keepdims=True)
    centre, level = (weights * away).sum(1), weights @ losses
    spread = (weights * away**2).sum(1) - centre**2
    slopes = ((weights * away) @ losses - centre * level) / np.maximum(spread, 1e-12)
    smooth = level - slopes * centre
    lowest = int(smooth.argmin())
    steepest = int(slopes[: lowest + 1].argmin())
    if slopes[steepest] >= 0:
        raise CompError(
            f"the loss does not fall at any learning rate from {rates[0]:.1e} to {rates[-1]:.1e}; widen "
            "--rates"
        )
    return LrCurve(smooth, steepest, lowest)


def parse_rates(text: str, steps: int) -> np.ndarray:
    """Return (steps,) rates with a constant ratio, from the lowest to the highest in a text like '1e-6,1'."""
    try:
        lowest, highest = map(float, text.split(","))
    except ValueError:
        lowest = highest = 0.0
    if not 0 < lowest < highest < np.inf:
        raise CompError(f"--rates {text}: expected LOW,HIGH, such as 1e-6,1")
    return np.geomspace(lowest, highest, steps)


def single_phase(recipe: Recipe, number: int) -> Recipe:
    """Return the recipe with only this phase, for one epoch at constant rates: 1 for the head, and the body's
    ratio to it."""
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
