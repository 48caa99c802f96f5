"""`comp bench speed RECIPE`: images per second of decoding, cache, loader, augmentation, training and
prediction at each size of a recipe, compared with the bare training step: the same network on random numbers
in memory. One job uses all cores."""

import os
import platform
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from comp.artifacts.paths import manifest_path
from comp.batches.augmentation import BatchAugmentation, training_transform
from comp.batches.loader import CachedDataset, DeviceLoader, fits
from comp.batches.preprocessing import Preprocess
from comp.batches.sampling import ordered_steps
from comp.batches.tta import VIEWS, view_names
from comp.benchmarks.bare_step import make_bare_step, synchronize
from comp.compute.devices import devices, memory_in_use, n_cores
from comp.config.competition import LabelTable
from comp.config.recipe import Phase, Recipe
from comp.console import clock, info, size_text, table
from comp.data.decoding import decode
from comp.data.folds import UNUSED
from comp.data.image_cache import build_caches
from comp.data.image_files import ImageSet, find_images
from comp.data.labels import Labels, exclusive_groups
from comp.data.manifest import read_manifest
from comp.data.synthetic.scenes import render_scene
from comp.deadline import NEVER
from comp.errors import CompError
from comp.models.inference import predict_views
from comp.models.precision import autocast, choose_precision
from comp.training.prepare import FoldInputs
from comp.training.trainer import Trainer

N_ROUNDS = 5  # per measurement; medians are printed
ROUND_SECONDS = 3.0  # approximate length of one round of training
N_SYNTHETIC, N_IMAGES = 256, 4096  # synthetic images, and images in the cache
N_CLASSES = 17  # if the competition does not list its classes
Paths = tuple[tuple[Path, ...], ...]
FASTAI_SCRIPT = Path(__file__).with_name("fastai_speed.py")


def run(recipe: Recipe, *, fastai: str | None) -> None:
    device = devices(1)[0]
    place = device.activate()
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else _cpu_name()
    cores = f"{os.cpu_count()} cores, {device.n_threads} per job"
    info(f"bench: {name}, {cores}; Python {platform.python_version()}")
    info(
        "bench: "
        + ", ".join(
            f"{p} {version(p)}" for p in ("torch", "timm", "albumentations", "opencv-python-headless")
        )
    )
    with tempfile.TemporaryDirectory(prefix="comp-bench-") as folder:
        images = _make_images(recipe, Path(folder))
        _measure_files(images, Path(folder))
        rates = {
            phase.size: _measure_training(recipe, phase, images, Path(folder), fastai)
            for phase in {phase.size: phase for phase in recipe.phases}.values()
        }
    n_train, n_test, whose = _count_images(recipe)
    share = n_train * (recipe.n_folds - 1) / recipe.n_folds
    training = recipe.n_folds * sum(phase.epochs * share / rates[phase.size][0] for phase in recipe.phases)
    predicting = (n_train + recipe.n_folds * n_test) / rates[recipe.phases[-1].size][1]
    at_once = max(1, torch.cuda.device_count())
    info(
        f"bench: {recipe.n_folds} folds of {n_train:,} training and {n_test:,} test images ({whose}): "
        f"{clock(training / at_once)} to train, {clock(predicting / at_once)} to predict at these rates"
    )


def _count_images(recipe: Recipe) -> tuple[int, int, str]:
    """Return (training images, test images, the name of the competition that has them)."""
    competition = recipe.competition
    if manifest_path(competition.name).exists():
        data = read_manifest(competition)
        return len(data.labels(competition).ids), len(data.sample_ids(competition)), competition.name
    return 40_479, 61_191, "as many as Planet's"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.machine())


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
        found = find_images("train", names, [(folder / "drawn", "{id}{channel}.jpg")], recipe.channels)
        info("bench: synthetic JPEG images of 256 px")
    rows = np.arange(N_IMAGES) % len(found.ids)
    ids = np.array([str(i) for i in range(N_IMAGES)])
    return ImageSet("bench", ids, tuple(found.paths[i] for i in rows), found.channels, found.limits)


def measure_rate(work: Callable[[], Any], n: int, rounds: int = N_ROUNDS) -> float:
    """Return the median rate of `work`, which processes `n` items, after one warm-up call."""
    work()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return n / float(np.median(seconds))


def _measure_files(images: ImageSet, folder: Path) -> None:
    """Print the rates of decoding on one core and of building the cache on all."""
    joined = bool(images.channels)
    some, rows = images.paths[:256], []
    for size in (64, 128, 256):

        def build(size: int = size) -> None:
            where = Path(tempfile.mkdtemp(dir=folder))
            build_caches({"bench": (images, [size])}, where, "", NEVER, size)

        def decode_some(size: int = size) -> None:
            for paths in some:
                decode(paths, joined=joined, max_size=size, limits=images.limits)

        one = measure_rate(decode_some, len(some))
        every = measure_rate(build, len(images.ids), 3)
        rows.append([f"{size} px", f"{one:,.0f}", f"{every:,.0f}", f"{every / one / n_cores():.2f}"])
    table(["images/s", "decoded on 1 core", f"cached on {n_cores()}", "of all cores"], rows)


