"""train: one network per fold, through the recipe's phases.

Reads images, labels and folds; writes runs/<recipe>/fold<k>/: log.jsonl and last.pt after each epoch,
model.safetensors last.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comp.artifacts.files import atomic_write
from comp.artifacts.paths import cache_dir, checkpoint_path, log_path, model_path, started_path
from comp.artifacts.resumable import training_files
from comp.artifacts.stamps import is_done
from comp.config.recipe import Recipe
from comp.console import info
from comp.data.corrections import describe_corrections
from comp.deadline import deadline_in
from comp.errors import CompError
from comp.kaggle.submission_file import check_sample
from comp.models.weights import weights_file
from comp.tracking.follow import track_runs
from comp.tracking.run import Run
from comp.training.extra_images import ExtraImages
from comp.training.training_data import TrainingData
from comp.user_code import is_reference


def run(recipe: Recipe, *, folds: list[int], force: bool, budget: float | None, on: str) -> None:
    if "WORLD_SIZE" not in os.environ:
        _run(recipe, folds, force, budget, on, None)
        return
    from comp.compute.distributed import ProcessGroup

    with ProcessGroup.join() as ranks:
        if ranks.size > 1 and on == "ray":
            raise CompError("--on ray starts its own jobs; leave out torchrun")
        _run(recipe, folds, force, budget, on, ranks if ranks.size > 1 else None)


def _run(recipe: Recipe, folds: list[int], force: bool, budget: float | None, on: str, ranks: Any) -> None:
    """Train the folds that are not finished. `ranks` is the ProcessGroup of several processes, or None."""
    deadline = deadline_in(budget) if ranks is None else ranks.broadcast(deadline_in(budget))
    is_first = ranks is None or ranks.is_first
    training = TrainingData.read(recipe, folds)
    line = check_sample(training.data.sample_csv, recipe.competition, training.labels.classes)
    if line and is_first:
        info(f"train: {line}")
    given, learned = training.labels.targets, training.learned.targets
    if learned is not given and is_first:
        info(f"train: {describe_corrections(given, learned, recipe.competition)} corrected")
    stamps = {fold: training.stamp(fold) for fold in folds}
    todo = [fold for fold in folds if not is_done(model_path(recipe.name, fold), stamps[fold], force=force)]
    for fold in todo:  # raises if half-trained folds have another stamp
        kept = checkpoint_path(recipe.name, fold), log_path(recipe.name, fold)
        if any(path.exists() and path.stat().st_size for path in kept):
            is_done(started_path(recipe.name, fold), stamps[fold], force=force)
    if finished := sorted(set(folds) - set(todo)):
        info(f"train: {recipe.name} fold {', '.join(map(str, finished))} done already")
    runs = [Run(recipe, fold, stamps[fold]) for fold in folds] if is_first else []
    if not todo:
        with track_runs(runs):  # sends rows that trackers lack
            return
    from comp.compute.devices import devices  # torch only now: a finished stage answers at once
    from comp.compute.local_jobs import run_jobs
    from comp.compute.ray_jobs import run_on_ray
    from comp.training.cost import outline
    from comp.training.fit import train_fold
    from comp.training.prepare import build_caches_of

    places = [ranks.device()] if ranks else devices(len(folds)) if on == "local" else []
    n_test = len(training.data.test_ids(recipe.competition))
    info(f"train: {outline(recipe, len(training.labels.ids), n_test)}")
    caches = build_caches_of(training, todo, deadline, n_ranks=ranks.size if ranks else 1)
    extra = "".join(map(_used, zip(*(training.extras[fold] for fold in todo))))
    info(
        f"train: {recipe.name}, {recipe.backbone}, folds {', '.join(map(str, todo))}, "
        f"{len(training.labels.ids):,} images{extra}"
    )
    jobs = {f"fold {fold}": (training.fold_inputs(fold, caches, stamps[fold]), force) for fold in todo}
    with track_runs(runs, grow=True):
        if on == "ray":
            files = {f"fold {fold}": training_files(recipe.name, fold) for fold in todo}
            run_on_ray(
                train_fold, jobs, files, n_jobs=len(folds), deadline=deadline, environment=_weights(recipe)
            )
        else:
            run_jobs(train_fold, jobs, places, deadline)


def _used(extras: Sequence[ExtraImages]) -> str:
    """Return ', 30 test images', or ', 28 to 30 test images' if folds use different numbers of them."""
    counts = [int(extra.used.sum()) for extra in extras]
    up_to = "" if len(set(counts)) == 1 else f" to {max(counts):,}"
    return f", {min(counts):,}{up_to} {extras[0].images.name} images"


def _weights(recipe: Recipe) -> dict[str, Path]:
    """Return the pretrained weights by the variable that names them on other machines, which may be
    offline."""
    if not recipe.pretrained:
        return {}
    path = weights_file(recipe.backbone, recipe.weights)
    if path is None and is_reference(recipe.backbone):  # it fetches its own
        return {}
    if path is None:
        path = cache_dir(recipe.competition.name) / f"{recipe.backbone}.safetensors"
        if not path.exists():
            from comp.models import network as models

            with atomic_write(path) as temporary:
                temporary.write_bytes(models.pretrained_weights(recipe.backbone))
    return {"COMP_WEIGHTS_COPY": path}
