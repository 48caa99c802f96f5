"""One network of one fold from a recipe, for all commands that train: what has to hold before, the images
that it sees, and the job."""

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.schemas import Started
from comp.artifacts.stamps import (
    cache_dir,
    checkpoint_path,
    is_done,
    model_path,
    read_json,
    started_path,
    training_files,
    write_json,
)
from comp.batches.augmentation import view_names
from comp.compute.distributed import Ranks
from comp.compute.local_jobs import Device, Report
from comp.config.loading import Recipe
from comp.console import say
from comp.data.folds import UNUSED
from comp.data.image_files import cached
from comp.data.labels import Labels, groups_of
from comp.data.manifest import Data
from comp.deadline import NEVER
from comp.decisions.decide import check_rule, is_single
from comp.errors import CompError, TimeIsUp
from comp.models import network as models
from comp.training.extra_images import Extra
from comp.training.losses import loss_of
from comp.training.trainer import Trainer


def prepared(
    recipe: Recipe,
    data: Data,
    labels: Labels,
    fold_of: np.ndarray,
    extras: Mapping[int, Sequence[Extra]],
    deadline: float,
    n_ranks: int = 1,
    test: bool = True,
) -> dict[int, tuple[Path, ...]]:
    """What `resized` gives, once it is known that the recipe can be trained on the folds that `extras` are
    for."""
    check_steps(recipe, labels, n_trained(fold_of, extras), n_ranks)
    check_later(recipe, labels)
    check_network(recipe)
    return resized(recipe, data, labels, next(iter(extras.values())), deadline, test=test)


def n_trained(fold_of: np.ndarray, extras: Mapping[int, Sequence[Extra]]) -> dict[int, int]:
    """By fold, how many images its network learns."""
    own = {fold: int(((fold_of != fold) & (fold_of != UNUSED)).sum()) for fold in extras}
    return {fold: own[fold] + sum(int(e.used.sum()) for e in more) for fold, more in extras.items()}


def check_steps(recipe: Recipe, labels: Labels, n_train: Mapping[int, int], n_ranks: int = 1) -> None:
    """Raise CompError where a phase's batches or losses don't suit the images, of which a fold's network
    learns `n_train`."""
    fold, n = min(n_train.items(), key=lambda item: item[1])
    for phase in recipe.phases:
        least = 2 * n_ranks * phase.accumulate
        why = f" ({n_ranks} GPUs with {phase.accumulate} parts of 2 each)" if least > 2 else ""
        if n < least:
            raise CompError(
                f"fold {fold} leaves {n} image{'s' * (n != 1)} to train on; {least} or more are needed{why}"
            )
        if phase.batch_size < least:
            raise CompError(f"batch_size = {phase.batch_size} is too small; {least} or more are needed{why}")
        loss_of(phase.loss or recipe.loss, groups=groups_of(recipe.competition.labels, labels.classes))


def check_later(recipe: Recipe, labels: Labels) -> None:
    """Raise CompError where what `predict` and `decide` read, hours from now, is not known."""
    view_names(recipe.views)
    groups = groups_of(recipe.competition.labels, labels.classes)
    if recipe.rule != "auto":
        check_rule(recipe.rule, single=is_single(labels.targets, groups), grouped=bool(groups))


def check_network(recipe: Recipe) -> None:
    """Raise CompError where the network can't be had or doesn't take images of the phases' sizes."""
    if recipe.pretrained:
        say(f"looking for the weights of {recipe.backbone}")
    sizes = sorted({phase.size for phase in recipe.phases})
    models.check(
        recipe.backbone,
        sizes,
        recipe.n_channels,
        pretrained=recipe.pretrained,
        weights=recipe.weights,
        layers=recipe.layer_decay < 1,
    )


def resized(
    recipe: Recipe,
    data: Data,
    labels: Labels,
    extras: Sequence[Extra],
    deadline: float,
    *,
    test: bool = True,
) -> dict[int, tuple[Path, ...]]:
    """By size, the resized images that `train_fold` takes, those of training first, built where they aren't
    there; with `test` the test images are resized as well, for predict. `extras` are those of any fold."""
    competition, channels = recipe.competition, recipe.channels
    sizes = sorted({phase.size for phase in recipe.phases})
    needed = {"train": (data.images("train", labels.ids, channels), sizes)}
    if test:
        test_images = data.images("test", data.sample_ids(competition), channels)
        needed["test"] = (test_images, [recipe.phases[-1].size])
    needed |= {extra.images.name: (extra.images, sizes) for extra in extras}
    where = cache_dir(competition.name)
    caches = cached(needed, where, data.stamp, deadline, recipe.finest, recipe.filter)
    names = ["train", *(extra.images.name for extra in extras)]
    return {size: tuple(caches[name][size] for name in names) for size in sizes}


def train_fold(
    recipe: Recipe,
    fold: int,
    labels: Labels,
    fold_of: np.ndarray,
    caches: dict[int, tuple[Path, ...]],
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
            trainer.write_log()  # before what says whose log it is
            path = started_path(recipe.name, fold)
            kept = read_json(path, Started) if resumed and path.exists() else {"begun": time.time_ns()}
            about = {"recipe": recipe.model_dump(mode="json"), "stamp": stamp, "begun": kept.get("begun")}
            write_json(path, about)
        if resumed:
            report(line=f"goes on after epoch {trainer.n_epochs_done} of {trainer.n_epochs}")
        else:
            report(line=trainer.header())
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