def _measure_training(
    recipe: Recipe, phase: Phase, images: ImageSet, folder: Path, fastai: str | None
) -> tuple[float, float]:
    """Print the table of one size; return images per second of whole training and of prediction."""
    device = devices(1)[0]
    place = torch.device(device.name)
    size, batch = phase.size, phase.batch_size
    cache = build_caches({"bench": (images, [size])}, folder / "cache", "", NEVER, size)["bench"][size]
    n = len(images.ids)
    labels = make_labels(recipe.competition.labels, n)
    n_valid = batch

    def trainer_of(n_train: int) -> Trainer:
        only = recipe.model_copy(
            update={
                "phases": (phase.model_copy(update={"epochs": 10_000, "head_epochs": 0}),),
                "pretrained": False,
            }
        )
        fold_of = np.full(n, UNUSED)
        fold_of[:n_valid], fold_of[n_valid : n_valid + n_train] = 0, 1
        inputs = FoldInputs(only, 0, labels, fold_of, {size: (cache,)}, {})
        trainer = Trainer(inputs, place, device.n_loaders)
        n_bytes = size * size * images.n_channels * _count_images(recipe)[0]
        trainer.batches.resident = recipe.augment_on == "device" and fits(n_bytes, place)
        return trainer

    bare = make_bare_step(recipe, phase, place, len(labels.classes))
    bare(1)
    first = bare(2)
    n_steps = int(np.clip(ROUND_SECONDS * first / batch, 2, (n - n_valid) // batch))
    trainer = trainer_of(n_steps * batch)
    start_up = time.perf_counter()
    trainer.epoch(_ignore, NEVER)
    start_up = time.perf_counter() - start_up
    shares, whole, alone, others = [], [], [], []
    for _ in range(
        N_ROUNDS if first > batch / ROUND_SECONDS else 2
    ):  # alternate, so that a slower machine affects all measurements alike
        alone.append(bare(n_steps))
        trainer.epoch(_ignore, NEVER)
        whole.append(trainer.history[-1]["images_per_second"])
        shares.append(whole[-1] / alone[-1])
        if fastai:
            others.append(
                _measure_fastai(fastai, images.paths[: n_steps * batch], recipe, phase, device.n_threads)
            )
    step = float(np.median(alone))
    paths = {
        "loader: batches read from the cache": _measure_loader(
            cache, labels, device, batch, trainer.batches.resident
        ),
        "augmentation on the device": _measure_augmentation(recipe, phase, cache, place),
        "augmentation by albumentations": _measure_albumentations(recipe, cache),
    }
    rows = [[name, f"{rate:,.0f}", f"{step / rate:.1%}"] for name, rate in paths.items()]
    rows.append(["bare training step", f"{step:,.0f}", "100.0%"])
    rows.append(["whole training", f"{np.median(whole):,.0f}", f"{1 / np.median(shares):.1%}"])
    if fastai:
        rows.append(
            ["fastai, whole training", f"{np.median(others):,.0f}", f"{step / np.median(others):.1%}"]
        )
    rate = _measure_prediction(recipe, trainer, cache, phase, place, device.n_loaders, ROUND_SECONDS * step)
    rows.append([f"prediction, {len(view_names(recipe.views))} views per image", f"{rate:,.0f}", ""])
    table([f"{recipe.backbone} at {size} px", "images/s", "time of a bare step"], rows)
    mine = [
        "augmentation on the device" if recipe.augment_on == "device" else "augmentation by albumentations"
    ]
    mine.append("loader: batches read from the cache")
    slowest = min(mine, key=lambda name: paths[name])
    share = float(np.median(shares))
    verdict = "the network itself" if share >= 0.9 else slowest.split(":")[0]
    info(
        f"bench: {size} px: training reaches {share:.0%} of the bare step; the bottleneck is {verdict}. "
        f"First epoch {start_up:.1f} s, memory {size_text(memory_in_use(place))}"
    )
    return float(np.median(whole)), rate


def _ignore(**_: Any) -> None:
    pass


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


def _measure_loader(cache: Path, labels: Labels, device: Any, batch: int, resident: bool | None) -> float:
    dataset, place = CachedDataset([cache], labels.targets), torch.device(device.name)
    loader = DeviceLoader(dataset, place, device.n_loaders, resident=resident)
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
    transform, images = training_transform(recipe.augment), np.load(cache, mmap_mode="r")[:64].copy()
    return measure_rate(lambda: transform(images, 0), len(images))


def _measure_prediction(
    recipe: Recipe,
    trainer: Trainer,
    cache: Path,
    phase: Phase,
    place: torch.device,
    n_loaders: int,
    n_forward: float,
) -> float:
    views = [VIEWS[view] for view in view_names(recipe.views)]
    state = trainer.state
    model, dtype = state.averages.averaged.eval(), choose_precision(recipe.precision, place, state.model)
    prepare = Preprocess(state.spec.mean, state.spec.std, phase.size).to(place)
    resident = trainer.batches.resident
    loader = DeviceLoader(CachedDataset([cache], None), place, n_loaders, resident=resident)
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
