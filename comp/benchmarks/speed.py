"""`comp bench speed RECIPE`: images a second of everything between files and finished steps, at each size of
a recipe, beside the bare training step: the same network on random numbers that are in memory already. One
job has all cores here."""

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
from comp.batches.augmentation import Batched, training_transform
from comp.batches.loader import CacheBatches, Loader, fits
from comp.batches.preprocessing import Input
from comp.batches.sampling import in_order
from comp.batches.tta import VIEWS, view_names
from comp.compute.devices import devices, memory_in_use, n_cores
from comp.config.competition import LabelTable
from comp.config.recipe import Phase, Recipe
from comp.console import clock, say, size_text, table
from comp.data.decoding import decode
from comp.data.folds import UNUSED
from comp.data.image_cache import cached
from comp.data.image_files import ImageSet, find_images
from comp.data.labels import Labels, groups_of
from comp.data.manifest import read_manifest
from comp.data.synthetic.scenes import scene
from comp.deadline import NEVER
from comp.errors import CompError
from comp.models import network as models
from comp.models.inference import of_views
from comp.models.precision import autocast, precision_of
from comp.training.losses import bce
from comp.training.trainer import Trainer

ROUNDS = 5  # of each measurement: medians are printed
SECONDS = 3.0  # about, of one round of training
N_DRAWN, N_IMAGES = 256, 4096  # drawn images, and images that the cache is built from
CLASSES = 17  # where the competition does not list its own
Paths = tuple[tuple[Path, ...], ...]
FASTAI = Path(__file__).with_name("fastai_speed.py")


def run(recipe: Recipe, *, fastai: str | None) -> None:
    device = devices(1)[0]
    place = device.activate()
    name = torch.cuda.get_device_name(place) if place.type == "cuda" else _cpu_name()
    cores = f"{os.cpu_count()} cores, {device.n_threads} for a job"
    say(f"bench: {name}, {cores}; Python {platform.python_version()}")
    say(
        "bench: "
        + ", ".join(
            f"{p} {version(p)}" for p in ("torch", "timm", "albumentations", "opencv-python-headless")
        )
    )
    with tempfile.TemporaryDirectory(prefix="comp-bench-") as folder:
        images = _images(recipe, Path(folder))
        _files(images, Path(folder))
        rates = {
            phase.size: _training(recipe, phase, images, Path(folder), fastai)
            for phase in {phase.size: phase for phase in recipe.phases}.values()
        }
    n_train, n_test, whose = _numbers(recipe)
    share = n_train * (recipe.n_folds - 1) / recipe.n_folds
    training = recipe.n_folds * sum(phase.epochs * share / rates[phase.size][0] for phase in recipe.phases)
    predicting = (n_train + recipe.n_folds * n_test) / rates[recipe.phases[-1].size][1]
    at_once = max(1, torch.cuda.device_count())
    say(
        f"bench: {recipe.n_folds} folds of {n_train:,} training and {n_test:,} test images ({whose}): "
        f"{clock(training / at_once)} to train, {clock(predicting / at_once)} to predict, by these rates"
    )


def _numbers(recipe: Recipe) -> tuple[int, int, str]:
    """How many images there are to train with and to predict, and whose numbers they are."""
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


def _images(recipe: Recipe, folder: Path) -> ImageSet:
    """Some of the competition's training images, or drawn ones."""
    competition = recipe.competition
    if manifest_path(competition.name).exists():
        data = read_manifest(competition)
        found = data.images("train", data.labels(competition).ids, recipe.channels)
        say(f"bench: images of {competition.name}")
    else:
        (folder / "drawn").mkdir()
        for i in range(N_DRAWN):
            image, _ = scene(np.random.default_rng(i), 256)
            for k, channel in enumerate(recipe.channels or [""]):
                one = image.getchannel(k % 3) if channel else image
                one.save(folder / "drawn" / f"{i}{channel}.jpg", quality=90)
        names = np.array([str(i) for i in range(N_DRAWN)])
        found = find_images("train", names, [(folder / "drawn", "{id}{channel}.jpg")], recipe.channels)
        say("bench: drawn images of 256 px, JPEG")
    rows = np.arange(N_IMAGES) % len(found.ids)
    ids = np.array([str(i) for i in range(N_IMAGES)])
    return ImageSet("bench", ids, tuple(found.paths[i] for i in rows), found.channels, found.limits)


def timed(work: Callable[[], Any], n: int, rounds: int = ROUNDS) -> float:
    """Median rate of `n` things that `work` does."""
    work()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return n / float(np.median(seconds))


