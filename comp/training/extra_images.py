"""Images that only training sees: labelled external images, and test images with pseudo-labels of a finished
run. Their rows follow the competition's own and are in no fold."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.decision_schema import Decision
from comp.artifacts.files import read_json
from comp.artifacts.paths import (
    data_dir,
    decision_path,
    manifest_path,
    model_path,
    mounted,
    test_path,
)
from comp.artifacts.predictions import aligned, load
from comp.artifacts.schemas import Source
from comp.artifacts.stamps import digest, read_safetensors_header, read_stamp
from comp.config.competition import Competition
from comp.config.recipe import External, Recipe
from comp.data.discovery import split_template
from comp.data.duplicates import Groups, find_copies, read_groups_for
from comp.data.folder_files import folder_contents
from comp.data.folds import EXTRA, UNUSED
from comp.data.image_files import ImageSet, find_images
from comp.data.labels import Labels, read_labels
from comp.data.manifest import CompetitionFiles
from comp.decisions.calibration import EPS
from comp.decisions.metrics import FBeta
from comp.decisions.rules import FittedRule
from comp.errors import CompError

PSEUDO_NAME = "test"  # the name of the pseudo-labelled images: those of the test set


@dataclass(frozen=True)
class ExtraImages:
    images: ImageSet  # M images
    targets: np.ndarray  # (M, C) uint8, or float32
    used: np.ndarray  # (M,) bool
    fingerprint: str
    source: str = ""  # of pseudo-labels: the digest of all that they are computed from
    features: np.ndarray | None = None  # (M, F), of pseudo-labelled images


def read_extras(
    recipe: Recipe, folds: Sequence[int], data: CompetitionFiles, labels: Labels, fold_of: np.ndarray
) -> dict[int, list[ExtraImages]]:
    """Return by fold the extra images that its network is trained on: external images without duplicates of
    held-out ones, and pseudo-labelled test images. `fold_of` (N,) holds the labels' folds. Raise CompError
    where a file is missing."""
    extras = _externals_by_fold(recipe, folds, data, labels, fold_of)
    if recipe.pseudo:
        for fold in folds:
            extras[fold].append(
                _pseudo_label_test_images(
                    _read_teacher(recipe, fold, data, labels, fold_of), recipe, data, labels
                )
            )
    return extras


def extra_stamps(
    recipe: Recipe, folds: Sequence[int], data: CompetitionFiles, labels: Labels, fold_of: np.ndarray
) -> dict[int, dict[str, str]]:
    """Return by fold the stamps of `read_extras` by name.

    A finished model keeps the digest of what its pseudo-labels were computed from. Pseudo-labels are only
    computed again where that digest is missing or differs."""
    externals = _externals_by_fold(recipe, folds, data, labels, fold_of)
    stamps = {fold: stamps_by_name(extras) for fold, extras in externals.items()}
    for fold in folds if recipe.pseudo else ():
        teacher = _read_teacher(recipe, fold, data, labels, fold_of)
        stamps[fold][PSEUDO_NAME] = (
            _kept_stamp(model_path(recipe.name, fold), teacher.source)
            or _pseudo_label_test_images(teacher, recipe, data, labels).fingerprint
        )
    return stamps


def stamps_by_name(extras: Sequence[ExtraImages]) -> dict[str, str]:
    return {extra.images.name: extra.fingerprint for extra in extras}


def read_externals(
    recipe: Recipe, classes: tuple[str, ...], channels: Sequence[str], data: CompetitionFiles
) -> list[ExtraImages]:
    """Return all external images, in these channels, with the competition's limits of values."""
    return [
        _external(external, number, recipe.competition, classes, channels, data)
        for number, external in enumerate(recipe.external)
    ]


def append_extras(
    labels: Labels, fold_of: np.ndarray, extras: Sequence[ExtraImages]
) -> tuple[Labels, np.ndarray]:
    """Return labels and folds with the rows of the extra images appended. These have the mean weight, and no
    answer ids; features that external images lack are unknown."""
    more: dict[str, Any] = {"answer_ids": None}
    if labels.weights is not None:
        mean = labels.weights[fold_of != UNUSED].mean(dtype=np.float64)
        ones = [np.full(len(extra.used), mean, np.float32) for extra in extras]
        more["weights"] = np.concatenate([labels.weights, *ones])
    if (own := labels.features) is not None:
        unknown = [np.full((len(extra.used), own.shape[1]), np.nan, np.float32) for extra in extras]
        given = [u if extra.features is None else extra.features for u, extra in zip(unknown, extras)]
        more["features"] = np.concatenate([own, *given])
    ids = np.concatenate([labels.ids, *(extra.images.ids for extra in extras)])
    targets = np.concatenate([labels.targets, *(extra.targets for extra in extras)])
    folds = np.concatenate([fold_of, *(np.where(extra.used, EXTRA, UNUSED) for extra in extras)])
    return replace(labels, ids=ids, targets=targets, fold_groups=None, **more), folds


# --- external images ----------------------------------------------------------------------------------------


def _externals_by_fold(
    recipe: Recipe, folds: Sequence[int], data: CompetitionFiles, labels: Labels, fold_of: np.ndarray
) -> dict[int, list[ExtraImages]]:
    externals = read_externals(recipe, labels.classes, recipe.channels, data)
    groups = read_groups_for(recipe.competition.name, stamps_by_name(externals))
    return {
        fold: [_without_copies(extra, labels.ids[fold_of == fold], groups) for extra in externals]
        for fold in folds
    }


