"""train: one network a fold, through the recipe's phases.

Reads images, labels and folds; writes runs/<recipe>/fold<k>/: log.jsonl and last.pt after each epoch,
model.safetensors last.
"""

from collections.abc import Sequence
from pathlib import Path

from comp.artifacts.files import replacing
from comp.artifacts.paths import cache_dir, checkpoint_path, log_path, model_path, started_path
from comp.artifacts.resumable import training_files
from comp.artifacts.stamps import is_done
from comp.compute.devices import devices
from comp.compute.distributed import Ranks
from comp.compute.local_jobs import run_jobs
from comp.compute.ray_jobs import run_on_ray
from comp.config.recipe import Recipe
from comp.console import say
from comp.data.manifest import read_training
from comp.deadline import deadline_in
from comp.errors import CompError
from comp.kaggle.submission_file import check_sample
from comp.models import network as models
from comp.models.weights import weights_file
from comp.tracking.follow import tracked
from comp.tracking.run import Run
from comp.training.extra_images import Extra, extras_of, joined
from comp.training.fit import train_fold
from comp.training.model_stamp import train_stamp
from comp.training.prepare import prepared


def run(recipe: Recipe, *, folds: list[int], force: bool, budget: float | None, on: str) -> None:
    with Ranks.joined() as ranks:
        if ranks.size > 1 and on == "ray":
            raise CompError("--on ray starts its jobs itself; leave out torchrun")
        _run(recipe, folds, force, budget, on, ranks)


def _run(recipe: Recipe, folds: list[int], force: bool, budget: float | None, on: str, ranks: Ranks) -> None:
    deadline = ranks.agreed(deadline_in(budget))
    data, labels, fold_of = read_training(recipe)
    if (line := check_sample(data.sample_csv, recipe.competition, labels.classes)) and ranks.is_first:
        say(f"train: {line}")
    extras = extras_of(recipe, folds, data, labels, fold_of)
    stamps = {
        fold: train_stamp(recipe, labels, fold_of, data.stamp, fold, extras[fold], data.limits)
        for fold in folds
    }
    todo = [fold for fold in folds if not is_done(model_path(recipe.name, fold), stamps[fold], force=force)]
    for fold in todo:  # what is half trained isn't replaced silently either
        kept = checkpoint_path(recipe.name, fold), log_path(recipe.name, fold)
        if any(path.exists() and path.stat().st_size for path in kept):
            is_done(started_path(recipe.name, fold), stamps[fold], force=force)
    if finished := sorted(set(folds) - set(todo)):
        say(f"train: {recipe.name} fold {', '.join(map(str, finished))} done already")
    runs = [Run(recipe, fold, stamps[fold]) for fold in folds] if ranks.is_first else []
    if not todo:
        with tracked(runs):  # what they lack
            return
    caches = prepared(
        recipe, data, labels, fold_of, {fold: extras[fold] for fold in todo}, deadline, ranks.size
    )
    more = "".join(map(_used, zip(*(extras[fold] for fold in todo))))
    say(
        f"train: {recipe.name}, {recipe.backbone}, folds {', '.join(map(str, todo))}, "
        f"{len(labels.ids):,} images{more}"
    )
    jobs = {
        f"fold {fold}": (recipe, fold, *joined(labels, fold_of, extras[fold]), caches, stamps[fold], force)
        for fold in todo
    }
    with tracked(runs, grow=True):
        if on == "ray":
            files = {f"fold {fold}": training_files(recipe.name, fold) for fold in todo}
            run_on_ray(
                train_fold, jobs, files, n_jobs=len(folds), deadline=deadline, environment=_weights(recipe)
            )
        else:
            places = [ranks.place()] if ranks.size > 1 else devices(len(folds))
            run_jobs(train_fold, jobs, places, deadline)


def _used(extras: Sequence[Extra]) -> str:
    """', 30 test images', or ', 28 to 30 …' where folds use more or fewer of the same ones."""
    counts = [int(extra.used.sum()) for extra in extras]
    most = "" if len(set(counts)) == 1 else f" to {max(counts):,}"
    return f", {min(counts):,}{most} {extras[0].images.name} images"


def _weights(recipe: Recipe) -> dict[str, Path]:
    """The weights for other machines, which may have neither these files nor internet."""
    if not recipe.pretrained:
        return {}
    path = weights_file(recipe.backbone, recipe.weights)
    if path is None:
        path = cache_dir(recipe.competition.name) / f"{recipe.backbone}.safetensors"
        if not path.exists():
            with replacing(path) as temporary:
                temporary.write_bytes(models.pretrained_weights(recipe.backbone))
    return {"COMP_WEIGHTS_COPY": path}
