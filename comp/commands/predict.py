"""predict: probabilities of held-out and of test images, averaged over test-time views.

Reads a fold's model and images; writes runs/<recipe>/fold<k>/oof.npz and test.npz.
"""

from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.paths import cache_dir, model_path, oof_path, predicted_paths
from comp.artifacts.resumable import prediction_files
from comp.artifacts.stamps import difference, digest, is_done, plain, read_stamp
from comp.batches.tta import view_names
from comp.compute.devices import devices
from comp.compute.local_jobs import run_jobs
from comp.compute.ray_jobs import run_on_ray
from comp.config.recipe import Recipe
from comp.console import say
from comp.data.image_cache import cached
from comp.data.manifest import read_training
from comp.deadline import deadline_in
from comp.errors import CompError
from comp.models.inference import predict_set
from comp.training.extra_images import extras_of
from comp.training.model_stamp import train_stamp


def run(recipe: Recipe, *, folds: list[int], force: bool, budget: float | None, on: str) -> None:
    deadline = deadline_in(budget)
    competition = recipe.competition
    data, labels, fold_of = read_training(recipe)
    test_ids = data.sample_ids(competition)
    views = view_names(recipe.views)
    extras = extras_of(recipe, folds, data, labels, fold_of)
    jobs: dict[str, tuple[str, int, Path, np.ndarray, dict[str, Any]]] = {}
    for fold in folds:
        model = model_path(recipe.name, fold)
        made_from = read_stamp(model)
        if made_from is None:
            raise CompError(f"{model} is not there; run `comp train` first")
        wanted = plain(train_stamp(recipe, labels, fold_of, data.stamp, fold, extras[fold], data.limits))
        if made_from != wanted:
            raise CompError(
                f"{model} was trained with {difference(made_from, wanted)}; run `comp train` for that"
            )
        stamp = {"views": views, "train": digest(made_from)}
        for path in predicted_paths(recipe.name, fold, recipe.n_folds):
            held_out = path == oof_path(recipe.name, fold)
            split, ids = ("train", labels.ids[fold_of == fold]) if held_out else ("test", test_ids)
            label = f"fold {fold} {'held-out' if held_out else 'test'}"
            if not is_done(path, {**stamp, "ids": digest(ids)}, force=force):
                jobs[label] = (split, fold, path, ids, {**stamp, "ids": digest(ids)})
    if not jobs:
        say(f"predict: {recipe.name} fold {', '.join(map(str, folds))} done already")
        return
    size, channels = recipe.phases[-1].size, recipe.channels
    splits = {split for split, *_ in jobs.values()}
    all_ids = {split: ids for split, ids in (("train", labels.ids), ("test", test_ids)) if split in splits}
    needed = {split: (data.images(split, ids, channels), [size]) for split, ids in all_ids.items()}
    caches = cached(needed, cache_dir(competition.name), data.stamp, deadline, recipe.finest, recipe.filter)
    rows = {split: {name: i for i, name in enumerate(ids.tolist())} for split, ids in all_ids.items()}
    arguments = {
        label: (
            recipe,
            model_path(recipe.name, fold),
            path,
            ids,
            np.array([rows[split][i] for i in ids.tolist()]),
            caches[split][size],
            stamp,
        )
        for label, (split, fold, path, ids, stamp) in jobs.items()
    }
    say(f"predict: {recipe.name}, {len(views)} views, {', '.join(arguments)}")
    if on == "ray":
        files = {label: prediction_files(path) for label, (_, _, path, *_) in jobs.items()}
        run_on_ray(predict_set, arguments, files, n_jobs=len(folds), deadline=deadline)
    else:
        run_jobs(predict_set, arguments, devices(len(folds)), deadline)
