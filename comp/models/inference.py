"""Probabilities of a set of images or of one, averaged over test-time views."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from comp.artifacts.predictions import Predictions, save
from comp.artifacts.resumable import GrowingArray, prediction_files
from comp.artifacts.stamps import plain, read_stamp
from comp.batches.loader import CacheBatches, Loader
from comp.batches.preprocessing import Input
from comp.batches.sampling import in_order
from comp.batches.tta import VIEWS, View, view_names
from comp.compute.devices import Device, Parts
from comp.compute.jobs import Report
from comp.config.recipe import Recipe
from comp.deadline import check_time
from comp.errors import CompError
from comp.models import network as models
from comp.models.precision import autocast, precision_of


def predict_image(
    recipe: Recipe, model: nn.Module, spec: models.ModelSpec, image: np.ndarray, place: torch.device
) -> np.ndarray:
    """(C,) probabilities of one image (side, side, channels) uint8, averaged over the recipe's views."""
    model.to(place, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    prepare = Input(spec.mean, spec.std, spec.size).to(place)
    dtype = precision_of(recipe.precision, place, model)
    views = [VIEWS[view] for view in view_names(recipe.views)]
    with torch.inference_mode(), autocast(place, dtype):
        x = prepare(torch.from_numpy(np.array(image[None])).to(place))
        return of_views(model, x, views, spec.groups)[0].cpu().numpy()


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
        prepare = Input(spec.mean, spec.std, spec.size).to(place)
        dtype = precision_of(recipe.precision, place, model)
        views = [VIEWS[view] for view in view_names(recipe.views)]
        probs = GrowingArray(path.with_suffix(".npy"), (len(rows), len(spec.classes)), "float32", stamp)
        todo = probs.missing()
        n_at_once = max(1, recipe.predict_batch_size // len(views))  # all views of so many images at once
        fitting = Parts()
        loader = Loader(CacheBatches([cache], None), place, device.n_loaders)
        steps = in_order(rows[todo], n_at_once)
        done, started = len(rows) - len(todo), time.monotonic()
        earlier: tuple[np.ndarray, torch.Tensor, torch.cuda.Event | None] | None = None

        def put() -> None:
            """Keep what was on its way from a GPU while the batch after it was started."""
            if earlier:
                if earlier[2]:
                    earlier[2].synchronize()
                probs.put(earlier[0], earlier[1].numpy())

        with torch.inference_mode(), autocast(place, dtype):
            for i, (images, _) in enumerate(loader(steps)):
                check_time(deadline, f"{done:,} of {len(rows):,} images")
                mean = fitting(lambda part: of_views(model, prepare(part), views, spec.groups), images)
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
            raise CompError(f'{model_file} gives numbers that are not finite; set precision = "fp32"')
        save(path, Predictions(ids, spec.classes, np.array(probs.rows)), stamp)
        probs.remove()
        what = "held-out" if path.name == "oof.npz" else "test"
        report(line=f"{len(ids):,} {what} images predicted, {n_each_second:,.0f} views/s")


def probabilities(logits: torch.Tensor, groups: Sequence[Sequence[int]]) -> torch.Tensor:
    """(B, C) in float32: a sigmoid each, and one softmax for each of the groups."""
    logits = logits.float()
    probs = logits.sigmoid()
    for group in groups:
        probs[:, list(group)] = logits[:, list(group)].softmax(1)
    return probs


def of_views(
    model: nn.Module, x: torch.Tensor, views: Sequence[View], groups: Sequence[Sequence[int]] = ()
) -> torch.Tensor:
    """(B, C) probabilities of images (B, channels, H, W), the mean over their views, all in one batch."""
    seen = torch.cat([view(x) for view in views]).contiguous(memory_format=torch.channels_last)
    return probabilities(model(seen), groups).view(len(views), len(x), -1).mean(0)
