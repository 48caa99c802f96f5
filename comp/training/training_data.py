"""What folds are trained on, read from files without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from comp.config.recipe import Recipe
from comp.data.corrections import correct
from comp.data.folds import UNUSED
from comp.data.labels import Labels
from comp.data.manifest import CompetitionFiles, read_training
from comp.training.extra_images import ExtraImages, append_extras, extra_stamps, read_extras, stamps_by_name
from comp.training.model_stamp import train_stamp

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
    labels: Labels  # as they are given
    learned: Labels  # the same, corrected
    fold_of: np.ndarray  # (N,) the fold of each of the labels' ids
    extras: dict[int, list[ExtraImages]]  # by fold

    @classmethod
    def read(cls, recipe: Recipe, folds: Sequence[int]) -> "TrainingData":
        data, labels, fold_of = read_training(recipe)
        learned, extras = (
            correct(labels, recipe.competition),
            read_extras(recipe, folds, data, labels, fold_of),
        )
        return cls(recipe, data, labels, learned, fold_of, extras)

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

    def fold_inputs(
        self, fold: int, caches: Caches, stamp: dict[str, Any], recipe: Recipe | None = None
    ) -> FoldInputs:
        """Return the inputs of a fold's network. Held-out images keep the labels as they are given, by which
        its epochs are scored."""
        extras, labels = self.extras[fold], self.learned
        if labels is not self.labels:
            held_out = (self.fold_of == fold)[:, None]
            labels = replace(labels, targets=np.where(held_out, self.labels.targets, labels.targets))
        labels, fold_of = append_extras(labels, self.fold_of, extras)
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
