"""folds: multilabel-stratified folds (Sechidis et al. 2011), images of one group and duplicates together.

Reads the label CSV, and where it is there folds/<competition>-duplicates.csv; writes
folds/<competition>-k<n>-s<seed>.csv (id, fold), and its stamp beside it.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

from comp.artifacts import digest, folds_path, is_done, write_json, write_text
from comp.config import Recipe
from comp.console import say, table
from comp.duplicates import grouped
from comp.errors import CompError, some
from comp.folds import read_folds
from comp.labels import Labels, groups_of
from comp.manifest import read_manifest


def run(recipe: Recipe, *, force: bool) -> None:
    competition = recipe.competition
    data = read_manifest(competition)
    labels = grouped(data.labels(competition), competition.name, data.stamp)
    path = folds_path(competition.name, recipe.n_folds, recipe.seed)
    stamp_path = path.with_suffix(".json")
    stamp = {
        "n_folds": recipe.n_folds,
        "seed": recipe.seed,
        "labels": digest(labels.ids, labels.classes, labels.targets),
        "group": competition.labels.group,
        "groups": "" if labels.groups is None else digest(labels.groups),
    }
    if path.exists() and not force and not stamp_path.exists():
        fold_of = read_folds(path, labels.ids, recipe.n_folds)
        check_groups(labels, fold_of, path)
        say(f"folds: {path} is not from here; it holds every id once and is taken as it is")
    elif path.exists() and not force and is_done(stamp_path, stamp, force=False):
        read_folds(path, labels.ids, recipe.n_folds)
        say(f"folds: {path} done already")
        return
    else:
        fold_of = assign(labels, recipe.n_folds, recipe.seed)
        path.unlink(missing_ok=True)
        write_json(stamp_path, {"stamp": stamp})
        frame = pd.DataFrame({"id": labels.ids, "fold": fold_of})
        write_text(path, frame.to_csv(index=False, lineterminator="\n"))
        say(f"folds: {path}, {len(labels.ids):,} ids")
    for group in groups_of(competition.labels, labels.classes):
        if n_wrong := int((labels.targets[:, group].sum(1) != 1).sum()):
            listed = ", ".join(labels.classes[c] for c in group)
            say(f"folds: {n_wrong:,} images don't have exactly one of {listed}")
    counts = [
        [int(labels.targets[fold_of == fold, c].sum()) for fold in range(recipe.n_folds)]
        for c in range(len(labels.classes))
    ]
    names = list(labels.classes)
    if competition.labels.empty:
        bare = fold_of[~labels.targets.any(1)]
        counts.append([int((bare == fold).sum()) for fold in range(recipe.n_folds)])
        names.append(f"({competition.labels.none or 'none'})")
    sizes = [int((fold_of == fold).sum()) for fold in range(recipe.n_folds)]
    table(
        ["class", "all", *(f"fold {fold}" for fold in range(recipe.n_folds))],
        [[n, f"{sum(c):,}", *(f"{x:,}" for x in c)] for n, c in zip([*names, "images"], [*counts, sizes])],
    )


def assign(labels: Labels, n_folds: int, seed: int) -> np.ndarray:
    """(N,) int: the fold of each row, the same whatever the order of the rows. A group counts as one row that
    has all labels of its images."""
    names = labels.ids if labels.groups is None else labels.groups
    if len(np.unique(names)) < n_folds:
        raise CompError(
            f"{len(np.unique(names))} images or groups can't be cut into {n_folds} folds; lower n_folds"
        )
    units, unit_of = np.unique(names, return_inverse=True)  # sorted before shuffling
    targets = np.zeros((len(units), len(labels.classes) + 1), np.uint8)
    np.maximum.at(targets, unit_of, np.pad(labels.targets, ((0, 0), (0, 1))))
    targets[:, -1] = ~targets.any(1)  # images without any label are spread as well
    targets = targets[:, targets.any(0)]
    fold_of_unit = np.full(len(units), -1)
    splitter = MultilabelStratifiedKFold(n_splits=n_folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(targets, targets)):
        assert (fold_of_unit[held_out] == -1).all(), "a row is held out twice"
        fold_of_unit[held_out] = fold
    assert (fold_of_unit >= 0).all(), "a row is in no fold"
    return fold_of_unit[unit_of]


def check_groups(labels: Labels, fold_of: np.ndarray, path: Path) -> None:
    """Raises CompError where a group is in more than one fold: what is learned in one would leak into
    another."""
    if labels.groups is None:
        return
    pairs = np.unique(np.stack([labels.groups, fold_of.astype(str)]), axis=1)[0]
    if torn := sorted(set(pairs[1:][pairs[1:] == pairs[:-1]].tolist())):
        raise CompError(f"{path} has groups in more than one fold: {some(torn)}; keep each in one")
