"""Checks of `comp check` that measure: training beside the bare step, prediction, memory."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from comp.benchmarks.bare_step import busy_share, make_bare_step
from comp.benchmarks.check_inputs import Bench, Outcome, Skipped
from comp.benchmarks.training_speed import (
    BARE,
    WHOLE,
    Measured,
    endless,
    epoch_of,
    measure_prediction,
    measure_rate,
    take_turns,
)
from comp.compute.devices import is_out_of_memory, memory_in_use, n_cores
from comp.config.recipe import Phase
from comp.console import size_text
from comp.data.decoding import decode
from comp.data.gpu_decoding import GpuDecoder, check_gpu_decoder
from comp.data.reading_threads import in_threads
from comp.data.synthetic.scenes import render_scene
from comp.errors import CompError
from comp.training.trainer import Trainer

BACKBONES, SIZES = ("resnet50", "convnext_tiny"), (64, 128, 256)
CPU_BATCH = 8  # a whole batch of 256 px takes a CPU too long
GPU_BATCH = 64  # at sizes that the recipe doesn't have
ROUND_SECONDS, N_ROUNDS = 2.0, 3
LEAST_SECONDS = 15.0  # left for a network at 64 px, or the first step of a slow machine ends too late
LARGEST_BATCH = 4096  # no larger one is tried
JPEG_SIDES, JPEG_SIZE = (512, 1024, 2048), 256  # pixels of the files and of their cache
N_JPEGS, N_DRAWN = 128, 8
JPEG_TOLERANCE = 2.0  # of 255: the mean difference of nvJPEG's pixels; that of rounding is 0.4


def training_rate(bench: Bench, backbone: str, size: int) -> Outcome:
    """Measure the bare step and the whole training, by turns."""
    bench.need(LEAST_SECONDS if bench.on_gpu else LEAST_SECONDS * size / SIZES[0])
    place, phase = bench.place, _phase_of(bench, size)
    batch = phase.batch_size
    recipe = bench.recipe.model_copy(update={"backbone": backbone})
    inputs = bench.inputs(phase, batch, backbone=backbone)
    bare = make_bare_step(recipe, phase, place, len(inputs.labels.classes))
    bare(1)
    seconds = batch / bare(1)
    n_steps = int(np.clip(ROUND_SECONDS / seconds, 1, 50))
    rounds = N_ROUNDS if bench.on_gpu else 1
    bench.need(2.5 * seconds * n_steps * (rounds + 1))
    trainer = Trainer(bench.inputs(phase, n_steps * batch, backbone=backbone), place, bench.device.n_loaders)
    epoch = epoch_of(trainer)
    epoch()
    rates = take_turns({BARE: lambda: bare(n_steps), WHOLE: epoch}, rounds)
    alone, whole = (float(np.median(rates[name])) for name in (BARE, WHOLE))
    share = float(np.median(np.divide(rates[WHOLE], rates[BARE])))
    busy = busy_share(epoch, place) if bench.on_gpu else None
    text = f"{whole:,.1f} images/s, {share:.0%} of the bare step, batch {batch}"
    if busy is not None:
        text += f"; the GPU works {busy:.0%} of the time"
    numbers = {"bare": alone, "whole": whole, "share": share, "gpu_busy": busy, "batch": batch}
    return Outcome("ok", text, numbers)


def prediction_rate(bench: Bench) -> Outcome:
    """Measure prediction over the recipe's views at its last size."""
    size, backbone = bench.recipe.phases[-1].size, bench.recipe.backbone
    phase = _phase_of(bench, size)
    n = phase.batch_size * (8 if bench.on_gpu else 1)
    inputs = bench.inputs(phase, n)
    trainer = Trainer(inputs, bench.place, bench.device.n_loaders)
    measured = Measured(bench.recipe, phase, inputs.caches[size][0], (), n, n)
    bare = make_bare_step(bench.recipe, phase, bench.place, len(inputs.labels.classes))
    bench.need(20 * phase.batch_size / bare(1))
    rate = measure_prediction(measured, trainer, bench.place, bench.device.n_loaders, 4 * n)
    return Outcome("ok", f"{backbone} at {size} px: {rate:,.1f} images/s", {"rate": rate, "size": size})


