"""Images per second of training and prediction at one size, beside the bare training step."""

import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from comp.batches.augmentation import BatchAugmentation, training_transform
from comp.batches.loader import CachedDataset, DeviceLoader, fits
from comp.batches.preprocessing import Preprocess
from comp.batches.sampling import ordered_steps
from comp.batches.tta import make_views
from comp.batches.view_names import view_names
from comp.benchmarks.bare_step import busy_share, make_bare_step, synchronize
from comp.compute.devices import Device, devices, is_out_of_memory, memory_in_use
from comp.config.competition import LabelTable
from comp.config.recipe import Phase, Recipe
from comp.console import info, size_text, table
from comp.data.folds import UNUSED
from comp.data.image_files import open_cache
from comp.data.labels import Labels, exclusive_groups
from comp.deadline import NEVER
from comp.errors import CompError
from comp.models.inference import predict_views
from comp.models.precision import autocast, choose_precision
from comp.training.trainer import Trainer
from comp.training.training_data import FoldInputs

N_ROUNDS = 5  # per measurement; medians are printed
N_BLOCKS = 3  # of turns, with a round of fastai after each
BLOCK_SECONDS = 30.0  # approximate length of a block: the shares of single turns lie several per cent apart
ROUND_SECONDS = 1.0  # approximate length of one round of training: a machine's speed changes within seconds
N_CLASSES = 17  # if the competition does not list its classes
LARGER_BATCH = 4  # times the batch: what the GPU could do with fewer launches per image
IDLE = 0.8  # a GPU that works for less of the time waits for something
Paths = tuple[tuple[Path, ...], ...]
FASTAI_SCRIPT = Path(__file__).with_name("fastai_speed.py")
BARE, WHOLE, LARGER = "bare training step", "whole training", f"bare step, batch × {LARGER_BATCH}"
LOADER, ON_DEVICE = "loader: batches read from the cache", "augmentation on the device"
ON_CPU = "augmentation by albumentations"


@dataclass(frozen=True)
class Measured:
    """What is measured at one size."""

    recipe: Recipe
    phase: Phase
    cache: Path  # of the images
    files: Paths  # of the same images
    n_train: int  # images of the competition, which decide whether a GPU keeps them
    n_test: int

    def resident(self, n: int, place: torch.device) -> bool:
        """Return whether the device would keep n images."""
        return fits(n * open_cache(self.cache)[:1].nbytes, place)


def measure_rate(work: Callable[[], Any], n: int, rounds: int = N_ROUNDS) -> float:
    """Return the median rate of `work`, which processes `n` items, after one warm-up call."""
    work()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return n / float(np.median(seconds))


