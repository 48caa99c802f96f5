"""Learning rates as pure functions of the step, so a checkpoint holds no state of a schedule."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from comp.config.recipe import Phase
from comp.errors import CompError
from comp.user_code import Code, as_users_error, is_reference, load_function

WARM_UP = 0.25  # default share of a one-cycle, as in fastai's fit_one_cycle
HEAD_FACTOR = 3.0  # an epoch of the whole network takes as many times as long as one of the head alone
FIRST_SHARE, LAST_SHARE = 1 / 25, 1e-4  # of the highest rate, at the first and the last step


def rate_shares(phase: Phase, code: Code) -> Callable[[int, int], float]:
    """Return the function of a phase's step and its number of steps that gives `lr_factor`, or a user's own
    value in 0 … 1. That function raises CompError for another value."""
    name = phase.schedule
    if not is_reference(name):
        return lambda step, n_steps: lr_factor(name, step, n_steps, phase.cycles, phase.warm_up)
    function = load_function(name, code, "step", "n_steps")

    def share(step: int, n_steps: int) -> float:
        if phase.warm_up and step < phase.warm_up * n_steps:
            return lr_factor("constant", step, n_steps, warm_up=phase.warm_up)
        try:
            value = float(function(step, n_steps))
        except Exception as error:
            raise as_users_error(error, name) from error
        if not 0 <= value <= 1:
            raise CompError(
                f"{name} returned {value} for step {step} of {n_steps}; a share 0 … 1 is expected"
            )
        return value

    return share


def lr_factor(schedule: str, step: int, n_steps: int, cycles: int = 1, warm_up: float | None = None) -> float:
    """Return the learning rate of `step` (0 … n_steps - 1) as a share of the highest, in (0, 1].

    one-cycle: a cosine rises from 1/25 over the first quarter, then falls to 1/10,000 (Smith 2018).
    cosine-restarts: `cycles` falling cosines, each twice as long as the one before (Loshchilov and Hutter
    2017). `warm_up` is the share of steps over which any schedule rises as a one-cycle does (Goyal et al.
    2017)."""
    if warm_up is None:
        warm_up = WARM_UP if schedule == "one-cycle" else 0.0
    warm = warm_up * n_steps
    if step < warm:
        return _cosine(FIRST_SHARE, 1.0, step / warm)
    if schedule == "constant":
        return 1.0
    if schedule == "one-cycle":
        return _cosine(1.0, LAST_SHARE, (step - warm) / max(1.0, n_steps - 1 - warm))
    if schedule == "cosine-restarts":
        step, n_steps = step - math.ceil(warm), n_steps - math.ceil(warm)
        shortest = n_steps / (2**cycles - 1)
        cycle = min(cycles - 1, int(math.log2(step / shortest + 1)))
        begin, length = shortest * (2**cycle - 1), shortest * 2**cycle
        return _cosine(1.0, LAST_SHARE, (step - begin) / length)
    raise ValueError(f"no schedule {schedule!r}")


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2


def phase_at(phases: Sequence[Phase], epoch: int) -> tuple[int, Phase, int]:
    """Return the number and the phase of an epoch of the run, and the epoch within the phase, all from 0."""
    for number, phase in enumerate(phases):
        if epoch < phase.epochs:
            return number, phase, epoch
        epoch -= phase.epochs
    raise IndexError("all epochs are done")


def epoch_work(phases: Sequence[Phase], epoch: int) -> float:
    """Return how much work an epoch of the run is, counted from 0, in units that all epochs share. Work goes
    by pixels; the head alone is a third of the whole network."""
    _, phase, within = phase_at(phases, epoch)
    return phase.size**2 / (HEAD_FACTOR if within < phase.head_epochs else 1.0)


def next_epoch_seconds(
    phases: Sequence[Phase], history: Sequence[Mapping[str, Any]], *, swa_follows: bool
) -> float:
    """Return the expected duration of the next epoch: that of the last one, scaled by their work, times 1.5
    where SWA follows; 0 before the first epoch."""
    if not history:
        return 0.0
    n_done = len(history)
    scale = epoch_work(phases, n_done) / epoch_work(phases, n_done - 1)
    return (1.5 if swa_follows else 1.0) * history[-1]["seconds"] * scale
