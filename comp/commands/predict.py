"""predict: probabilities of held-out and test images, averaged over test-time views.

Reads a fold's model and images; writes runs/<recipe>/fold<k>/oof.npz and test.npz.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from comp.artifacts.paths import cache_dir, model_path, oof_path, predicted_paths
from comp.artifacts.resumable import prediction_files
from comp.artifacts.stamps import difference, digest, is_done, read_stamp, to_json
from comp.batches.view_names import stamped_views, view_names
from comp.config.recipe import Recipe
from comp.console import info
from comp.data.image_cache import build_caches
from comp.data.labels import Labels
from comp.data.manifest import CompetitionFiles, read_training
from comp.deadline import deadline_in
from comp.errors import CompError
from comp.training.training_data import model_stamps

if TYPE_CHECKING:
    from comp.models.inference import PredictionInputs


@dataclass(frozen=True)
class Part:
    """The predictions of one file: a fold's held-out images, or the test images."""

    split: str  # "train" or "test"
    fold: int
    path: Path
    ids: np.ndarray  # (N,) str
    stamp: dict[str, Any]

    @property
    def name(self) -> str:
        return f"fold {self.fold} {'held-out' if self.split == 'train' else 'test'}"


def run(recipe: Recipe, *, folds: list[int], force: bool, budget: float | None, on: str) -> None:
    deadline = deadline_in(budget)
    data, labels, fold_of = read_training(recipe)
    stamps = {
        fold: checked_stamp(model_path(recipe.name, fold), wanted)
        for fold, wanted in model_stamps(recipe, folds, data, labels, fold_of).items()
    }
    test_ids = data.test_ids(recipe.competition)
    parts = [part for fold in folds for part in _parts(recipe, fold, stamps[fold], labels, fold_of, test_ids)]
    parts = [part for part in parts if not is_done(part.path, part.stamp, force=force)]
    if not parts:
        info(f"predict: {recipe.name} fold {', '.join(map(str, folds))} done already")
        return
    from comp.compute.devices import devices  # torch only now: a finished stage answers at once
    from comp.compute.local_jobs import run_jobs
    from comp.compute.ray_jobs import run_on_ray
    from comp.models.inference import predict_set

    splits = {part.split for part in parts}
    ids = {
        split: all_ids for split, all_ids in (("train", labels.ids), ("test", test_ids)) if split in splits
    }
    places = devices(len(folds)) if on == "local" else []
    if len(places) > 1:  # the longest first, so that devices end together
        parts.sort(key=lambda part: -len(part.ids))
    features = {"train": labels.features}
    if "test" in splits and labels.features is not None:
        features["test"] = data.test_features(recipe.competition)
    arguments = _arguments(recipe, parts, ids, features, data, deadline)
    info(f"predict: {recipe.name}, {len(view_names(recipe.views))} views, {', '.join(arguments)}")
    if on == "ray":
        files = {part.name: prediction_files(part.path) for part in parts}
        run_on_ray(predict_set, arguments, files, n_jobs=len(folds), deadline=deadline)
    else:
        run_jobs(predict_set, arguments, places, deadline)


def checked_stamp(model: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Return the stamp of a model. Raise CompError unless it is the wanted one."""
    found = read_stamp(model)
    if found is None:
        raise CompError(f"{model} is missing; run `comp train` first")
    if found != to_json(wanted):
        raise CompError(
            f"{model} was trained with {difference(found, to_json(wanted))}; run `comp train` for that"
        )
    return found


def _parts(
    recipe: Recipe,
    fold: int,
    model_stamp: dict[str, Any],
    labels: Labels,
    fold_of: np.ndarray,
    test_ids: np.ndarray,
) -> list[Part]:
    parts, views = [], stamped_views(recipe.views, recipe.code)
    for path in predicted_paths(recipe.name, fold, recipe.n_folds):
        held_out = path == oof_path(recipe.name, fold)
        split, ids = ("train", labels.ids[fold_of == fold]) if held_out else ("test", test_ids)
        stamp = {"views": views, "train": digest(model_stamp), "ids": digest(ids)}
        parts.append(Part(split, fold, path, ids, stamp))
    return parts


def _arguments(
    recipe: Recipe,
    parts: Sequence[Part],
    ids: dict[str, np.ndarray],
    features: dict[str, np.ndarray | None],
    data: CompetitionFiles,
    deadline: float,
) -> dict[str, tuple["PredictionInputs"]]:
    """Return by name the argument of each job. Resize the images of the splits; `ids` and `features` hold all
    of theirs."""
    from comp.models.inference import PredictionInputs

    size = recipe.phases[-1].size
    needed = {split: (data.images(split, names, recipe.channels), [size]) for split, names in ids.items()}
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
    rows = {split: {name: i for i, name in enumerate(names.tolist())} for split, names in ids.items()}
    return {
        part.name: (
            PredictionInputs(
                recipe,
                model_path(recipe.name, part.fold),
                part.path,
                part.ids,
                np.array([rows[part.split][i] for i in part.ids.tolist()]),
                caches[part.split][size],
                part.stamp,
                features.get(part.split),
            ),
        )
        for part in parts
    }
