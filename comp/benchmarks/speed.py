"""`comp bench speed RECIPE`: images per second of decoding, cache, loader, augmentation, training and
prediction at each size of a recipe, compared with the bare training step: the same network on random numbers
in memory. One job uses all cores."""

import math
import os
import platform
import tempfile
from contextlib import suppress
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from comp.artifacts.files import write_json
from comp.artifacts.paths import bare_step_path, manifest_path
from comp.benchmarks.training_speed import Measured, measure_rate, measure_training
from comp.compute.devices import devices, n_cores, processor_name
from comp.config.recipe import Phase, Recipe
from comp.console import clock, info, table
from comp.data.decoding import decode
from comp.data.image_cache import build_caches, describe_caches
from comp.data.image_files import ImageSet, find_images
from comp.data.manifest import read_manifest
from comp.data.synthetic.scenes import render_scene
from comp.deadline import NEVER
from comp.errors import CompError

N_SYNTHETIC, N_IMAGES = 256, 4096  # synthetic images, and images in the cache


def run(recipe: Recipe, *, fastai: str | None) -> None:
    found = devices(1)
    device = found[0]
    place = device.activate()
    name = processor_name(place)
    cores = f"{os.cpu_count()} cores, {device.n_threads} per job"
    info(f"bench: {name}, {cores}; Python {platform.python_version()}")
    info(
        "bench: "
        + ", ".join(
            f"{p} {version(p)}" for p in ("torch", "timm", "albumentations", "opencv-python-headless")
        )
    )
    phases = tuple({phase.size: phase for phase in recipe.phases}.values())
    with tempfile.TemporaryDirectory(prefix="comp-bench-") as folder:
        images = _make_images(recipe, Path(folder))
        _measure_files(images, Path(folder), place)
        rates = {
            phase.size: measure_training(_measured(recipe, phase, images, Path(folder)), fastai)
            for phase in phases
        }
    at_once = len(devices(recipe.n_networks)) if place.type == "cpu" else 1
    steps = [(phase.size, phase.batch_size, rates[phase.size][2]) for phase in phases]
    about = {"backbone": recipe.backbone, "machine": name, "at_once": at_once, "rates": steps}
    write_json(bare_step_path(recipe.name), about)
    n_train, n_test, whose = _count_images(recipe)
    share = n_train * (recipe.n_folds - 1) / recipe.n_folds
    training = sum(phase.epochs * share / rates[phase.size][0] for phase in recipe.phases)
    predicting = (n_train / recipe.n_folds + n_test) / rates[recipe.phases[-1].size][1]
    rounds = math.ceil(recipe.n_folds / len(found))  # a GPU trains a fold at a time; here one uses all cores
    info(
        f"bench: {recipe.n_folds} folds of {n_train:,} training and {n_test:,} test images ({whose}): "
        f"{clock(rounds * training)} to train, {clock(rounds * predicting)} to predict at these rates"
    )


def _measured(recipe: Recipe, phase: Phase, images: ImageSet, folder: Path) -> Measured:
    size = phase.size
    cache = build_caches({"bench": (images, [size])}, folder / "cache", "", NEVER, size)["bench"][size]
    n_train, n_test, _ = _count_images(recipe)
    return Measured(recipe, phase, cache, images.paths, n_train, n_test)


def _count_images(recipe: Recipe) -> tuple[int, int, str]:
    """Return (training images, test images, the name of the competition that has them)."""
    competition = recipe.competition
    if manifest_path(competition.name).exists():
        data = read_manifest(competition)
        return len(data.labels(competition).ids), len(data.test_ids(competition)), competition.name
    return 40_479, 61_191, "as many as Planet's"


def _make_images(recipe: Recipe, folder: Path) -> ImageSet:
    """Return N_IMAGES images: repeated training images of the competition, or synthetic ones."""
    competition = recipe.competition
    if manifest_path(competition.name).exists():
        data = read_manifest(competition)
        found = data.images("train", data.labels(competition).ids, recipe.channels)
        info(f"bench: images of {competition.name}")
    else:
        (folder / "drawn").mkdir()
        for i in range(N_SYNTHETIC):
            image, _ = render_scene(np.random.default_rng(i), 256)
            for k, channel in enumerate(recipe.channels or [""]):
                one = image.getchannel(k % 3) if channel else image
                one.save(folder / "drawn" / f"{i}{channel}.jpg", quality=90)
        names = np.array([str(i) for i in range(N_SYNTHETIC)])
        pattern = "{id}{channel}.jpg" if recipe.channels else "{id}.jpg"
        found = find_images("train", names, [(folder / "drawn", pattern)], recipe.channels)
        info("bench: synthetic JPEG images of 256 px")
    rows = np.arange(N_IMAGES) % len(found.ids)
    ids = np.array([str(i) for i in range(N_IMAGES)])
    return replace(found, name="bench", ids=ids, paths=tuple(found.paths[i] for i in rows))


def _measure_files(images: ImageSet, folder: Path, place: torch.device) -> None:
    """Print the rates of decoding on one core, of building the cache on all, and on a GPU of building it with
    decode = "gpu" where that changes anything."""
    joined = bool(images.channels)
    some, rows = images.paths[:256], []
    for size in (64, 128, 256):

        def build(decode: str = "cpu", size: int = size) -> None:
            where = Path(tempfile.mkdtemp(dir=folder))
            build_caches({"bench": (images, [size])}, where, "", NEVER, size, decode=decode)

        def decode_some(size: int = size) -> None:
            for paths in some:
                decode(paths, joined=joined, bands=images.bands, max_size=size, limits=images.limits)

        one = measure_rate(decode_some, len(some))
        every = measure_rate(build, len(images.ids), 3)
        rows.append([f"{size} px", f"{one:,.0f}", f"{every:,.0f}", f"{every / one / n_cores():.2f}"])
        if place.type == "cuda":
            described = describe_caches({"bench": (images, [size])}, folder, "", size, decode="gpu")
            rate = ""
            with suppress(CompError):  # `comp check` says why
                if described["bench"].on_gpu:
                    rate = f"{measure_rate(partial(build, 'gpu'), len(images.ids), 3):,.0f}"
            rows[-1].append(rate)
    columns = ["images/s", "decoded on 1 core", f"cached on {n_cores()}", "of all cores"]
    table([*columns, *(["decoded on the GPU"] if place.type == "cuda" else [])], rows)
