"""predict: probabilities of held-out and of test images, averaged over test-time views.

Reads a fold's model and images; writes runs/<recipe>/fold<k>/oof.npz and test.npz.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from comp import model as models
from comp.artifacts import (
    GrowingArray,
    cache_dir,
    digest,
    folds_path,
    is_done,
    locked,
    model_path,
    oof_path,
    read_stamp,
    test_path,
)
from comp.augment import VIEWS, view_names
from comp.batches import CacheBatches, in_order, load_batches
from comp.config import Recipe
from comp.console import say
from comp.errors import CompError
from comp.folds import read_folds
from comp.images import cached
from comp.manifest import read_manifest
from comp.parallel import Device, Report, devices, run_jobs
from comp.predictions import Predictions, save


def run(recipe: Recipe, *, folds: list[int], force: bool) -> None:
    competition = recipe.competition
    data = read_manifest(competition)
    labels = data.labels(competition)
    fold_of = read_folds(
        folds_path(competition.name, recipe.n_folds, recipe.seed), labels.ids, recipe.n_folds
    )
    test_ids = data.sample_ids(competition)
    views = view_names(recipe.views)
    jobs: dict[str, tuple[Any, ...]] = {}
    for fold in folds:
        if (train_stamp := read_stamp(model_path(recipe.name, fold))) is None:
            raise CompError(f"{model_path(recipe.name, fold)} is not there; run `comp train` first")
        if train_stamp["folds"] != digest(labels.ids, fold_of):
            raise CompError(
                f"{model_path(recipe.name, fold)} was trained on other folds; run `comp train --force`"
            )
        stamp = {
            "views": views,
            "precision": recipe.precision,
            "train": digest(train_stamp),
            "images": data.stamp,
        }
        for path, name, ids in (
            (oof_path(recipe.name, fold), "train", labels.ids[fold_of == fold]),
            (test_path(recipe.name, fold), "test", test_ids),
        ):
            stamps = {**stamp, "ids": digest(ids)}
            if not is_done(path, stamps, force=force):
                jobs[f"fold {fold} {'held-out' if name == 'train' else 'test'}"] = (
                    recipe,
                    fold,
                    path,
                    name,
                    ids,
                    stamps,
                )
    if not jobs:
        say(f"predict: {recipe.name} fold {', '.join(map(str, folds))} done already")
        return
    size = recipe.phases[-1].size
    channels = competition.images.channels
    sets = {
        name: data.images(name, ids, channels)
        for name, ids in (("train", labels.ids), ("test", test_ids))
        if any(job[3] == name for job in jobs.values())
    }
    folder = cache_dir(competition.name)
    caches = {name: cached(images, [size], folder, data.stamp)[size] for name, images in sets.items()}
    rows = {
        name: {image_id: i for i, image_id in enumerate(images.ids.tolist())} for name, images in sets.items()
    }
    arguments = {
        label: (
            name,
            fold,
            path,
            ids,
            np.array([rows[split][i] for i in ids.tolist()]),
            caches[split],
            recipe,
            stamps,
        )
        for label, (recipe, fold, path, split, ids, stamps) in jobs.items()
        for name in [recipe.name]
    }
    say(f"predict: {recipe.name}, {len(views)} views, {', '.join(arguments)}")
    run_jobs(predict_set, arguments, devices(len(folds)))


def predict_set(
    name: str,
    fold: int,
    path: Path,
    ids: np.ndarray,
    rows: np.ndarray,
    cache: Path,
    recipe: Recipe,
    stamp: dict[str, Any],
    *,
    device: Device,
    report: Report,
) -> None:
    """Predict these rows of a cache with a fold's model and save them; stopped anywhere, it goes on from
    there."""
    with locked(path.with_name(f".{path.name}.lock"), f"predicting {path}"):
        place = device.activate()
        model, spec = models.load(model_path(name, fold))
        model.to(place, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        prepare = models.Input(spec.mean, spec.std, spec.size).to(place)
        dtype = models.precision_of(recipe.precision, place, model)
        views = [VIEWS[view] for view in view_names(recipe.views)]
        probs = GrowingArray(path.with_suffix(".npy"), (len(rows), len(spec.classes)), "float32", stamp)
        todo = probs.missing()
        steps = in_order(rows[todo], recipe.predict_batch_size)
        batches = load_batches(CacheBatches(cache, None, "none"), steps, place, device.n_loaders)
        done = len(rows) - len(todo)
        with torch.inference_mode(), models.autocast(place, dtype):
            for i, (images, _) in enumerate(batches):
                x = prepare(images)
                mean = sum(
                    model(view(x).contiguous(memory_format=torch.channels_last)).float().sigmoid()
                    for view in views
                ) / len(views)
                at = todo[i * recipe.predict_batch_size :][: len(images)]
                probs.put(at, mean.cpu().numpy())  # type: ignore[union-attr]
                done += len(images)
                report(done=done, total=len(rows))
        if not np.isfinite(probs.rows).all():
            probs.remove()
            raise CompError(
                f'{model_path(name, fold)} gives numbers that are not finite; set precision = "fp32"'
            )
        save(path, Predictions(ids, spec.classes, np.array(probs.rows)), stamp)
        probs.remove()
        report(line=f"{len(ids):,} {'held-out' if path.name == 'oof.npz' else 'test'} images predicted")
