"""Probabilities of a set of images by one finished model, averaged over test-time views; stopped anywhere, it
goes on from there."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from comp import model as models
from comp.artifacts import GrowingArray, plain, prediction_files, read_stamp
from comp.augment import VIEWS, view_names
from comp.batches import CacheBatches, in_order, load_batches
from comp.budget import check_time
from comp.config import Recipe
from comp.errors import CompError
from comp.parallel import Device, Report
from comp.predictions import Predictions, save


def predict_set(
    recipe: Recipe,
    model_file: Path,
    path: Path,
    ids: np.ndarray,
    rows: np.ndarray,
    cache: Path,
    stamp: dict[str, Any],
    *,
    device: Device,
    report: Report,
    deadline: float,
) -> None:
    """Predict these rows of a cache with a finished model and save them at `path`; stopped
    anywhere, it goes on from there. Raises TimeIsUp at the deadline."""
    with prediction_files(path).locked():
        if read_stamp(path) == plain(stamp):
            report(line="was predicted by another process")
            return
        place = device.activate()
        model, spec = models.load(model_file)
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
                check_time(deadline, f"{done:,} of {len(rows):,} images")
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
            raise CompError(f'{model_file} gives numbers that are not finite; set precision = "fp32"')
        save(path, Predictions(ids, spec.classes, np.array(probs.rows)), stamp)
        probs.remove()
        report(line=f"{len(ids):,} {'held-out' if path.name == 'oof.npz' else 'test'} images predicted")
