"""The bare training step: forward, backward and optimizer update on a batch in memory. How busy a GPU is."""

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from comp.config.recipe import Phase, Recipe
from comp.models import network as models
from comp.models.precision import autocast, choose_precision
from comp.training.losses import bce


def make_bare_step(
    recipe: Recipe, phase: Phase, place: torch.device, n_classes: int
) -> Callable[[int], float]:
    """Return a function that trains n steps on one random batch and returns images per second."""
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
    model = models.create(spec, pretrained=False, code=recipe.code)
    model = model.to(place, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    dtype = choose_precision(recipe.precision, place, model, phase.size)
    scaler = torch.amp.GradScaler(place.type, enabled=dtype == torch.float16)
    shape = (phase.batch_size, n_channels, phase.size, phase.size)
    x = torch.randn(shape, device=place).contiguous(memory_format=torch.channels_last)
    y = (torch.rand(phase.batch_size, n_classes, device=place) < 0.2).float()
    models.compile_network(model, recipe.compile, place)

    def steps(n: int) -> float:
        synchronize(place)
        started = time.perf_counter()
        for _ in range(n):
            with autocast(place, dtype):
                logits = model(x)
            scaler.scale(bce(logits, y)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
        synchronize(place)
        return n * phase.batch_size / (time.perf_counter() - started)

    return steps


def synchronize(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize(place)


def busy_share(work: Callable[[], Any], place: torch.device) -> float | None:
    """Return the share of the time of `work` in which the GPU works; None where the profiler sees nothing.

    The kernels are timed in a second run: the profiler slows the CPU down, but not them."""
    synchronize(place)
    started = time.perf_counter()
    work()
    synchronize(place)
    seconds = time.perf_counter() - started
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        work()
        synchronize(place)
    spans = [
        (event.time_range.start, event.time_range.end)
        for event in profiled.events() or ()
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    ]
    return min(1.0, covered(spans) / 1e6 / seconds) if spans else None


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length that spans (start, end) cover together; kernels on several streams overlap."""
    total, last = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, last))
        last = max(last, end)
    return total
