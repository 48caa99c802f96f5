"""What has to hold before hours are spent on training, and the images that a fold's network sees."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from comp.artifacts.paths import cache_dir
from comp.batches.tta import view_names
from comp.config.recipe import Recipe
from comp.console import say
from comp.data.folds import UNUSED
from comp.data.image_cache import cached
from comp.data.labels import Labels, groups_of
from comp.data.manifest import Data
from comp.decisions.rules import check_rule, is_single
from comp.errors import CompError
from comp.models import network as models
from comp.training.extra_images import Extra
from comp.training.losses import loss_of


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
