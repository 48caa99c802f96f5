"""train: one network a fold, through the recipe's phases.

Reads images, labels and folds; writes runs/<recipe>/fold<k>/: log.jsonl and last.pt after each epoch,
model.safetensors last.
"""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from comp import model as models
from comp.artifacts import (
    cache_dir,
    checkpoint_path,
    is_done,
    model_path,
    replacing,
    started_path,
    training_files,
    write_json,
)
from comp.budget import NEVER, deadline_in
from comp.cluster import run_on_ray
from comp.config import Recipe
from comp.console import say
from comp.errors import CompError, TimeIsUp
from comp.images import cached
from comp.labels import Labels
from comp.losses import loss_of
from comp.manifest import read_training
from comp.parallel import Device, Report, devices, run_jobs
from comp.ranks import Ranks
from comp.stamps import train_stamp
from comp.training import HEADER, Trainer, groups_of
from comp.weights import weights_file


def run(recipe: Recipe, *, folds: list[int], force: bool, budget: float | None, on: str) -> None:
    with Ranks.joined() as ranks:
        if ranks.size > 1 and on == "ray":
            raise CompError("--on ray starts its jobs itself; leave out torchrun")
        _run(recipe, folds, force, budget, on, ranks)


def _run(recipe: Recipe, folds: list[int], force: bool, budget: float | None, on: str, ranks: Ranks) -> None:
    deadline = ranks.agreed(deadline_in(budget))
    competition = recipe.competition
    data, labels, fold_of = read_training(recipe)
    stamps = {fold: train_stamp(recipe, labels, fold_of, data.stamp, fold) for fold in folds}
    todo = [fold for fold in folds if not is_done(model_path(recipe.name, fold), stamps[fold], force=force)]
    for fold in todo:  # what is half trained isn't replaced silently either
        is_done(started_path(recipe.name, fold), stamps[fold], force=force)
    if finished := sorted(set(folds) - set(todo)):
        say(f"train: {recipe.name} fold {', '.join(map(str, finished))} done already")
    if not todo:
        return
    n_train = len(labels.ids) * (recipe.n_folds - 1) // recipe.n_folds
    for phase in recipe.phases:
        if (n := min(phase.batch_size, n_train)) < 2 * ranks.size * phase.accumulate:
            raise CompError(
                f"batches of {n} are too small for {ranks.size} GPUs, each in {phase.accumulate} parts of 2 "
                "images or more"
            )
        loss_of(phase.loss or recipe.loss, groups=groups_of(recipe, labels.classes))
    if recipe.pretrained:
        say(f"train: looking for the weights of {recipe.backbone}")
    channels, sizes = competition.images.channels, sorted({phase.size for phase in recipe.phases})
    n_channels = competition.images.n_channels
    models.check(recipe.backbone, sizes, n_channels, pretrained=recipe.pretrained, weights=recipe.weights)
    train_images = data.images("train", labels.ids, channels)
    test_images = data.images("test", data.sample_ids(competition), channels)
    needed = {"train": (train_images, sizes), "test": (test_images, [recipe.phases[-1].size])}
    caches = cached(needed, cache_dir(competition.name), data.stamp, deadline, recipe.finest)["train"]
    say(
        f"train: {recipe.name}, {recipe.backbone}, folds {', '.join(map(str, todo))}, "
        f"{len(labels.ids):,} images"
    )
    jobs = {f"fold {fold}": (recipe, fold, labels, fold_of, caches, stamps[fold], force) for fold in todo}
    if on == "ray":
        files = {f"fold {fold}": training_files(recipe.name, fold) for fold in todo}
        run_on_ray(
            train_fold, jobs, files, n_jobs=len(folds), deadline=deadline, environment=_weights(recipe)
        )
    else:
        places = [ranks.place()] if ranks.size > 1 else devices(len(folds))
        run_jobs(train_fold, jobs, places, deadline)


def _weights(recipe: Recipe) -> dict[str, Path]:
    """The weights for other machines, which may have neither these files nor internet."""
    if not recipe.pretrained:
        return {}
    path = weights_file(recipe.backbone, recipe.weights)
    if path is None:
        path = cache_dir(recipe.competition.name) / f"{recipe.backbone}.safetensors"
        if not path.exists():
            with replacing(path) as temporary:
                temporary.write_bytes(models.pretrained_weights(recipe.backbone))
    return {"COMP_WEIGHTS_COPY": path}


def train_fold(
    recipe: Recipe,
    fold: int,
    labels: Labels,
    fold_of: np.ndarray,
    caches: dict[int, Path],
    stamp: dict[str, Any],
    force: bool,
    *,
    device: Device,
    report: Report,
    deadline: float,
) -> None:
    """Train one fold to its model file, from its last checkpoint if there is one with the same stamp. Raises
    TimeIsUp where the next epoch would not end before the deadline."""
    ranks = Ranks.of_torchrun()
    with training_files(recipe.name, fold).locked() if ranks.is_first else nullcontext():
        if ranks.agreed(is_done(model_path(recipe.name, fold), stamp, force=force)):
            report(line="was finished by another process")
            return
        place = device.activate()
        trainer = Trainer(recipe, fold, labels, fold_of, caches, stamp, place, device.n_loaders, ranks)
        resumed = trainer.resume()
        ranks.wait()  # all have read what is replaced now
        if ranks.is_first:
            model_path(recipe.name, fold).unlink(missing_ok=True)
            started = {"recipe": recipe.model_dump(mode="json"), "stamp": stamp}
            write_json(started_path(recipe.name, fold), started)
        if resumed:
            report(line=f"goes on after epoch {trainer.n_epochs_done} of {trainer.n_epochs}")
        else:
            report(line=HEADER)
        while trainer.n_epochs_done < trainer.n_epochs:
            if ranks.agreed(time.time() + trainer.expected_seconds() > deadline):
                raise TimeIsUp(trainer.progress())
            report(line=trainer.epoch(report, deadline if ranks.size == 1 else NEVER))
            if ranks.is_first:
                trainer.save()
                report(saved=True)
        if ranks.is_first:
            trainer.write_log()
            models.save(model_path(recipe.name, fold), trainer.averaged, trainer.spec, stamp)
            checkpoint_path(recipe.name, fold).unlink(missing_ok=True)