def _files(images: ImageSet, folder: Path) -> None:
    """Decoding on one core, against building the cache on all."""
    joined = bool(images.channels)
    some, rows = images.paths[:256], []
    for size in (64, 128, 256):

        def build(size: int = size) -> None:
            where = Path(tempfile.mkdtemp(dir=folder))
            cached({"bench": (images, [size])}, where, "", NEVER, size)

        def decode_some(size: int = size) -> None:
            for paths in some:
                decode(paths, joined=joined, finest=size, limits=images.limits)

        one = timed(decode_some, len(some))
        every = timed(build, len(images.ids), 3)
        rows.append([f"{size} px", f"{one:,.0f}", f"{every:,.0f}", f"{every / one / n_cores():.2f}"])
    table(["images/s", "decoded on 1 core", f"cached on {n_cores()}", "of all cores"], rows)


def _training(
    recipe: Recipe, phase: Phase, images: ImageSet, folder: Path, fastai: str | None
) -> tuple[float, float]:
    """Print the table of one size; give the images a second of whole training and of prediction."""
    device = devices(1)[0]
    place = torch.device(device.name)
    size, batch = phase.size, phase.batch_size
    cache = cached({"bench": (images, [size])}, folder / "cache", "", NEVER, size)["bench"][size]
    n = len(images.ids)
    labels = invented_labels(recipe.competition.labels, n)
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
        trainer = Trainer(only, 0, labels, fold_of, {size: (cache,)}, {}, place, device.n_loaders)
        n_bytes = size * size * images.n_channels * _numbers(recipe)[0]
        trainer.resident = recipe.augment_on == "device" and fits(n_bytes, place)
        return trainer

    bare = bare_step(recipe, phase, place, len(labels.classes))
    bare(1)
    first = bare(2)
    n_steps = int(np.clip(SECONDS * first / batch, 2, (n - n_valid) // batch))
    trainer = trainer_of(n_steps * batch)
    start_up = time.perf_counter()
    trainer.epoch(_silent, NEVER)
    start_up = time.perf_counter() - start_up
    shares, whole, alone, others = [], [], [], []
    for _ in range(
        ROUNDS if first > batch / SECONDS else 2
    ):  # by turns, so that a machine that slows down does so for all
        alone.append(bare(n_steps))
        trainer.epoch(_silent, NEVER)
        whole.append(trainer.history[-1]["images_per_second"])
        shares.append(whole[-1] / alone[-1])
        if fastai:
            others.append(
                _fastai_rate(fastai, images.paths[: n_steps * batch], recipe, phase, device.n_threads)
            )
    step = float(np.median(alone))
    paths = {
        "loader: batches read from the cache": _reading(cache, labels, device, batch),
        "augmentation on the device": _batched(recipe, phase, cache, place),
        "augmentation by albumentations": _by_albumentations(recipe, cache),
    }
    rows = [[name, f"{rate:,.0f}", f"{step / rate:.1%}"] for name, rate in paths.items()]
    rows.append(["bare training step", f"{step:,.0f}", "100.0%"])
    rows.append(["whole training", f"{np.median(whole):,.0f}", f"{1 / np.median(shares):.1%}"])
    if fastai:
        rows.append(
            ["fastai, whole training", f"{np.median(others):,.0f}", f"{step / np.median(others):.1%}"]
        )
    rate = _predicting(recipe, trainer, cache, phase, place, device.n_loaders, SECONDS * step)
    rows.append([f"prediction, {len(view_names(recipe.views))} views an image", f"{rate:,.0f}", ""])
    table([f"{recipe.backbone} at {size} px", "images/s", "time of a bare step"], rows)
    mine = [
        "augmentation on the device" if recipe.augment_on == "device" else "augmentation by albumentations"
    ]
    mine.append("loader: batches read from the cache")
    slowest = min(mine, key=lambda name: paths[name])
    share = float(np.median(shares))
    verdict = "the network itself" if share >= 0.9 else slowest.split(":")[0]
    say(
        f"bench: {size} px: training reaches {share:.0%} of the bare step; what takes the time is {verdict}. "
        f"First epoch {start_up:.1f} s, memory {size_text(memory_in_use(place))}"
    )
    return float(np.median(whole)), rate


def _silent(**_: Any) -> None:
    pass


def invented_labels(table: LabelTable, n: int) -> Labels:
    """Random labels of n images, of the competition's classes, with one label of each exclusive group."""
    grouped = [name for group in table.exclusive for name in group]
    others = [f"c{i}" for i in range(CLASSES - len(grouped))]
    classes = table.classes or tuple(dict.fromkeys([*grouped, *others]))
    rng = np.random.default_rng(0)
    targets = (rng.random((n, len(classes))) < 0.2).astype(np.uint8)
    for group in groups_of(table, classes):
        targets[:, group] = np.eye(len(group), dtype=np.uint8)[rng.integers(len(group), size=n)]
    return Labels(np.array([str(i) for i in range(n)]), classes, targets)


def bare_step(recipe: Recipe, phase: Phase, place: torch.device, n_classes: int) -> Callable[[int], float]:
    """A function of a number of steps that gives the images a second of training on one random batch."""
    n_channels = recipe.n_channels
    mean = (0.5,) * n_channels
    spec = models.ModelSpec(
        recipe.backbone,
        tuple(map(str, range(n_classes))),
        n_channels,
        phase.size,
        mean,
        mean,
        recipe.drop_rate,
    )
    model = models.create(spec, pretrained=False).to(place, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    dtype = precision_of(recipe.precision, place, model, phase.size)
    scaler = torch.amp.GradScaler(place.type, enabled=dtype == torch.float16)
    shape = (phase.batch_size, n_channels, phase.size, phase.size)
    x = torch.randn(shape, device=place).contiguous(memory_format=torch.channels_last)
    y = (torch.rand(phase.batch_size, n_classes, device=place) < 0.2).float()
    if recipe.compile:
        model.compile(dynamic=False)

    def steps(n: int) -> float:
        _wait(place)
        started = time.perf_counter()
        for _ in range(n):
            with autocast(place, dtype):
                logits = model(x)
            scaler.scale(bce(logits, y)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
        _wait(place)
        return n * phase.batch_size / (time.perf_counter() - started)

    return steps


def _wait(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize(place)


def _reading(cache: Path, labels: Labels, device: Any, batch: int) -> float:
    loader = Loader(CacheBatches([cache], labels.targets), torch.device(device.name), device.n_loaders)
    order = np.random.default_rng(0).permutation(len(labels.ids))

    def read() -> None:
        deque(loader(in_order(order, batch)), maxlen=0)
        _wait(torch.device(device.name))

    return timed(read, len(order))


def _batched(recipe: Recipe, phase: Phase, cache: Path, place: torch.device) -> float:
    images = torch.from_numpy(np.load(cache, mmap_mode="r")[: phase.batch_size].copy()).to(place)
    n = images.shape[-1]
    augment = Batched(recipe.augment, n)
    prepare = Input((0.5,) * n, (0.5,) * n, phase.size, augment).to(place)

    def work() -> None:
        for seed in range(10):
            prepare(images, augment.draw(len(images), seed))
        _wait(place)

    return timed(work, 10 * len(images))


def _by_albumentations(recipe: Recipe, cache: Path) -> float:
    transform, images = training_transform(recipe.augment), np.load(cache, mmap_mode="r")[:64].copy()
    return timed(lambda: transform(images, 0), len(images))


def _predicting(
    recipe: Recipe,
    trainer: Trainer,
    cache: Path,
    phase: Phase,
    place: torch.device,
    n_loaders: int,
    n_forward: float,
) -> float:
    views = [VIEWS[view] for view in view_names(recipe.views)]
    model, dtype = trainer.averaged.eval(), precision_of(recipe.precision, place, trainer.model)
    prepare = Input(trainer.spec.mean, trainer.spec.std, phase.size).to(place)
    loader = Loader(CacheBatches([cache], None), place, n_loaders)
    rows = np.arange(int(np.clip(n_forward * 2 / len(views), 32, len(trainer.targets))))  # as long as a round

    def predict() -> None:
        with torch.inference_mode(), autocast(place, dtype):
            for images, _ in loader(in_order(rows, max(1, recipe.predict_batch_size // len(views)))):
                of_views(model, prepare(images), views)
        _wait(place)

    return timed(predict, len(rows), 3)


def _fastai_rate(python: str, paths: Paths, recipe: Recipe, phase: Phase, n_threads: int) -> float:
    """Images a second of fastai's training on the same files, in another environment."""
    settings = (recipe.backbone, phase.size, phase.batch_size, n_threads)
    answer = subprocess.run(
        [python, str(FASTAI), *map(str, settings)],
        input="\n".join(str(files[0].resolve()) for files in paths), capture_output=True, text=True,
    )  # fmt: skip
    if answer.returncode:
        raise CompError(f"{python} can't run fastai: {answer.stderr.strip().splitlines()[-1]}")
    return float(answer.stdout.split()[-1])
