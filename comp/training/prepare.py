"""The inputs of training a fold, and checks that fail before hours are spent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from comp.artifacts.paths import cache_dir
from comp.batches.augmentation import training_transform
from comp.batches.tta import make_views
from comp.config.recipe import Recipe
from comp.console import info
from comp.data.folds import UNUSED
from comp.data.image_cache import build_caches
from comp.data.labels import Labels, exclusive_groups
from comp.data.manifest import CompetitionFiles, read_training
from comp.decisions.rules import check_rule, is_single_label
from comp.errors import CompError
from comp.models import network as models
from comp.training.extra_images import ExtraImages, append_extras, extra_stamps, read_extras, stamps_by_name
from comp.training.losses import make_loss, try_loss
from comp.training.model_stamp import train_stamp
from comp.training.optimizer import head_parameters
from comp.training.schedule import rate_shares

# By size, the files of resized images: the competition's own, then the extra ones.
Caches = Mapping[int, tuple[Path, ...]]


@dataclass(frozen=True)
class FoldInputs:
    """The inputs of training one network."""

    recipe: Recipe
    fold: int
    labels: Labels  # the competition's own, then the extra images'
    fold_of: np.ndarray  # (N,) the fold of each row
    caches: Caches
    stamp: dict[str, Any]
    pseudo_source: str = ""  # the digest of what the pseudo-labels were computed from

    @property
    def train_rows(self) -> np.ndarray:
        return np.flatnonzero((self.fold_of != self.fold) & (self.fold_of != UNUSED))

    @property
    def valid_rows(self) -> np.ndarray:
        return np.flatnonzero(self.fold_of == self.fold)


@dataclass(frozen=True)
class TrainingData:
    """The inputs of training several folds, before the images are resized."""

    recipe: Recipe
    data: CompetitionFiles
    labels: Labels
    fold_of: np.ndarray  # (N,) the fold of each of the labels' ids
    extras: dict[int, list[ExtraImages]]  # by fold

    @classmethod
    def read(cls, recipe: Recipe, folds: Sequence[int]) -> "TrainingData":
        data, labels, fold_of = read_training(recipe)
        return cls(recipe, data, labels, fold_of, read_extras(recipe, folds, data, labels, fold_of))

    def stamp(self, fold: int, recipe: Recipe | None = None) -> dict[str, Any]:
        """Return what the model of a fold is made from; for `recipe` on the same data where it is given."""
        return train_stamp(
            recipe or self.recipe,
            self.labels,
            self.fold_of,
            self.data.fingerprint,
            fold,
            stamps_by_name(self.extras[fold]),
            self.data.limits,
        )

    def n_trained(self, folds: Sequence[int]) -> dict[int, int]:
        """Return by fold the number of images that its network learns."""
        used = {fold: sum(int(extra.used.sum()) for extra in self.extras[fold]) for fold in folds}
        usable = self.fold_of != UNUSED
        return {fold: int(((self.fold_of != fold) & usable).sum()) + used[fold] for fold in folds}

    def build_caches(
        self, folds: Sequence[int], deadline: float, *, n_ranks: int = 1, test: bool = True
    ) -> Caches:
        """Check that the recipe can be trained on these folds, and resize the images."""
        check_steps(self.recipe, self.labels, self.n_trained(folds), n_ranks)
        check_augmentation_and_schedules(self.recipe)
        check_view_and_rule(self.recipe, self.labels)
        check_network(self.recipe)
        return build_training_caches(
            self.recipe, self.data, self.labels, self.extras[folds[0]], deadline, test=test
        )

    def fold_inputs(
        self, fold: int, caches: Caches, stamp: dict[str, Any], recipe: Recipe | None = None
    ) -> FoldInputs:
        extras = self.extras[fold]
        labels, fold_of = append_extras(self.labels, self.fold_of, extras)
        source = next((extra.source for extra in extras if extra.source), "")
        return FoldInputs(recipe or self.recipe, fold, labels, fold_of, caches, stamp, source)


def model_stamps(
    recipe: Recipe, folds: Sequence[int], data: CompetitionFiles, labels: Labels, fold_of: np.ndarray
) -> dict[int, dict[str, Any]]:
    """Return by fold `TrainingData.stamp`. Pseudo-labels are not computed again for models that were trained
    with them."""
    extras = extra_stamps(recipe, folds, data, labels, fold_of)
    return {
        fold: train_stamp(recipe, labels, fold_of, data.fingerprint, fold, extras[fold], data.limits)
        for fold in folds
    }


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
        try_loss(make_loss(name, groups=groups, code=recipe.code), name, len(labels.classes))


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
    groups = exclusive_groups(recipe.competition.labels, labels.classes)
    if recipe.rule != "auto":
        check_rule(recipe.rule, single=is_single_label(labels.targets, groups), grouped=bool(groups))


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
    competition, channels, cached = recipe.competition, recipe.channels, recipe.cached_sizes
    sizes = sorted(set(cached.values()))
    needed = {"train": (data.images("train", labels.ids, channels), sizes)}
    if test:
        test_images = data.images("test", data.sample_ids(competition), channels)
        needed["test"] = (test_images, [recipe.phases[-1].size])
    needed |= {extra.images.name: (extra.images, sizes) for extra in extras}
    where = cache_dir(competition.name)
    caches = build_caches(
        needed, where, data.fingerprint, deadline, recipe.max_size, recipe.filter, recipe.code
    )
    names = ["train", *(extra.images.name for extra in extras)]
    return {size: tuple(caches[name][kept] for name in names) for size, kept in cached.items()}
