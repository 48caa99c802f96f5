"""Images that training alone sees: labelled ones from elsewhere, and test images with the labels that a
finished run gives them. They are rows behind the competition's own, in no fold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from comp.artifacts.files import read_json
from comp.artifacts.paths import data_dir, decision_path, manifest_path, mounted, test_path
from comp.artifacts.predictions import aligned, load
from comp.artifacts.schemas import Decision, Source
from comp.artifacts.stamps import digest, read_stamp
from comp.config.competition import Competition
from comp.config.recipe import External, Pseudo, Recipe
from comp.data.discovery import contents, split_template
from comp.data.duplicates import Groups, copies_of, groups_about
from comp.data.folds import EXTRA, UNUSED
from comp.data.image_files import ImageSet, find_images
from comp.data.labels import Labels, read_labels
from comp.data.manifest import Data
from comp.decisions.calibration import EPS
from comp.decisions.rules import Fitted
from comp.errors import CompError


@dataclass(frozen=True)
class Extra:
    images: ImageSet  # of M images
    targets: np.ndarray  # (M, C) uint8
    used: np.ndarray  # (M,) bool
    stamp: str


def extras_of(
    recipe: Recipe, folds: Sequence[int], data: Data, labels: Labels, fold_of: np.ndarray
) -> dict[int, list[Extra]]:
    """By fold, what its network learns besides the training images of other folds: external images but for
    duplicates of those held out, and pseudo-labelled ones. `fold_of` (N,) are the folds of the labels. Raises
    CompError where it isn't there."""
    external, pseudo = externals_of(recipe, labels.classes, recipe.channels, data), recipe.pseudo
    groups = groups_about(recipe.competition.name, {extra.images.name: extra.stamp for extra in external})
    return {
        fold: [
            *(_without_copies(extra, labels.ids[fold_of == fold], groups) for extra in external),
            *([_pseudo(pseudo, recipe, fold, data, labels, fold_of)] if pseudo else []),
        ]
        for fold in folds
    }


def externals_of(
    recipe: Recipe, classes: tuple[str, ...], channels: Sequence[str], data: Data
) -> list[Extra]:
    """All labelled images from elsewhere, in these channels, with the limits of the competition's."""
    return [
        _external(external, number, recipe.competition, classes, channels, data)
        for number, external in enumerate(recipe.external)
    ]


def joined(labels: Labels, fold_of: np.ndarray, extras: list[Extra]) -> tuple[Labels, np.ndarray]:
    """Labels and folds with the rows of the extras behind them."""
    ids = np.concatenate([labels.ids, *(extra.images.ids for extra in extras)])
    targets = np.concatenate([labels.targets, *(extra.targets for extra in extras)])
    folds = np.concatenate([fold_of, *(np.where(extra.used, EXTRA, UNUSED) for extra in extras)])
    return replace(labels, ids=ids, targets=targets, groups=None), folds


def _without_copies(extra: Extra, held_out: np.ndarray, groups: Groups) -> Extra:
    copies = copies_of(held_out.tolist(), extra.images.name, extra.images.ids.tolist(), groups)
    return replace(extra, used=~copies, stamp=digest(extra.stamp, copies)) if copies.any() else extra


def _external(
    external: External,
    number: int,
    competition: Competition,
    classes: tuple[str, ...],
    channels: Sequence[str],
    data: Data,
) -> Extra:
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
    named = {key: getattr(external, key) for key in ("id", "column", "separator")}
    changes |= {key: value for key, value in named.items() if value is not None}
    labels = read_labels(csv, own.model_copy(update=changes))
    folders = []
    for template in external.images:
        tail, pattern = split_template(template)
        folders += [(place.joinpath(*tail), pattern) for place in places if place.joinpath(*tail).is_dir()]
    if not folders:
        raise CompError(f"external: no folder for {' or '.join(external.images)} in {looked}")
    name = f"external{number}" if number else "external"
    images = replace(find_images(name, labels.ids, folders, channels), limits=data.limits)
    found = [(pattern, contents(folder, pattern)["digest"]) for folder, pattern in folders]
    stamp = digest(found, labels.ids, labels.targets)
    return Extra(images, labels.targets, np.ones(len(labels.ids), bool), stamp)


def _pseudo(
    pseudo: Pseudo, recipe: Recipe, fold: int, data: Data, labels: Labels, fold_of: np.ndarray
) -> Extra:
    """The test images as the teacher's network of this fold sees them: for one that holds nothing out, as all
    of them do."""
    teacher, competition = pseudo.run, recipe.competition
    held_out = fold < recipe.n_folds
    path, decided = test_path(teacher, fold if held_out else None), decision_path(teacher)
    for needed in (path, decided):
        if not needed.exists():
            raise CompError(
                f"pseudo: {needed} is not there; run all stages up to `comp decide` for {teacher}"
            )
    decision = read_json(decided, Decision)
    if decision["stamp"]["folds"] != digest(labels.ids, fold_of):
        raise CompError(
            f"pseudo: {teacher} was decided with other folds than {recipe.name} has; its n_folds and seed "
            "have to be the same"
        )
    rule = decision.get("by_fold", {}).get(str(fold)) if held_out else decision
    if rule is None:
        raise CompError(f"pseudo: {decided} knows nothing of fold {fold}; run all folds of {teacher}")
    ids = data.sample_ids(competition)
    probs = aligned(load(path, labels.classes), ids, path)
    targets = Fitted.from_json(rule, labels.classes).decide(
        probs, beta=competition.metric.beta, empty=competition.metric.empty
    )
    p = np.clip(probs.astype(float), EPS, 1 - EPS)
    doubt = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum(1)  # entropy
    used = np.zeros(len(ids), bool)
    used[np.argsort(doubt, kind="stable")[: max(1, round(pseudo.share * len(ids)))]] = True
    images = data.images("test", ids, recipe.channels)
    return Extra(images, targets, used, digest(ids, targets, used))
