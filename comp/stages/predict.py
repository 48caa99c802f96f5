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
    difference,
    digest,
    is_done,
    locked,
    model_path,
    oof_path,
    plain,
    read_stamp,
    test_path,
)
from comp.augment import VIEWS, view_names
from comp.batches import CacheBatches, in_order, load_batches
from comp.config import Recipe
from comp.console import say
from comp.errors import CompError
from comp.images import cached
from comp.manifest import read_training
from comp.parallel import Device, Report, devices, run_jobs
from comp.predictions import Predictions, save
from comp.stamps import train_stamp


def run(recipe: Recipe, *, folds: list[int], force: bool) -> None:
    competition = recipe.competition
    data, labels, fold_of = read_training(recipe)
    test_ids = data.sample_ids(competition)
    views = view_names(recipe.views)
    jobs: dict[str, tuple[str, int, Path, np.ndarray, dict[str, Any]]] = {}
    for fold in folds:
        model = model_path(recipe.name, fold)
        made_from = read_stamp(model)
        if made_from is None:
            raise CompError(f"{model} is not there; run `comp train` first")
        if made_from != (wanted := plain(train_stamp(recipe, labels, fold_of, data.stamp, fold))):
            raise CompError(
                f"{model} was trained with {difference(made_from, wanted)}; run `comp train` for that"
            )
        stamp = {"views": views, "train": digest(made_from)}
        for label, split, path, ids in (
            (f"fold {fold} held-out", "train", oof_path(recipe.name, fold), labels.ids[fold_of == fold]),
            (f"fold {fold} test", "test", test_path(recipe.name, fold), test_ids),
        ):
            if not is_done(path, {**stamp, "ids": digest(ids)}, force=force):
                jobs[label] = (split, fold, path, ids, {**stamp, "ids": digest(ids)})
    if not jobs:
        say(f"predict: {recipe.name} fold {', '.join(map(str, folds))} done already")
        return
    size, channels = recipe.phases[-1].size, competition.images.channels
    splits = {split for split, *_ in jobs.values()}
    all_ids = {split: ids for split, ids in (("train", labels.ids), ("test", test_ids)) if split in splits}
    needed = {split: (data.images(split, ids, channels), [size]) for split, ids in all_ids.items()}
    caches = cached(needed, cache_dir(competition.name), data.stamp)
    rows = {split: {name: i for i, name in enumerate(ids.tolist())} for split, ids in all_ids.items()}
    arguments = {
        label: (
            recipe,
            fold,
            path,
            ids,
            np.array([rows[split][i] for i in ids.tolist()]),
            caches[split][size],
            stamp,
        )
        for label, (split, fold, path, ids, stamp) in jobs.items()
    }
    say(f"predict: {recipe.name}, {len(views)} views, {', '.join(arguments)}")
    run_jobs(predict_set, arguments, devices(len(folds)))


def predict_set(
    recipe: Recipe,
    fold: int,
    path: Path,
    ids: np.ndarray,
    rows: np.ndarray,
    cache: Path,
    stamp: dict[str, Any],
    *,
    device: Device,
    report: Report,
) -> None:
    """Predict these rows of a cache with a fold's model and save them; stopped anywhere, it goes on from
    there."""
    with locked(path.with_name(f".{path.name}.lock"), f"predicting {path}"):
        if read_stamp(path) == plain(stamp):
            report(line="was predicted by another process")
            return
        place = device.activate()
        model, spec = models.load(model_path(recipe.name, fold))
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
                f'{model_path(recipe.name, fold)} gives numbers that are not finite; set precision = "fp32"'
            )
        save(path, Predictions(ids, spec.classes, np.array(probs.rows)), stamp)
        probs.remove()
        report(line=f"{len(ids):,} {'held-out' if path.name == 'oof.npz' else 'test'} images predicted")