def _without_copies(extra: ExtraImages, held_out: np.ndarray, groups: Groups) -> ExtraImages:
    copies = find_copies(held_out.tolist(), extra.images.name, extra.images.ids.tolist(), groups)
    return (
        replace(extra, used=~copies, fingerprint=digest(extra.fingerprint, copies)) if copies.any() else extra
    )


def _external(
    external: External,
    number: int,
    competition: Competition,
    classes: tuple[str, ...],
    channels: Sequence[str],
    data: CompetitionFiles,
) -> ExtraImages:
    places = [Path(), data_dir(competition.name)]
    if source := (read_stamp(manifest_path(competition.name), Source) or {}).get("from"):
        places.append(Path(source))
    places += [place for name in competition.all_sources if (place := mounted(name))]
    looked = ", ".join(map(str, places))
    csv = next((place / external.csv for place in places if (place / external.csv).is_file()), None)
    if csv is None:
        raise CompError(f"external: no {external.csv} in {looked}; put it there, or give its path")
    own = competition.labels
    changes = {"classes": classes, "group": None, "csv": (external.csv,), "exclusive": (), "ignore": ()}
    changes |= {"group_pattern": None, "answer_id": None, "weight": None, "features": ()}
    named = {key: getattr(external, key) for key in ("id", "column", "separator")}
    changes |= {key: value for key, value in named.items() if value is not None}
    labels = read_labels(csv, own.model_copy(update=changes), competition.metric.kind)
    folders = []
    for template in external.images:
        tail, pattern = split_template(template)
        folders += [(place.joinpath(*tail), pattern) for place in places if place.joinpath(*tail).is_dir()]
    if not folders:
        raise CompError(f"external: no folder for {' or '.join(external.images)} in {looked}")
    name = f"external{number}" if number else "external"
    images = replace(find_images(name, labels.ids, folders, channels), limits=data.limits_of(channels))
    found = [(pattern, folder_contents(folder, pattern)["digest"]) for folder, pattern in folders]
    fingerprint = digest(found, labels.ids, labels.targets)
    return ExtraImages(images, labels.targets, np.ones(len(labels.ids), bool), fingerprint)


# --- pseudo-labels ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Teacher:
    """What the pseudo-labels of a fold are computed from."""

    predictions: Path  # of the test images
    rule: FittedRule | None  # of labels; other answers are learned as they were predicted
    ids: np.ndarray  # (N,) str, the test ids
    source: str  # a digest of all of it, and of the recipe's settings


def _read_teacher(
    recipe: Recipe, fold: int, data: CompetitionFiles, labels: Labels, fold_of: np.ndarray
) -> _Teacher:
    """Return the test predictions of the teacher's network that held out the same fold. For a network that
    holds nothing out, return the mean of all of the teacher's networks."""
    assert recipe.pseudo
    teacher, metric = recipe.pseudo.run, FBeta.from_metric(recipe.competition.metric)
    held_out = fold < recipe.n_folds
    path, decided = test_path(teacher, fold if held_out else None), decision_path(teacher)
    for needed in (path, decided):
        if not needed.exists():
            raise CompError(f"pseudo: {needed} is missing; run all stages up to `comp decide` for {teacher}")
    decision = read_json(decided, Decision)
    if decision["stamp"]["folds"] != labels.fingerprint_of(fold_of):
        raise CompError(
            f"pseudo: {teacher} and {recipe.name} have different folds; give both the same n_folds and seed"
        )
    ids, kind = data.test_ids(recipe.competition), recipe.competition.metric.kind
    if kind == "numbers" and recipe.pseudo.share < 1:
        raise CompError("pseudo.share: numbers have no confidence to choose images by; remove it")
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    if kind != "labels":
        return _Teacher(path, None, ids, digest(content, recipe.pseudo.share, labels.classes, ids))
    rule = decision.get("by_fold", {}).get(str(fold)) if held_out else decision
    if rule is None:
        raise CompError(f"pseudo: {decided} has no rule for fold {fold}; run all folds of {teacher}")
    fitted = FittedRule.from_json(rule, labels.classes)
    settings = asdict(metric), recipe.pseudo.share, labels.classes
    source = digest(content, *asdict(fitted).values(), settings, ids)
    return _Teacher(path, fitted, ids, source)


def _pseudo_label_test_images(
    teacher: _Teacher, recipe: Recipe, data: CompetitionFiles, labels: Labels
) -> ExtraImages:
    """Return the test images with the teacher's labels, probabilities or numbers. The share of the recipe
    with the lowest entropy is used."""
    assert recipe.pseudo
    ids = teacher.ids
    probs = aligned(load(teacher.predictions, labels.classes), ids, teacher.predictions)
    targets = probs
    if teacher.rule:
        targets = teacher.rule.decide(probs, FBeta.from_metric(recipe.competition.metric))
    p = np.clip(probs.astype(float), EPS, 1 - EPS)
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(1)
    used = np.zeros(len(ids), bool)
    used[np.argsort(entropy, kind="stable")[: max(1, round(recipe.pseudo.share * len(ids)))]] = True
    images = data.images(PSEUDO_NAME, ids, recipe.channels)
    features = None if labels.features is None else data.test_features(recipe.competition)
    return ExtraImages(images, targets, used, digest(ids, targets, used), teacher.source, features)


def _kept_stamp(model: Path, source: str) -> str | None:
    """Return the pseudo-labels' stamp of a finished model whose labels were computed from `source`; None for
    any other model."""
    if not model.exists() or read_safetensors_header(model)[0].get("pseudo") != source:
        return None
    return ((read_stamp(model) or {}).get("extras") or {}).get(PSEUDO_NAME)
