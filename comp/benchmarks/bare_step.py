"""The bare training step: forward, backward and optimizer update on a batch in memory."""

import time
from collections.abc import Callable

import torch

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
    model = models.create(spec, pretrained=False).to(place, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    dtype = choose_precision(recipe.precision, place, model, phase.size)
    scaler = torch.amp.GradScaler(place.type, enabled=dtype == torch.float16)
    shape = (phase.batch_size, n_channels, phase.size, phase.size)
    x = torch.randn(shape, device=place).contiguous(memory_format=torch.channels_last)
    y = (torch.rand(phase.batch_size, n_classes, device=place) < 0.2).float()
    models.compile_network(model, recipe.compile)

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
