"""Checks that fail before hours are spent, and the resized images of training."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from comp.artifacts.paths import cache_dir
from comp.batches.augmentation import training_transform
from comp.batches.tta import make_views
from comp.config.recipe import Recipe
from comp.console import info
from comp.data.folds import UNUSED
from comp.data.image_cache import CachePaths, build_caches
from comp.data.image_files import ImageSet
from comp.data.labels import Labels, exclusive_groups
from comp.data.manifest import CompetitionFiles
from comp.decisions.answer_rules import answer_candidates
from comp.decisions.rules import check_rule, is_single_label
from comp.decisions.scorers import make_scorer
from comp.errors import CompError, summarize
from comp.models import network as models
from comp.models.numbers import NumberScale, scale_of
from comp.training.extra_images import ExtraImages
from comp.training.losses import Answers, make_loss, try_loss
from comp.training.optimizer import head_parameters
from comp.training.schedule import rate_shares
from comp.training.training_data import Caches, TrainingData


def build_caches_of(
    training: TrainingData, folds: Sequence[int], deadline: float, *, n_ranks: int = 1, test: bool = True
) -> Caches:
    """Check that the recipe can be trained on these folds, and resize the images."""
    recipe, labels = training.recipe, training.learned
    check_targets(recipe, labels, training.fold_of)
    check_steps(recipe, labels, training.n_trained(folds), n_ranks)
    check_augmentation_and_schedules(recipe)
    check_view_and_rule(recipe, labels)
    check_network(recipe)
    extras = training.extras[folds[0]]
    return build_training_caches(recipe, training.data, labels, extras, deadline, test=test)


def check_steps(recipe: Recipe, labels: Labels, n_train: Mapping[int, int], n_ranks: int = 1) -> None:
    """Raise CompError where a phase's batches or loss don't suit the images. `n_train` is the number of
    training images by fold."""
    fold, n = min(n_train.items(), key=lambda item: item[1])
    for phase in recipe.phases:
        required = 2 * n_ranks * phase.accumulate
        why = f" ({n_ranks} GPUs × accumulate {phase.accumulate} × 2)" if required > 2 else ""
        if n < required:
            raise CompError(
                f"fold {fold} leaves {n} training image{'s' * (n != 1)}; at least {required} are needed{why}"
            )
        if phase.batch_size < required:
            raise CompError(
                f"batch_size = {phase.batch_size} is too small; at least {required} are needed{why}"
            )
        name = phase.loss or recipe.loss
        groups = exclusive_groups(recipe.competition.labels, labels.classes)
        answers = answers_of(recipe, labels, number_scale(recipe, labels.targets))
        loss = make_loss(name, groups=groups, code=recipe.code, answers=answers)
        try_loss(loss, name, len(labels.classes), weighted=labels.weights is not None)


def number_scale(recipe: Recipe, targets: np.ndarray) -> NumberScale | None:
    """Return what logits stand for where answers are numbers, from training targets (N, C)."""
    return scale_of(targets, recipe.y_range) if recipe.competition.metric.kind == "numbers" else None


def answers_of(recipe: Recipe, labels: Labels, numbers: NumberScale | None) -> Answers:
    """Return what losses know of these labels."""
    unknown, weighted = bool(np.isnan(labels.targets).any()), labels.weights is not None
    return Answers(unknown, numbers, recipe.margin, recipe.scale, weighted)


def check_targets(recipe: Recipe, labels: Labels, fold_of: np.ndarray) -> None:
    """Raise CompError where targets don't suit the recipe: numbers outside of y_range, and a column without
    any known value in what a fold is trained on."""
    targets, classes = labels.targets, np.array(labels.classes, str)
    if recipe.y_range:
        low, high = recipe.y_range
        if (wrong := (targets < low) | (targets > high)).any():
            row = int(np.flatnonzero(wrong.any(1))[0])
            raise CompError(
                f"y_range = {list(recipe.y_range)}, but the targets are from {np.nanmin(targets):g} to "
                f"{np.nanmax(targets):g} (first outside: {labels.ids[row]}); widen y_range"
            )
    if not (unknown := np.isnan(targets)).any():
        return
    for fold in range(recipe.n_folds):
        trained = (fold_of != fold) & (fold_of != UNUSED)
        if (empty := unknown[trained].all(0)).any():
            raise CompError(f"all training images of fold {fold} have no known {summarize(classes[empty])}")


def check_augmentation_and_schedules(recipe: Recipe) -> None:
    """Raise CompError where a user's own augmentation or schedule fails."""
    for phase in recipe.phases:
        rate_shares(phase, recipe.code)(0, 2)
        if recipe.augment.own:
            size = recipe.cached_sizes[phase.size]
            noise = np.random.default_rng(0).integers(0, 256, (2, size, size, recipe.n_channels), np.uint8)
            training_transform(recipe.augment, recipe.code)(noise, 0)


