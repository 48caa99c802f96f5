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
from comp.data.scaling import Limits
from comp.errors import CompError, summarize
from comp.evaluation.explanation import read_image
from comp.models import network as models
from comp.models.inference import predict_image


def finished_networks(recipe: Recipe) -> list[Path]:
    """Return the files of the run's finished networks. Raise CompError for a blend, and where there is
    none."""
    made = read_stamp(oof_path(recipe.name), BlendStamp) or {}
    if recipe.members or "how" in made:
        names = ", ".join([member.name for member in recipe.members] or made["members"])
        raise CompError(f"{recipe.name} is a blend of {names}; load the run of one of them")
    found = [path for fold in range(recipe.n_networks) if (path := model_path(recipe.name, fold)).exists()]
    if not found:
        raise CompError(f"{model_path(recipe.name, 0)} is not there; run `comp train` first")
    return found


def predict_images(
    recipe: Recipe, networks: Sequence[Path], images: Sequence[Any], limits: Limits | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return (N, C) float32 probabilities and the classes: the mean of these files' networks. Images are
    paths, or arrays (H, W, channels) uint8; `limits` are black and white of files with more than 8 bits.
    Raise CompError for what is no image."""
    if not len(images):
        raise CompError("no images; paths or arrays (H, W, channels) are expected")
    place = devices(1)[0].activate()
    pixels = [
        read_image(Path(image), recipe, limits)[2]
        if isinstance(image, (str, os.PathLike))
        else _pixels(image, recipe)
        for image in images
    ]
    classes: tuple[str, ...] = ()
    answers = []
    with progress("images", len(images) * len(networks)) as advance:
        for path in networks:
            model, spec = models.load(path, recipe.code)
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
    return [
        decode(paths, joined=bool(recipe.channels), bands=files.bands, limits=files.limits)
        for paths in files.paths
    ]


def _pixels(image: Any, recipe: Recipe) -> np.ndarray:
    """Return (side, side, channels) uint8 of an array, resized as in training."""
    array = np.asarray(image)
    n_channels = len(recipe.channels) or 3
    if array.ndim != 3 or array.shape[2] != n_channels or array.dtype != np.uint8 or not array.size:
        raise CompError(
            f"an image is {array.dtype} {array.shape}; uint8 (height, width, {n_channels}) is expected"
        )
    return as_cached(
        array, recipe.phases[-1].size, max_size=recipe.max_size, filter=recipe.filter, code=recipe.code
    )
