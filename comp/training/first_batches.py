"""What a network will see, before it trains: the first batch of each phase, and the test-time views of a
held-out image, made by the code that trains and predicts. Caches are read where they are there; else the
images of these batches alone are decoded."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from comp.artifacts.paths import cache_dir, folds_path
from comp.batches.sampling import Step
from comp.batches.tta import make_views
from comp.batches.view_names import view_names
from comp.compute.devices import split_evenly
from comp.compute.distributed import ProcessGroup
from comp.config.recipe import Phase, Recipe
from comp.data.corrections import correct
from comp.data.duplicates import with_duplicate_groups
from comp.data.few_images import original_size, read_rows
from comp.data.folds import assign_folds
from comp.data.image_cache import CachedSet, describe_caches
from comp.data.image_files import spread_indices
from comp.data.manifest import read_manifest
from comp.models.network import ModelSpec
from comp.training.extra_images import read_extras
from comp.training.fold_batches import FoldBatches
from comp.training.model_state import make_spec, measures_images
from comp.training.prepare import images_to_cache, join_caches
from comp.training.step import Feed
from comp.training.training_data import FoldInputs, TrainingData

MAX_SHOWN = 32  # images of a batch
N_MEASURED = 128  # images whose mean and deviation stand for all, before there are caches
DARK = 2  # the highest value, of 255, that counts as black
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Part:
    """An image's part of what is fed: its share of the pixels, and its targets (C,)."""

    share: float
    targets: np.ndarray


@dataclass(frozen=True)
class FedImage:
    """An image as the network gets it."""

    id: str
    pixels: np.ndarray  # (size, size, channels) uint8: the normalised values, turned back
    kind: str  # mixup, cutmix, or "" where it is not mixed
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class FirstBatch:
    """The first batch of a phase, and what is measured on all of its B images."""

    number: int  # of the phase
    phase: Phase
    shown: list[FedImage]  # MAX_SHOWN at most, spread over the batch
    targets: np.ndarray  # (B, C) of the images themselves, before they are mixed
    shares: np.ndarray  # (B,) of each image's own pixels; 1 where nothing is mixed
    mean: np.ndarray  # (channels,) after normalising
    std: np.ndarray  # (channels,)
    black: float  # share of the loaded pixels that are black in all channels
    n_blank: int  # loaded images of one value
    files: list[tuple[int, int]]  # (B,) width and height of the original files
    side: int  # of the cached images, in pixels


@dataclass(frozen=True)
class Views:
    """A held-out image as the test-time views show it."""

    id: str
    names: tuple[str, ...]
    pixels: np.ndarray  # (V, size, size, channels) uint8


@dataclass(frozen=True)
class FirstBatches:
    recipe: Recipe
    fold: int
    classes: tuple[str, ...]
    expected: np.ndarray  # (C,) the mean target of an epoch's images, oversampling counted
    batches: list[FirstBatch]
    views: Views
    n_measured: int  # images whose mean and deviation normalise; 0: the backbone's, or each image's own
    n_train: int