def memory(bench: Bench) -> Outcome:
    """Measure the memory of an epoch of one step, at the recipe's largest batch of pixels."""
    phase = endless(max(bench.recipe.phases, key=lambda phase: phase.batch_size * phase.size**2))
    one = phase.model_copy(update={"batch_size": 2 * phase.accumulate, "accumulate": 1})
    inputs = bench.inputs(phase, phase.batch_size)
    bare = make_bare_step(bench.recipe, one, bench.place, len(inputs.labels.classes))
    bare(1)
    bench.need(2 * phase.batch_size / bare(1))
    del bare
    bench.device.release()
    trainer = Trainer(inputs, bench.place, 0)
    epoch_of(trainer)()
    used = memory_in_use(bench.place)
    total = torch.cuda.get_device_properties(bench.place).total_memory if bench.on_gpu else None
    parts = trainer.micro_batches.factor * phase.accumulate
    text = f"{size_text(used)}{f' of {size_text(total)}' if total else ''}, batch {phase.batch_size} "
    text += f"at {phase.size} px" + (f" in {parts} micro-batches" if parts > 1 else "")
    numbers = {"used": used, "total": total, "batch": phase.batch_size, "size": phase.size, "parts": parts}
    return Outcome("ok", text, numbers)


def largest_batch(bench: Bench) -> Outcome:
    """Double the batch of the bare step until the GPU is out of memory."""
    if not bench.on_gpu:
        raise Skipped("a CPU's memory is shared with all else")
    phase, n_classes = bench.recipe.phases[-1], len(bench.recipe.competition.labels.classes) or 17
    fits, batch = 0, 8
    while batch <= LARGEST_BATCH:
        changed = phase.model_copy(update={"batch_size": batch})
        started = time.monotonic()
        try:
            make_bare_step(bench.recipe, changed, bench.place, n_classes)(1)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        finally:
            bench.device.release()
        fits, batch = batch, 2 * batch
        bench.need(3 * (time.monotonic() - started))
    found = f"{fits} fit at {phase.size} px" + (f", {batch} don't" if batch <= LARGEST_BATCH else "")
    return Outcome("ok", found, {"largest": fits, "size": phase.size})


def jpeg_decoding(bench: Bench) -> Outcome:
    """Decode drawn JPEGs by nvJPEG and by the CPU, and compare pixels and rates."""
    if not bench.on_gpu:
        raise Skipped("needs a GPU")
    try:
        check_gpu_decoder()
    except CompError as error:
        raise Skipped(str(error)) from error
    decoder, numbers, texts, apart = GpuDecoder(JPEG_SIZE), [], [], 0.0
    for side in JPEG_SIDES:
        paths = _draw_jpegs(side, bench.folder / f"jpegs-{side}")
        pairs = list(zip(decoder.decode(paths), map(_by_cpu, paths), strict=True))
        found = [(there, here) for there, here in pairs if there is not None]
        if len(found) < len(paths):
            return Outcome("differs", f"nvJPEG decodes {len(found)} of {len(paths)} JPEGs of {side} px")
        apart = max(apart, *(np.abs(there - here.astype(float)).mean() for there, here in found))
        gpu = _decoding_rate(lambda some: list(decoder.decode(some)), paths)
        cpu = _decoding_rate(lambda some: list(map(_by_cpu, some)), paths)
        numbers.append({"side": side, "gpu": gpu, "cpu": cpu})
        texts.append(f"{side} px {gpu:,.0f} instead of {cpu:,.0f} images/s")
    verdict: Literal["ok", "differs"] = "ok" if apart < JPEG_TOLERANCE else "differs"
    text = f"{', '.join(texts)}; {apart:.2f} of 255 apart"
    return Outcome(verdict, text, {"sizes": numbers, "apart": apart})


def _decoding_rate(work: Callable[[list[Path]], object], paths: list[Path]) -> float:
    """Return images/s of decoding in as many threads as there are cores."""
    chunks = [paths] * (N_JPEGS // len(paths))

    def decode_all() -> None:
        for _ in in_threads(work, chunks, n_cores(), n_cores()):
            pass

    return measure_rate(decode_all, len(chunks) * len(paths), N_ROUNDS)


def _by_cpu(path: Path) -> np.ndarray:
    return decode([path], joined=False, max_size=JPEG_SIZE)


def _draw_jpegs(side: int, folder: Path) -> list[Path]:
    """Write a few JPEGs as dense as photographs."""
    folder.mkdir()
    paths = [folder / f"{i}.jpg" for i in range(N_DRAWN)]
    for i, path in enumerate(paths):
        rng = np.random.default_rng(i)
        pixels = np.asarray(render_scene(rng, 512)[0].resize((side, side)), np.float32)
        noisy = (pixels + rng.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, quality=90)
    return paths


def _phase_of(bench: Bench, size: int) -> Phase:
    """Return the recipe's phase with images of this size, or its first one changed to it."""
    phases = {phase.size: phase for phase in bench.recipe.phases}
    usual = {"size": size, "batch_size": GPU_BATCH, "accumulate": 1}
    phase = phases.get(size) or bench.recipe.phases[0].model_copy(update=usual)
    small = {} if bench.on_gpu else {"batch_size": CPU_BATCH, "accumulate": 1}
    return endless(phase.model_copy(update=small))
