"""What the checks of `comp check` share: their outcome, drawn images, a step and a short training."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from comp.benchmarks.training_speed import make_inputs, make_labels
from comp.compute.devices import Device
from comp.compute.distributed import ProcessGroup
from comp.config.recipe import Phase, Recipe
from comp.deadline import NEVER
from comp.training.trainer import Trainer
from comp.training.training_data import FoldInputs

MAX_HALVINGS = 16  # of the scale of fp16's loss, until its gradients are finite


class Skipped(Exception):
    """A check that can't be done here, or not in time. The text says why."""


@dataclass(frozen=True)
class Outcome:
    """What a check found."""

    verdict: Literal["ok", "differs"]
    found: str
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """What checks work with."""

    recipe: Recipe
    device: Device
    n_gpus: int
    folder: Path  # for files that are removed at the end
    deadline: float  # in seconds since 1970

    @property
    def place(self) -> torch.device:
        return torch.device(self.device.name)

    @property
    def on_gpu(self) -> bool:
        return self.place.type == "cuda"

    def need(self, seconds: float) -> None:
        """Raise Skipped if the time left is shorter."""
        left = self.deadline - time.time()
        if left <= 0:
            raise Skipped("the time is up; give --time-budget")
        if left < seconds:
            raise Skipped(f"needs {seconds:.0f} s, {left:.0f} s are left; give --time-budget")

    def inputs(self, phase: Phase, n_train: int, **changes: Any) -> FoldInputs:
        """Return the inputs of a training on random images, with these changes of the recipe's keys. Dropout
        is off, since its random numbers differ between devices, and clipping, which hides lengths."""
        usual = {"name": "check", "drop_rate": 0.0, "clip_norm": 1e9}
        recipe = self.recipe.model_copy(update=usual | changes)
        labels = make_labels(recipe.competition.labels, n_train + phase.batch_size)
        shape = (len(labels.ids), phase.size, phase.size, recipe.n_channels)
        cache = self.folder / f"{'x'.join(map(str, shape))}.npy"
        if not cache.exists():
            np.save(cache, np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        return make_inputs(recipe, phase, cache, labels, n_train)


def small_phase(recipe: Recipe, batch_size: int, epochs: int = 1) -> Phase:
    """Return the recipe's phase of the smallest images, with small batches, and all layers trained."""
    phase = min(recipe.phases, key=lambda phase: phase.size)
    changes = {"batch_size": batch_size, "accumulate": 1, "epochs": epochs, "head_epochs": 0, "cycles": 1}
    return phase.model_copy(update=changes)


def gradients(
    inputs: FoldInputs,
    device: Device,
    ranks: ProcessGroup = ProcessGroup(),  # noqa: B008  (frozen)
) -> tuple[float, torch.Tensor]:
    """Return the loss of the first step and its gradients, one after the other, on the CPU in float64. The
    inputs are those of epochs of one step."""
    trainer = Trainer(inputs, torch.device(device.name), 0, ranks)
    found: list[torch.Tensor] = []

    def look(*_: Any) -> None:
        parts = [p.grad.flatten().cpu().double() for p in trainer.state.parameters if p.grad is not None]
        found[:] = [torch.cat(parts)]

    trainer.state.optimizer.register_step_pre_hook(look)
    for _ in range(MAX_HALVINGS if trainer.state.scaler.is_enabled() else 1):
        trainer.history.clear()  # the same epoch again: after infinite gradients the weights are the same
        trainer.epoch(lambda **_: None, NEVER)
        if found[0].isfinite().all():
            break
    return trainer.history[-1]["loss"], found[0]


def train(inputs: FoldInputs, device: Device, *, resumed: bool = False) -> torch.Tensor:
    """Train all epochs and return the weights and their averages, one after the other, on the CPU. With
    `resumed` another trainer goes on after the first epoch, from the checkpoint."""
    trainer = Trainer(inputs, torch.device(device.name), 0)
    while trainer.n_epochs_done < trainer.n_epochs:
        trainer.epoch(lambda **_: None, NEVER)
        if resumed and trainer.n_epochs_done == 1:
            trainer.save()
            trainer = Trainer(inputs, torch.device(device.name), 0)
            assert trainer.resume()
    state = trainer.state
    states = (*state.model.state_dict().values(), *state.averages.averaged.state_dict().values())
    return torch.cat([part.flatten().cpu().double() for part in states])


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the length of the difference, relative to that of `expected`."""
    return float((found - expected).norm() / expected.norm())


@contextlib.contextmanager
def runs_in(folder: Path) -> Iterator[None]:
    """Write the files of runs below this folder."""
    before = os.environ.get("COMP_RUNS")
    os.environ["COMP_RUNS"] = str(folder)
    try:
        yield
    finally:
        os.environ.pop("COMP_RUNS")
        if before is not None:
            os.environ["COMP_RUNS"] = before
