"""infer: a submission for the test images with finished models, for code competitions with a hidden test set.

Reads the present sample submission and test images, each fold's model.safetensors, and decision.json; writes
runs/<recipe>/fold<k>/infer.npz and the CSV. It needs no training data.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.decision_schema import classes_of
from comp.artifacts.files import lock, write_text
from comp.artifacts.paths import cache_dir, data_dir, inferred_path, manifest_path, model_path, mounted
from comp.artifacts.predictions import aligned, by_answer, load, mean_of_folds
from comp.artifacts.schemas import Source
from comp.artifacts.stamps import digest, is_done, read_stamp
from comp.batches.view_names import stamped_views, view_names
from comp.compute.devices import devices
from comp.compute.local_jobs import run_jobs
from comp.config.competition import Competition
from comp.config.recipe import Recipe
from comp.console import info
from comp.data.columns import read_features
from comp.data.discovery import FileFinder, source_path
from comp.data.image_cache import build_caches
from comp.data.image_files import ImageSet, find_images
from comp.data.path_tables import with_paths_as_ids, write_tables
from comp.data.table_rows import cells_of, rows_of, sample_ids_of, test_answers_of, test_ids_of
from comp.deadline import deadline_in
from comp.decisions.answer_rules import rule_from_json
from comp.decisions.scorers import without_code
from comp.errors import CompError
from comp.kaggle.submission_file import check_submission, describe, submission_text
from comp.models.inference import PredictionInputs, predict_set
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
    classes = classes_of(decision)
    files, images, images_stamp, features = find_test(competition, recipe.channels, source)
    answer_of, ids = test_answers_of(files, competition, images.ids), images.ids
    images = replace(images, limits=limits_of_model(model_path(recipe.name, folds[0])))
    _predict(recipe, folds, images, images_stamp, features, force, deadline)
    probs = _mean_probs(recipe, folds, images.ids, classes)
    if answer_of is not None:
        ids = sample_ids_of(files["sample"], competition)
        probs = by_answer(probs, answer_of, ids, competition.submission.aggregate)
    answers = rule_from_json(decision, classes).decide(probs, without_code(competition.metric))
    text = submission_text(answers, ids, classes, competition, files["sample"])
    check_submission(text, target, competition, classes, ids)
    if target.exists() and not force:
        if target.read_bytes() != text.encode():
            raise CompError(f"{target} is another submission; --force replaces it, --to names another file")
        info(f"infer: {target} done already")
        return
    write_text(target, text)
    info(f"infer: {target}, {len(ids):,} rows, {describe(answers, competition)}")


def _predict(
    recipe: Recipe,
    folds: list[int],
    images: ImageSet,
    images_stamp: str,
    features: np.ndarray | None,
    force: bool,
    deadline: float,
) -> None:
    """Write infer.npz of each fold that is not done already."""
    views, size = view_names(recipe.views), recipe.phases[-1].size
    stamps = {
        fold: {
            "views": stamped_views(recipe.views, recipe.code),
            "train": digest(read_stamp(model_path(recipe.name, fold))),
            "ids": digest(images.ids),
            "images": images_stamp,
            **({} if features is None else {"features": digest(features)}),
        }
        for fold in folds
    }
    todo = [f for f in folds if not is_done(inferred_path(recipe.name, f), stamps[f], force=force)]
    if not todo:
        return
    places = devices(len(folds))
    where = cache_dir(recipe.competition.name)
    needed = {"test": (images, [size])}
    caches = build_caches(
        needed,
        where,
        images_stamp,
        deadline,
        recipe.max_size,
        recipe.filter,
        recipe.code,
        recipe.decode,
    )
    cache = caches["test"][size]
    info(f"infer: {recipe.name}, {len(images.ids):,} images, {len(views)} views, {len(folds)} folds")
    rows = np.arange(len(images.ids))
    jobs: dict[str, tuple[Any, ...]] = {
        f"fold {fold}": (
            PredictionInputs(
                recipe,
                model_path(recipe.name, fold),
                inferred_path(recipe.name, fold),
                images.ids,
                rows,
                cache,
                stamps[fold],
                features,
            ),
        )
        for fold in todo
    }
    run_jobs(predict_set, jobs, places, deadline)


def _mean_probs(recipe: Recipe, folds: list[int], ids: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Return the mean (N, C) float32 of the folds' probabilities."""
    paths = [inferred_path(recipe.name, fold) for fold in folds]
    return mean_of_folds(aligned(load(path, classes), ids, path) for path in paths)


def find_test(
    competition: Competition, channels: Sequence[str], source: str | None
) -> tuple[dict[str, Path], ImageSet, str, np.ndarray | None]:
    """Return the tables by name, the images of its ids in its order, a digest of the image folders, and the
    features (N, F) of the images, if labels.features names some. Raise CompError where they are missing."""
    if source is not None:
        source_path(source)
    folder = data_dir(competition.name)
    if source is None:  # the folder where `comp download` found the files
        source = (read_stamp(manifest_path(competition.name), Source) or {}).get("from")
    places = [folder, *([Path(source)] if source else [])]
    on_kaggle = [place for s in competition.all_sources if (place := mounted(s))]
    with lock(folder / ".lock", f"looking for the files of {competition.name}"):
        finder = FileFinder(competition, [*places, *on_kaggle], ("sample", "table", "test"))
        found, missing = finder.find()
    test = found["images"]["test"]
    if not test or any(need.part != "test" for need in missing):
        raise CompError(
            f"{competition.name}: no {' and no '.join(map(str, missing))} in "
            f"{', '.join(map(str, [*places, *on_kaggle]))}; put them there, or name their folder with --from"
            f"{finder.hints(missing)}"
        )
    found["files"] |= write_tables(found, folder, competition, ("sample",))
    files = {name: folder / file for name, file in found["files"].items()}
    ids = test_ids_of(files, competition)
    folders = [(folder / place["folder"], place["pattern"]) for place in test]
    folders = with_paths_as_ids(folders, "test", competition)
    images = find_images("test", ids, folders, channels, cells_of(files, "test", competition, folders, ids))
    contents = [(p["pattern"], p["files"], p["bytes"], p["digest"]) for p in test]
    features = None
    if patterns := competition.labels.features:
        rows = rows_of(files, "test", competition, [], ids)
        features = read_features(rows, patterns, files.get("table", files["sample"]))[1]
    return files, images, digest(contents, channels), features