def read_first_batches(recipe: Recipe, fold: int) -> FirstBatches:
    """Return the first batch of each phase of a fold's network. Folds that aren't made yet are those that
    `comp folds` will make. Raise CompError where the competition was not downloaded, or a file is missing."""
    training = _read_data(recipe, fold)
    inputs = training.fold_inputs(fold, {}, {})
    full = FoldBatches(inputs, CPU, 0, ProcessGroup())
    begins = np.cumsum([0, *(phase.epochs for phase in recipe.phases)]).tolist()  # epochs
    steps = [full.steps(phase, epoch)[0] for phase, epoch in zip(recipe.phases, begins)]
    viewed = int(inputs.valid_rows[0] if len(inputs.valid_rows) else inputs.train_rows[0])
    extras = training.extras[fold]
    needed = images_to_cache(recipe, training.data, training.labels, extras)
    where = cache_dir(recipe.competition.name)
    sets = describe_caches(
        needed,
        where,
        training.data.fingerprint,
        recipe.max_size,
        recipe.filter,
        recipe.code,
        recipe.decode,
    )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        rows = np.arange(len(inputs.labels.ids))
        if any(part.absent() for part in sets.values()):
            measured = inputs.train_rows if measures_images(recipe) else inputs.train_rows[:0]
            some = measured[spread_indices(len(measured), N_MEASURED)] if len(measured) else measured
            rows = np.unique(np.concatenate([*(asked for _, asked in steps), [viewed], some, _starts(sets)]))
            paths = _save_rows(sets, rows, recipe, Path(folder))
        else:
            paths = {name: part.by_size() for name, part in sets.items()}
        few = replace(_of_rows(inputs, rows), caches=join_caches(recipe, extras, paths))
        spec, batches = make_spec(few), FoldBatches(few, CPU, 0, ProcessGroup())
        found = [
            _first_batch(batches, spec, number, (seed, np.searchsorted(rows, asked)), _files(sets, asked))
            for number, (seed, asked) in enumerate(steps)
        ]
        views = _views(batches, spec, int(np.searchsorted(rows, viewed)))
    n_measured = len(few.train_rows) if measures_images(recipe) else 0
    return FirstBatches(
        recipe, fold, inputs.labels.classes, _mean_targets(full), found, views, n_measured,
        len(inputs.train_rows),
    )  # fmt: skip


def _mean_targets(batches: FoldBatches) -> np.ndarray:
    """Return (C,) the mean of the known targets of an epoch's images."""
    targets, repeats = batches.inputs.labels.targets[batches.train_rows], batches.repeats
    weights = np.ones(len(targets), np.float32) if repeats is None else repeats.astype(np.float32)
    if targets.dtype.kind != "f":
        return weights @ targets / weights.sum()
    return (weights @ np.nan_to_num(targets)) / np.maximum(weights @ ~np.isnan(targets), 1e-9)


def _read_data(recipe: Recipe, fold: int) -> TrainingData:
    if folds_path(recipe.competition.name, recipe.n_folds, recipe.seed).exists():
        return TrainingData.read(recipe, [fold])
    data = read_manifest(recipe.competition)
    labels = data.labels(recipe.competition)
    grouped = with_duplicate_groups(labels, recipe.competition.name, data.fingerprint)
    fold_of = assign_folds(grouped, recipe.n_folds, recipe.seed)
    extras = read_extras(recipe, [fold], data, labels, fold_of)
    return TrainingData(recipe, data, labels, correct(labels, recipe.competition), fold_of, extras)


def _save_rows(
    sets: Mapping[str, CachedSet], rows: np.ndarray, recipe: Recipe, folder: Path
) -> dict[str, dict[int, Path]]:
    """Write these rows of the sets, which follow each other, as the caches will have them. Return the files
    by set and by size of the phases."""
    paths = {}
    for (name, part), start in zip(sets.items(), _starts(sets)):
        mine = rows[(rows >= start) & (rows < start + len(part.images.ids))] - start
        for side, images in read_rows(part, mine, recipe.max_size).items():
            np.save(folder / f"{name}-{side}.npy", images)
        paths[name] = {size: folder / f"{name}-{side}.npy" for size, side in part.sides.items()}
    return paths


def _starts(sets: Mapping[str, CachedSet]) -> list[int]:
    """Return the first row of each set, as they follow each other."""
    return np.cumsum([0, *(len(part.images.ids) for part in sets.values())])[:-1].tolist()


def _files(sets: Mapping[str, CachedSet], rows: np.ndarray) -> list[tuple[int, int]]:
    """Return (B,) width and height of the files of these rows."""
    parts, starts = list(sets.values()), _starts(sets)
    of = np.searchsorted(starts, rows, side="right") - 1
    return [original_size(parts[k].images, row - starts[k]) for k, row in zip(of.tolist(), rows.tolist())]


