"""infer: test images to a submission with finished models, for code competitions whose test set is hidden.

Reads the sample submission and the test images, whichever they are now, each fold's model.safetensors, and
decision.json; writes runs/<recipe>/fold<k>/infer.npz and the CSV. No training data is looked for.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.files import locked, write_text
from comp.artifacts.paths import cache_dir, data_dir, inferred_path, manifest_path, model_path, mounted
from comp.artifacts.predictions import aligned, load
from comp.artifacts.schemas import Source
from comp.artifacts.stamps import digest, is_done, read_stamp
from comp.batches.tta import view_names
from comp.compute.devices import devices
from comp.compute.local_jobs import run_jobs
from comp.config.competition import Competition
from comp.config.recipe import Recipe
from comp.console import say
from comp.data.discovery import Finder, from_folder
from comp.data.image_cache import cached
from comp.data.image_files import ImageSet, find_images
from comp.data.manifest import read_sample_ids
from comp.deadline import deadline_in
from comp.decisions.rules import Fitted
from comp.errors import CompError
from comp.kaggle.submission_file import check_submission, submission_text
from comp.models.inference import predict_set
from comp.training.model_stamp import limits_of_model, read_decision


def run(
    recipe: Recipe, *, source: str | None, folds: list[int], force: bool, budget: float | None, to: str
) -> None:
    if recipe.members:
        names = ", ".join(member.name for member in recipe.members)
        raise CompError(f"{recipe.name} is a blend of {names}; infer takes the recipe of one of them")
    deadline = deadline_in(budget)
    competition, target = recipe.competition, Path(to)
    decision = read_decision(recipe, folds)
    classes = tuple(decision["thresholds"])
    sample, images, images_stamp = find_test(competition, recipe.channels, source)
    images = replace(images, limits=limits_of_model(model_path(recipe.name, folds[0])))
    views, size = view_names(recipe.views), recipe.phases[-1].size
    stamps = {
        fold: {
            "views": views,
            "train": digest(read_stamp(model_path(recipe.name, fold))),
            "ids": digest(images.ids),
            "images": images_stamp,
        }
        for fold in folds
    }
    todo = [f for f in folds if not is_done(inferred_path(recipe.name, f), stamps[f], force=force)]
    if todo:
        cache = cached(
            {"test": (images, [size])}, cache_dir(competition.name), images_stamp, deadline,
            recipe.finest, recipe.filter,
        )  # fmt: skip
        say(f"infer: {recipe.name}, {len(images.ids):,} images, {len(views)} views, {len(folds)} folds")
        rows = np.arange(len(images.ids))
        jobs: dict[str, tuple[Any, ...]] = {
            f"fold {fold}": (
                recipe, model_path(recipe.name, fold), inferred_path(recipe.name, fold),
                images.ids, rows, cache["test"][size], stamps[fold],
            )
            for fold in todo
        }  # fmt: skip
        run_jobs(predict_set, jobs, devices(len(folds)), deadline)
    total = np.zeros((len(images.ids), len(classes)), np.float64)
    for fold in folds:
        path = inferred_path(recipe.name, fold)
        total += aligned(load(path, classes), images.ids, path)
    probs = (total / len(folds)).astype(np.float32)
    decisions = Fitted.from_json(decision, classes).decide(
        probs, beta=competition.metric.beta, empty=competition.metric.empty
    )
    text = submission_text(decisions, images.ids, classes, competition, sample)
    check_submission(text, target, competition, classes, images.ids)
    if target.exists() and not force:
        if target.read_bytes() != text.encode():
            raise CompError(f"{target} is another submission; --force replaces it, --to names another file")
        say(f"infer: {target} done already")
        return
    write_text(target, text)
    say(f"infer: {target}, {len(images.ids):,} rows, {decisions.sum(1).mean():.2f} labels a row")


def find_test(
    competition: Competition, channels: Sequence[str], source: str | None
) -> tuple[Path, ImageSet, str]:
    """(sample submission, the images of its ids in its order, a digest of what the image folders hold)."""
    if source is not None:
        from_folder(source)
    folder = data_dir(competition.name)
    if source is None:  # where `comp download` found the files
        source = (read_stamp(manifest_path(competition.name), Source) or {}).get("from")
    places = [folder, *([Path(source)] if source else [])]
    on_kaggle = [place for s in competition.all_sources if (place := mounted(s))]
    with locked(folder / ".lock", f"looking for the files of {competition.name}"):
        finder = Finder(competition, [*places, *on_kaggle], ("sample", "test"))
        found, missing = finder.find()
    test = found["images"]["test"]
    if "sample" not in found["files"] or not test:
        raise CompError(
            f"{competition.name}: no {' and no '.join(map(str, missing))} in "
            f"{', '.join(map(str, [*places, *on_kaggle]))}; put them there, or name their folder with --from"
            f"{finder.nearly(missing)}"
        )
    sample = folder / found["files"]["sample"]
    ids = read_sample_ids(sample, competition)
    folders = [(folder / place["folder"], place["pattern"]) for place in test]
    images = find_images("test", ids, folders, channels)
    contents = [(p["pattern"], p["files"], p["bytes"], p["digest"]) for p in test]
    return sample, images, digest(contents, channels)
