"""Probabilities of one image or a set of images, averaged over test-time views (TTA)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from comp.artifacts.predictions import Predictions, save
from comp.artifacts.resumable import GrowingArray, prediction_files
from comp.artifacts.stamps import read_stamp, to_json
from comp.batches.augmentation import to_device
from comp.batches.loader import CachedDataset, DeviceLoader
from comp.batches.preprocessing import Preprocess
from comp.batches.sampling import ordered_steps
from comp.batches.tta import View, make_views
from comp.compute.devices import Device, MicroBatches
from comp.compute.jobs import Report
from comp.config.recipe import Recipe
from comp.deadline import check_time
from comp.errors import CompError
from comp.models import network as models
from comp.models.precision import autocast, choose_precision


def predict_image(
    recipe: Recipe,
    model: nn.Module,
    spec: models.ModelSpec,
    image: np.ndarray,
    place: torch.device,
    features: np.ndarray | None = None,
) -> np.ndarray:
    """Return the probabilities or numbers (C,) of an image (side, side, channels) uint8, averaged over the
    recipe's views. Features (F,) that are not given count as unknown."""
    model.to(place, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    prepare = Preprocess(spec.mean, spec.std, spec.size).to(place)
    dtype = choose_precision(recipe.precision, place, model)
    views = make_views(recipe.views, recipe.code)
    with torch.inference_mode(), autocast(place, dtype):
        x = prepare(torch.from_numpy(np.array(image[None])).to(place))
        return predict_views(model, x, views, spec, _on(place, features))[0].cpu().numpy()


def _on(place: torch.device, features: np.ndarray | None) -> torch.Tensor | None:
    return None if features is None else to_device(features[None].astype(np.float32), place)


@dataclass(frozen=True)
class PredictionInputs:
    """The images that a finished model predicts, and the file to write."""

    recipe: Recipe
    model_file: Path
    path: Path  # the file of the predictions
    ids: np.ndarray  # (N,) str
    rows: np.ndarray  # (N,) the ids' rows of the cache
    cache: Path
    stamp: dict[str, Any]
    features: np.ndarray | None = None  # (M, F) of the cache's rows, for networks that take them


def predict_set(inputs: PredictionInputs, *, device: Device, report: Report, deadline: float) -> None:
    """Predict images with a finished model and save the probabilities. Resume from where an earlier run
    stopped. Raise TimeIsUp at the deadline."""
    recipe, model_file, path = inputs.recipe, inputs.model_file, inputs.path
    ids, rows, stamp = inputs.ids, inputs.rows, inputs.stamp
    with prediction_files(path).locked():
        if read_stamp(path) == to_json(stamp):
            report(line="predicted by another process")
            return
        place = device.activate(deterministic=recipe.deterministic)
        model, spec = models.load(model_file, recipe.code)
        model.to(place, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        prepare = Preprocess(spec.mean, spec.std, spec.size).to(place)
        dtype = choose_precision(recipe.precision, place, model)
        views = make_views(recipe.views, recipe.code)
        probs = GrowingArray(path.with_suffix(".npy"), (len(rows), len(spec.classes)), "float32", stamp)
        todo = probs.missing()
        n_at_once = max(
            1, recipe.predict_batch_size // len(views)
        )  # images; all of their views run in one batch
        micro_batches = MicroBatches()
        todo_rows = rows[todo]
        if spec.feature_mean and inputs.features is None:
            raise CompError(f"{model_file} needs labels.features, and there are none for {path.name}")
        if inputs.features is not None and inputs.features.shape[1] != len(spec.feature_mean):
            raise CompError(
                f"{model_file} was trained with {len(spec.feature_mean)} features; there are "
                f"{inputs.features.shape[1]} for {path.name}"
            )
        dataset = CachedDataset([inputs.cache], inputs.features)
        loader = DeviceLoader(dataset, place, device.n_loaders, rows=todo_rows)
        steps = ordered_steps(todo_rows, n_at_once)
        done, started = len(rows) - len(todo), time.monotonic()
        earlier: tuple[np.ndarray, torch.Tensor, torch.cuda.Event | None] | None = None

        def put() -> None:
            """Store the previous batch's probabilities. Their copy from the GPU ran while this batch
            started."""
            if earlier:
                if earlier[2]:
                    earlier[2].synchronize()
                probs.put(earlier[0], earlier[1].numpy())

        with torch.inference_mode(), autocast(place, dtype):
            for i, (images, beside) in enumerate(loader(steps)):
                check_time(deadline, f"{done:,} of {len(rows):,} images")
                mean = micro_batches.over(
                    images,
                    lambda part, more: predict_views(model, prepare(part), views, spec, more),
                    loader.let_go,
                    None if inputs.features is None else beside,
                )
                put()
                arrived = torch.cuda.Event() if place.type == "cuda" else None
                answer = mean.to("cpu", non_blocking=True)
                if arrived:
                    arrived.record()
                earlier = todo[i * n_at_once :][: len(images)], answer, arrived
                done += len(images)
                report(done=done, total=len(rows))
            put()
        n_each_second = len(todo) * len(views) / max(time.monotonic() - started, 1e-9)
        if not np.isfinite(probs.rows).all():
            probs.remove()
            raise CompError(f'{model_file}: its outputs are not finite; set precision = "fp32"')
        numbers = spec.numbers is not None
        save(path, Predictions(ids, spec.classes, np.array(probs.rows), numbers), stamp)
        probs.remove()
        what = "held-out" if path.name == "oof.npz" else "test"
        report(line=f"{len(ids):,} {what} images predicted, {n_each_second:,.0f} views/s")


def probabilities(logits: torch.Tensor, spec: models.ModelSpec | None = None) -> torch.Tensor:
    """Return a network's answers (B, C) in float32: a sigmoid per class, and a softmax per exclusive group;
    or numbers in the targets' unit."""
    logits = logits.float()
    if spec and spec.numbers:
        return spec.numbers.numbers(logits)
    probs = logits.sigmoid()
    for group in spec.groups if spec else ():
        columns = to_device(
            np.array(group, np.int64), logits.device
        )  # a list would make the CPU wait for a GPU
        probs.index_copy_(1, columns, logits.index_select(1, columns).softmax(1))
    return probs


def predict_views(
    model: nn.Module,
    x: torch.Tensor,
    views: Sequence[View],
    spec: models.ModelSpec | None = None,
    features: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the answers (B, C) for images (B, channels, H, W), and features (B, F) if the network takes
    them: the mean over views, all in one batch."""
    seen = torch.cat([view(x) for view in views]).contiguous(memory_format=torch.channels_last)
    logits = model(seen) if features is None else model(seen, features.repeat(len(views), 1))
    return probabilities(logits, spec).view(len(views), len(x), -1).mean(0)