def _of_rows(inputs: FoldInputs, rows: np.ndarray) -> FoldInputs:
    labels = inputs.labels
    weights, features = (None if a is None else a[rows] for a in (labels.weights, labels.features))
    few = replace(
        labels, ids=labels.ids[rows], targets=labels.targets[rows], fold_groups=None, answer_ids=None,
        weights=weights, features=features,
    )  # fmt: skip
    return replace(inputs, labels=few, fold_of=inputs.fold_of[rows])


def _first_batch(
    batches: FoldBatches, spec: ModelSpec, number: int, step: Step, files: list[tuple[int, int]]
) -> FirstBatch:
    """Return what the first step of a phase gets. Each micro-batch is mixed within itself, as in training."""
    recipe, labels = batches.inputs.recipe, batches.inputs.labels
    phase, rows = recipe.phases[number], step[1]
    feed = Feed.of(recipe, phase, spec, batches.ranks, CPU)
    images, beside = next(iter(batches.training(phase, [step])))
    drawn = next(feed.draw([step]))
    targets, n = labels.targets[rows], len(rows)
    chosen = set(spread_indices(n, MAX_SHOWN))
    shown, shares, n_pixels = [], np.ones(n), 0
    sums, squares = torch.zeros(2, spec.n_channels, dtype=torch.float64)
    for k, part in enumerate(split_evenly(n, phase.accumulate)):
        draws, seed = drawn.augment[part] if drawn.augment else None, drawn.seed + k
        x, _ = feed(images[part], beside[part], draws, seed)
        mix = feed.mixed.draw(len(x), x.shape[2], x.shape[3], seed)
        if mix:
            shares[part] = mix.shares[:, 0]
        sums = sums + x.sum((0, 2, 3), dtype=torch.float64)
        squares = squares + x.square().sum((0, 2, 3), dtype=torch.float64)
        n_pixels += x[:, 0].numel()
        for i in sorted(chosen & set(range(part.start, part.stop))):
            own, other = i - part.start, part.stop - 1 - i + part.start
            parts = [Part(float(shares[i]), targets[i])]
            parts += [Part(1 - float(shares[i]), targets[other])] if mix else []
            pixels = _to_pixels(x[own : own + 1], spec)[0]
            shown.append(FedImage(str(labels.ids[rows[i]]), pixels, mix.kind if mix else "", tuple(parts)))
    mean = sums / n_pixels
    loaded = images.numpy()
    flat = loaded.reshape(n, -1)
    return FirstBatch(
        number, phase, shown, targets, shares, mean.numpy(),
        (squares / n_pixels - mean.square()).clamp(min=0).sqrt().numpy(),
        float((loaded.max(-1) <= DARK).mean()), int((flat.max(1).astype(int) - flat.min(1) <= DARK).sum()),
        files, images.shape[1],
    )  # fmt: skip


def _views(batches: FoldBatches, spec: ModelSpec, row: int) -> Views:
    recipe = batches.inputs.recipe
    feed = Feed.of(recipe, recipe.phases[-1], spec, batches.ranks, CPU)
    x = feed.prepare(next(iter(batches.held_out(recipe.phases[-1], np.array([row]))))[0])
    seen = torch.cat([view(x) for view in make_views(recipe.views, recipe.code)])
    return Views(str(batches.inputs.labels.ids[row]), view_names(recipe.views), _to_pixels(seen, spec))


def _to_pixels(x: torch.Tensor, spec: ModelSpec) -> np.ndarray:
    """Return (B, size, size, channels) uint8 of normalised images (B, channels, size, size). Where each image
    is normalised by its own mean and deviation, two deviations to either side are shown."""
    mean, std = torch.tensor(spec.mean or (0.5,)), torch.tensor(spec.std or (0.25,))
    values = x * std.view(1, -1, 1, 1) + mean.view(1, -1, 1, 1)
    return (values * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