def take_turns(works: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Return the rates that each work returns. They alternate, so that a slower machine affects all alike."""
    rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            rates[name].append(work())
    return rates


def make_inputs(recipe: Recipe, phase: Phase, cache: Path, labels: Labels, n_train: int) -> FoldInputs:
    """Return the inputs of a training of one phase, without pretrained weights. A batch is held out."""
    only = recipe.model_copy(update={"phases": (phase,), "pretrained": False, "swa_epochs": 0})
    fold_of = np.full(len(labels.ids), UNUSED)
    n_valid = phase.batch_size
    fold_of[:n_valid], fold_of[n_valid : n_valid + n_train] = 0, 1
    return FoldInputs(only, 0, labels, fold_of, {phase.size: (cache,)}, {})


def endless(phase: Phase) -> Phase:
    """Return a phase of many epochs of the whole network."""
    return phase.model_copy(update={"epochs": 10_000, "head_epochs": 0})


def epoch_of(trainer: Trainer) -> Callable[[], float]:
    """Return a function that trains an epoch and returns images per second, without validation."""

    def epoch() -> float:
        trainer.epoch(lambda **_: None, NEVER)
        return trainer.history[-1]["images_per_second"]

    return epoch


def measure_training(measured: Measured, fastai: str | None) -> tuple[float, float, float]:
    """Print the table of one size; return images per second of whole training, of prediction and of the bare
    step."""
    device, recipe, phase = devices(1)[0], measured.recipe, measured.phase
    place = torch.device(device.name)
    size, batch = phase.size, phase.batch_size
    labels = make_labels(recipe.competition.labels, len(open_cache(measured.cache)))
    bare = make_bare_step(recipe, phase, place, len(labels.classes))
    bare(1)
    first = bare(2)
    n_steps = int(np.clip(ROUND_SECONDS * first / batch, 2, (len(labels.ids) - batch) // batch))
    inputs = make_inputs(recipe, endless(phase), measured.cache, labels, n_steps * batch)
    trainer = Trainer(inputs, place, device.n_loaders)
    trainer.batches.resident = recipe.augment_on == "device" and measured.resident(measured.n_train, place)
    epoch = epoch_of(trainer)
    start_up = time.perf_counter()
    epoch()
    start_up = time.perf_counter() - start_up
    others = {}
    if fastai:
        some = measured.files[: N_BLOCKS * n_steps * batch]
        others["fastai, whole training"] = lambda: _measure_fastai(
            fastai, some, recipe, phase, device.n_threads
        )
    n_turns = max(1, round(BLOCK_SECONDS * first / (2 * n_steps * batch)))  # of bare step and training
    rates: dict[str, list[float]] = {}
    for _ in range(N_BLOCKS):
        block = take_turns({BARE: lambda: bare(n_steps), WHOLE: epoch}, n_turns) | take_turns(others, 1)
        for name, found in block.items():
            rates.setdefault(name, []).extend(found)
    share = float(np.median(np.divide(rates[WHOLE], rates[BARE])))
    medians = {name: float(np.median(of)) for name, of in rates.items()}
    step = medians[BARE]
    paths = {
        LOADER: _measure_loader(measured.cache, labels, device, batch, trainer.batches.resident),
        ON_DEVICE: _measure_augmentation(recipe, phase, measured.cache, place),
        ON_CPU: _measure_albumentations(recipe, measured.cache),
    }
    rate = measure_prediction(measured, trainer, place, device.n_loaders, N_BLOCKS * ROUND_SECONDS * step)
    shares = {WHOLE: 1 / share}
    rows = [
        [name, f"{of:,.0f}", f"{shares.get(name, step / of):.1%}"] for name, of in (paths | medians).items()
    ]
    rows.append([f"prediction, {len(view_names(recipe.views))} views per image", f"{rate:,.0f}", ""])
    busy = None
    if place.type == "cuda":
        busy = busy_share(epoch, place)
        rows += _gpu_rows(measured, len(labels.classes), place, step, n_steps, busy)
    table([f"{recipe.backbone} at {size} px", "images/s", "time of a bare step"], rows)
    mine = {name: paths[name] for name in (ON_DEVICE if recipe.augment_on == "device" else ON_CPU, LOADER)}
    info(
        f"bench: {size} px: training reaches {share:.0%} of the bare step; the bottleneck is "
        f"{name_bottleneck(share, medians[WHOLE], mine, busy)}. First epoch {start_up:.1f} s, "
        f"memory {size_text(memory_in_use(place))}"
    )
    return medians[WHOLE], rate, step


def name_bottleneck(share: float, whole: float, paths: Mapping[str, float], busy: float | None) -> str:
    """Return what bounds training. `share`: of the bare step; `whole`, and by name `paths`: images per second
    of training, and of what comes before the step; `busy`: the share of time in which a GPU works.

    A GPU that idles although images come fast enough waits for the CPU, which starts its kernels."""
    slowest = min(paths, key=lambda name: paths[name])
    if busy is not None and busy < IDLE and paths[slowest] > 2 * whole:
        return "the CPU's launches"
    return "the network itself" if share >= 0.9 else slowest.split(":")[0]


def _gpu_rows(
    measured: Measured, n_classes: int, place: torch.device, step: float, n_steps: int, busy: float | None
) -> list[list[str]]:
    """Return rows about what the GPU could do: how busy it is, and the bare step with a larger batch."""
    rows = [["the GPU works, of the time of training", "" if busy is None else f"{busy:.0%}", ""]]
    phase = measured.phase
    larger = phase.model_copy(update={"batch_size": LARGER_BATCH * phase.batch_size})
    try:
        bare = make_bare_step(measured.recipe, larger, place, n_classes)
        bare(2)
        rate = bare(max(2, n_steps // LARGER_BATCH))
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return [*rows, [LARGER, "out of memory", ""]]
    return [*rows, [LARGER, f"{rate:,.0f}", f"{step / rate:.1%}"]]


def make_labels(table: LabelTable, n: int) -> Labels:
    """Return random labels of n images with the competition's classes and one label per exclusive group."""
    grouped = [name for group in table.exclusive for name in group]
    others = [f"c{i}" for i in range(N_CLASSES - len(grouped))]
    classes = table.classes or tuple(dict.fromkeys([*grouped, *others]))
    rng = np.random.default_rng(0)
    targets = (rng.random((n, len(classes))) < 0.2).astype(np.uint8)
    for group in exclusive_groups(table, classes):
        targets[:, group] = np.eye(len(group), dtype=np.uint8)[rng.integers(len(group), size=n)]
    return Labels(np.array([str(i) for i in range(n)]), classes, targets)


def _measure_loader(cache: Path, labels: Labels, device: Device, batch: int, resident: bool | None) -> float:
    dataset = CachedDataset([cache], labels.targets)
    loader = DeviceLoader(dataset, torch.device(device.name), device.n_loaders, resident=resident)
    order = np.random.default_rng(0).permutation(len(labels.ids))

    def read() -> None:
        deque(loader(ordered_steps(order, batch)), maxlen=0)
        synchronize(torch.device(device.name))

    return measure_rate(read, len(order))


def _measure_augmentation(recipe: Recipe, phase: Phase, cache: Path, place: torch.device) -> float:
    images = torch.from_numpy(np.load(cache, mmap_mode="r")[: phase.batch_size].copy()).to(place)
    n = images.shape[-1]
    augment = BatchAugmentation(recipe.augment, n)
    prepare = Preprocess((0.5,) * n, (0.5,) * n, phase.size, augment).to(place)

    def work() -> None:
        for seed in range(10):
            prepare(images, augment.draw(len(images), seed))
        synchronize(place)

    return measure_rate(work, 10 * len(images))


def _measure_albumentations(recipe: Recipe, cache: Path) -> float:
    transform, images = (
        training_transform(recipe.augment, recipe.code),
        np.load(cache, mmap_mode="r")[:64].copy(),
    )
    return measure_rate(lambda: transform(images, 0), len(images))


def measure_prediction(
    measured: Measured, trainer: Trainer, place: torch.device, n_loaders: int, n_forward: float
) -> float:
    recipe, phase = measured.recipe, measured.phase
    views = make_views(recipe.views, recipe.code)
    state = trainer.state
    model, dtype = state.averages.averaged.eval(), choose_precision(recipe.precision, place, state.model)
    prepare = Preprocess(state.spec.mean, state.spec.std, phase.size).to(place)
    resident = measured.resident(measured.n_test, place)
    loader = DeviceLoader(CachedDataset([measured.cache], None), place, n_loaders, resident=resident)
    rows = np.arange(
        int(np.clip(n_forward * 2 / len(views), 32, len(trainer.inputs.labels.ids)))
    )  # as long as a round

    def predict() -> None:
        with torch.inference_mode(), autocast(place, dtype):
            for images, _ in loader(ordered_steps(rows, max(1, recipe.predict_batch_size // len(views)))):
                predict_views(model, prepare(images), views)
        synchronize(place)

    return measure_rate(predict, len(rows), 3)


def _measure_fastai(python: str, paths: Paths, recipe: Recipe, phase: Phase, n_threads: int) -> float:
    """Return the images per second of fastai's training on the same files, in another environment."""
    settings = (recipe.backbone, phase.size, phase.batch_size, n_threads)
    answer = subprocess.run(
        [python, str(FASTAI_SCRIPT), *map(str, settings)],
        input="\n".join(str(files[0].resolve()) for files in paths), capture_output=True, text=True,
    )  # fmt: skip
    if answer.returncode:
        raise CompError(f"{python} can't run fastai: {answer.stderr.strip().splitlines()[-1]}")
    return float(answer.stdout.split()[-1])
