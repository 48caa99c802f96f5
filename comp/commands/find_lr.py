"""find-lr: the learning-rate range test.

Reads images, labels and folds; writes runs/<recipe>/find-lr-<phase>.png, and .json last. It trains a network
in memory for some steps at a growing rate, with a phase's batches, augmentation and loss. The run's own
weights are neither read nor written.
"""

from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.files import read_json, write_json
from comp.artifacts.paths import find_lr_path
from comp.artifacts.schemas import RangeTest
from comp.artifacts.stamps import is_done
from comp.compute.devices import Device, devices
from comp.compute.jobs import Report
from comp.compute.local_jobs import run_jobs
from comp.config.recipe import Recipe
from comp.console import info, table
from comp.deadline import NEVER
from comp.errors import CompError
from comp.plots.lr_finder import draw, marked_rates
from comp.training.lr_finder import fit_curve, has_diverged, parse_rates, range_test, single_phase
from comp.training.prepare import build_caches_of
from comp.training.trainer import Trainer
from comp.training.training_data import TrainingData


def run(recipe: Recipe, *, folds: list[int], force: bool, phase: int, rates: str, steps: int) -> None:
    for each in recipe.members or (recipe,):
        _run(each, folds[0], force, phase, rates, steps)


def _run(recipe: Recipe, fold: int, force: bool, phase: int, rates: str, steps: int) -> None:
    if not 0 <= phase < len(recipe.phases):
        raise CompError(f"--phase {phase}: the recipe has phases 0 to {len(recipe.phases) - 1}")
    if steps < 20:
        raise CompError(f"--steps {steps}: 20 or more are expected")
    tested = parse_rates(rates, steps)
    training = TrainingData.read(recipe, [fold])
    only = single_phase(recipe, phase)
    stamp = {
        "phase": phase,
        "rates": rates,
        "steps": steps,
        **training.stamp(fold, only),
    }
    path = find_lr_path(recipe.name, phase)
    if is_done(path, stamp, force=force):
        info(f"find-lr: {recipe.name} done already")
        show(recipe, read_json(path, RangeTest) | {"phase": phase}, path.with_suffix(".png"))
        return
    caches = build_caches_of(training, [fold], NEVER, test=False)
    inputs = training.fold_inputs(fold, caches, stamp, only)
    losses: list[float] = []

    def job(*, device: Device, report: Report, deadline: float) -> None:
        place = device.activate(deterministic=recipe.deterministic)
        trainer = Trainer(inputs, place, device.n_loaders)
        for loss in range_test(trainer, tested.tolist(), report):
            losses.append(loss)
            report(done=len(losses), total=steps)
            if has_diverged(losses):
                break

    run_jobs(job, {f"fold {fold}": ()}, devices(1)[:1], NEVER)
    seen = np.array(losses)[np.isfinite(losses)]
    if len(seen) < steps // 10:
        raise CompError(f"the loss diverged after {len(seen)} steps; give lower --rates than {rates}")
    tested = tested[: len(seen)]
    curve = fit_curve(tested, seen)
    content = {
        "fold": fold,
        "phase": phase,
        "suggested": float(tested[curve.steepest]),
        "lowest": float(tested[curve.lowest]),
        "rates": tested.tolist(),
        "losses": seen.tolist(),
        "smooth": curve.smooth.tolist(),
        "stamp": stamp,
    }
    draw(recipe, content, path.with_suffix(".png"))
    write_json(path, content)
    show(recipe, content, path.with_suffix(".png"))


def show(recipe: Recipe, content: dict[str, Any], picture: Path) -> None:
    """Print the suggested rate, and the smoothed loss at some rates."""
    number, suggested = content["phase"], float(f"{content['suggested']:.1e}")
    phase = recipe.phases[number]
    rates, smooth = np.array(content["rates"]), np.array(content["smooth"])
    shown = marked_rates(recipe, content) | {"lowest": content["lowest"]}
    where = f"phase {number} at {phase.size} px, fold {content['fold']}"
    info(f"find-lr: {recipe.name}, {where}, {len(rates)} steps")
    losses = {
        name: f"{np.interp(np.log(lr), np.log(rates), smooth):.4f}" if rates[0] <= lr <= rates[-1] else "-"
        for name, lr in shown.items()
    }
    table(
        ["where", "rate", "loss"],
        [[name, f"{lr:.1e}", losses[name]] for name, lr in sorted(shown.items(), key=lambda item: item[1])],
    )
    settings = f"--set phases.{number}.lr={suggested:.1e}"
    if phase.body_lr:
        settings += f" --set phases.{number}.body_lr={suggested * phase.body_lr / phase.lr:.1e}"
    info(f"find-lr: {settings}; the curve: {picture}")
    if content["suggested"] in (rates[0], rates[-1]):
        info("find-lr: that is an end of --rates, and the loss may fall faster beyond it; widen them")