def check_view_and_rule(recipe: Recipe, labels: Labels) -> None:
    """Raise CompError for a view or rule that `predict` or `decide` would only reject hours later."""
    size = recipe.phases[-1].size
    for view in make_views(recipe.views, recipe.code):
        view(torch.zeros(2, recipe.n_channels, size, size))
    scorer = make_scorer(recipe.competition, labels.classes, recipe.code)
    groups = exclusive_groups(recipe.competition.labels, labels.classes)
    single = is_single_label(labels.targets, groups)
    if scorer.answer != "labels":
        answer_candidates(recipe.rule, scorer, single=single)
    elif recipe.rule != "auto":
        check_rule(recipe.rule, single=single, grouped=bool(groups))


def check_network(recipe: Recipe) -> None:
    """Raise CompError where the network can't be created or rejects images of the phases' sizes."""
    if recipe.pretrained:
        info(f"loading the pretrained weights of {recipe.backbone}")
    sizes = sorted({phase.size for phase in recipe.phases})
    model = models.check(
        recipe.backbone,
        sizes,
        recipe.n_channels,
        pretrained=recipe.pretrained,
        weights=recipe.weights,
        layers=recipe.layer_decay < 1,
        code=recipe.code,
        cosine=recipe.scale if "arcface" in (recipe.loss, *(phase.loss for phase in recipe.phases)) else 0.0,
    )
    if any(phase.head_epochs for phase in recipe.phases) and not head_parameters(model):
        raise CompError(
            f"{recipe.backbone} has no get_classifier() that returns its head; set head_epochs = 0 in all "
            "phases"
        )


def build_training_caches(
    recipe: Recipe,
    data: CompetitionFiles,
    labels: Labels,
    extras: Sequence[ExtraImages],
    deadline: float,
    *,
    test: bool = True,
) -> Caches:
    """Return the caches for training, and build missing ones. With `test` the test images are resized too,
    for `comp predict`."""
    needed = images_to_cache(recipe, data, labels, extras)
    if test and "test" not in needed:  # pseudo-labelled ones are there already, in all sizes
        test_images = data.images("test", data.test_ids(recipe.competition), recipe.channels)
        needed["test"] = (test_images, [recipe.phases[-1].size])
    where = cache_dir(recipe.competition.name)
    caches = build_caches(
        needed,
        where,
        data.fingerprint,
        deadline,
        recipe.max_size,
        recipe.filter,
        recipe.code,
        recipe.decode,
    )
    return join_caches(recipe, extras, caches)


def images_to_cache(
    recipe: Recipe, data: CompetitionFiles, labels: Labels, extras: Sequence[ExtraImages]
) -> dict[str, tuple[ImageSet, list[int]]]:
    """Return the sets of images that training reads, each with the sizes of its caches."""
    sizes = sorted(set(recipe.cached_sizes.values()))
    train = data.images("train", labels.ids, recipe.channels)
    return {"train": (train, sizes)} | {extra.images.name: (extra.images, sizes) for extra in extras}


def join_caches(
    recipe: Recipe, extras: Sequence[ExtraImages], caches: Mapping[str, CachePaths]
) -> dict[int, tuple[Path, ...]]:
    """Return by size of the phases the caches of all sets, in the order of the rows."""
    names = ["train", *(extra.images.name for extra in extras)]
    return {size: tuple(caches[name][kept] for name in names) for size, kept in recipe.cached_sizes.items()}
