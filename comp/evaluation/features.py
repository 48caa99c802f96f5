"""Pooled features of a run's images, by the networks that were not trained on them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.paths import cache_dir, model_path
from comp.config.recipe import Recipe
from comp.data.image_cache import build_caches, describe_caches
from comp.data.image_files import open_cache
from comp.data.labels import Labels
from comp.data.manifest import CompetitionFiles
from comp.deadline import NEVER


@dataclass(frozen=True)
class FoldFeatures:
    """What one network sees of images that it was not trained on."""

    fold: int
    train_rows: np.ndarray  # (N,) rows of the labels
    test_rows: np.ndarray  # (M,) rows of the test ids
    train: np.ndarray  # (N, D) float32
    test: np.ndarray  # (M, D) float32


def resized_images(
    recipe: Recipe, data: CompetitionFiles, labels: Labels, *, build: bool
) -> dict[str, Path] | None:
    """Return the caches of the training and the test images by "train" and "test", at the networks' size.
    Missing ones are built; without `build` None is returned then."""
    size = recipe.phases[-1].size
    ids = {"train": labels.ids, "test": data.test_ids(recipe.competition)}
    needed = {split: (data.images(split, names, recipe.channels), [size]) for split, names in ids.items()}
    where, found = cache_dir(recipe.competition.name), data.fingerprint
    made = (recipe.max_size, recipe.filter, recipe.code, recipe.decode)
    if build:
        build_caches(needed, where, found, NEVER, *made)
    sets = describe_caches(needed, where, found, *made)
    if any(part.absent() for part in sets.values()):
        return None
    return {split: part.by_size()[size] for split, part in sets.items()}


def read_features(
    recipe: Recipe,
    caches: Mapping[str, Path],
    rows: Mapping[int, tuple[np.ndarray, np.ndarray]],
    advance: Callable[[int], None],
) -> list[FoldFeatures]:
    """Return the features of each network, by the rows of training and of test images that it sees, by its
    fold. The same images give the same features on the same device."""
    from comp.compute.devices import devices
    from comp.models import network as models
    from comp.models.features import pooled_features

    place = devices(1)[0].activate(deterministic=True)
    train, test = open_cache(caches["train"]), open_cache(caches["test"])
    found = []
    for fold, (train_rows, test_rows) in rows.items():
        model, spec = models.load(model_path(recipe.name, fold), recipe.code)
        given: list[Any] = [
            pooled_features(recipe, model, spec, images, wanted, place, advance)
            for images, wanted in ((train, train_rows), (test, test_rows))
        ]
        found.append(FoldFeatures(fold, train_rows, test_rows, *given))
    return found
