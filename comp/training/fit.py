"""Train one fold, from its last checkpoint to its model file."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.files import read_json, write_json
from comp.artifacts.paths import checkpoint_path, model_path, started_path
from comp.artifacts.resumable import training_files
from comp.artifacts.schemas import Started
from comp.artifacts.stamps import is_done
from comp.compute.devices import Device
from comp.compute.distributed import Ranks
from comp.compute.jobs import Report
from comp.config.recipe import Recipe
from comp.data.labels import Labels
from comp.deadline import NEVER
from comp.errors import TimeIsUp
from comp.models import network as models
from comp.training.trainer import Trainer


def train_fold(
    recipe: Recipe,
    fold: int,
    labels: Labels,
    fold_of: np.ndarray,
    caches: dict[int, tuple[Path, ...]],
    stamp: dict[str, Any],
    force: bool,
    *,
    device: Device,
    report: Report,
    deadline: float,
) -> None:
    """Train one fold to its model file, from its last checkpoint if there is one with the same stamp. Raises
    TimeIsUp where the next epoch would not end before the deadline."""
    ranks = Ranks.of_torchrun()
    with training_files(recipe.name, fold).locked() if ranks.is_first else nullcontext():
        if ranks.agreed(is_done(model_path(recipe.name, fold), stamp, force=force)):
            report(line="was finished by another process")
            return
        place = device.activate()
        trainer = Trainer(recipe, fold, labels, fold_of, caches, stamp, place, device.n_loaders, ranks)
        resumed = trainer.resume()
        ranks.wait()  # all have read what is replaced now
        if ranks.is_first:
            model_path(recipe.name, fold).unlink(missing_ok=True)
            trainer.write_log()  # before what says whose log it is
            path = started_path(recipe.name, fold)
            kept = read_json(path, Started) if resumed and path.exists() else {"begun": time.time_ns()}
            about = {"recipe": recipe.model_dump(mode="json"), "stamp": stamp, "begun": kept.get("begun")}
            write_json(path, about)
        if resumed:
            report(line=f"goes on after epoch {trainer.n_epochs_done} of {trainer.n_epochs}")
        else:
            report(line=trainer.header())
        while trainer.n_epochs_done < trainer.n_epochs:
            if ranks.agreed(time.time() + trainer.expected_seconds() > deadline):
                raise TimeIsUp(trainer.progress())
            report(line=trainer.epoch(report, deadline if ranks.size == 1 else NEVER))
            if ranks.is_first:
                trainer.save()
                report(saved=True)
        if ranks.is_first:
            trainer.write_log()
            models.save(model_path(recipe.name, fold), trainer.averaged, trainer.spec, stamp)
            checkpoint_path(recipe.name, fold).unlink(missing_ok=True)
