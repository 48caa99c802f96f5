"""Images in memory and on disk: decoded as in training, and predicted by a run's networks."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.paths import model_path, oof_path
from comp.artifacts.predictions import mean_of_folds
from comp.artifacts.schemas import BlendStamp
from comp.artifacts.stamps import read_stamp
from comp.compute.devices import devices
from comp.config.recipe import Recipe
from comp.console import progress
from comp.data.decoding import decode
from comp.data.image_cache import as_cached
from comp.data.manifest import read_manifest
from comp.errors import CompError, summarize
from comp.evaluation.explanation import read_image
from comp.models import network as models
from comp.models.inference import predict_image
from comp.training.model_stamp import limits_of_model


def predict_images(recipe: Recipe, images: Sequence[Any]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return (N, C) float32 probabilities and the classes: the mean of the run's finished networks. Images
    are paths, or arrays (H, W, channels) uint8. Raise CompError for a blend, no images, or what is no
    image."""
    made = read_stamp(oof_path(recipe.name), BlendStamp) or {}
    if recipe.members or "how" in made:
        names = ", ".join([member.name for member in recipe.members] or made["members"])
        raise CompError(f"{recipe.name} is a blend of {names}; only the runs of one of them has networks")
    paths = [path for fold in range(recipe.n_networks) if (path := model_path(recipe.name, fold)).exists()]
    if not paths:
        raise CompError(f"{model_path(recipe.name, 0)} is not there; run `comp train` first")
    if not len(images):
        raise CompError("no images; paths or arrays (H, W, channels) are expected")
    limits, place = limits_of_model(paths[0]), devices(1)[0].activate()
    pixels = [
        read_image(Path(image), recipe, limits)[2]
        if isinstance(image, (str, os.PathLike))
        else _pixels(image, recipe)
        for image in images
    ]
    classes: tuple[str, ...] = ()
    answers = []
    with progress("images", len(images) * len(paths)) as advance:
        for path in paths:
            model, spec = models.load(path)
            classes, found = spec.classes, []
            for one in pixels:
                found.append(predict_image(recipe, model, spec, one, place))
                advance(1)
            answers.append(np.array(found))
    return mean_of_folds(answers), classes


def training_images(recipe: Recipe, ids: Sequence[str]) -> list[np.ndarray]:
    """Return (H, W, channels) uint8 of each of these training images. Raise CompError for unknown ids."""
    data = read_manifest(recipe.competition)
    known = set(data.labels(recipe.competition).ids.tolist())
    if unknown := [name for name in ids if name not in known]:
        raise CompError(f"no training images {summarize(unknown)}; Run.targets lists them all")
    files = data.images("train", np.array(ids, str), recipe.channels)
    return [decode(paths, joined=bool(recipe.channels), limits=files.limits) for paths in files.paths]


def _pixels(image: Any, recipe: Recipe) -> np.ndarray:
    """Return (side, side, channels) uint8 of an array, resized as in training."""
    array = np.asarray(image)
    n_channels = len(recipe.channels) or 3
    if array.ndim != 3 or array.shape[2] != n_channels or array.dtype != np.uint8 or not array.size:
        raise CompError(
            f"an image is {array.dtype} {array.shape}; uint8 (height, width, {n_channels}) is expected"
        )
    return as_cached(array, recipe.phases[-1].size, max_size=recipe.max_size, filter=recipe.filter)
