"""folds: multilabel-stratified folds (Sechidis et al. 2011) that keep groups and duplicates together.

Reads the label CSV and, if it exists, folds/<competition>-duplicates.csv; writes
folds/<competition>-k<n>-s<seed>.csv (id, fold) and its stamp beside it.
"""

import numpy as np
import pandas as pd

from comp.artifacts.files import write_json, write_text
from comp.artifacts.paths import folds_path
from comp.artifacts.stamps import is_done
from comp.config.recipe import Recipe
from comp.console import info, table
from comp.data.duplicates import with_duplicate_groups
from comp.data.folds import (
    assign_folds,
    check_groups,
    count_bare_images,
    count_classes,
    find_rarest,
    folds_stamp,
    read_folds,
    remarks,
)
from comp.data.labels import Labels, count_ungrouped, exclusive_groups
from comp.data.manifest import read_manifest
from comp.errors import CompError
from comp.kaggle.submission_file import check_sample


def run(recipe: Recipe, *, force: bool) -> None:
    competition = recipe.competition
    data = read_manifest(competition)
    given = data.labels(competition)
    if not given.are_numbers and not given.positives.any():
        raise CompError(f"{data.labels_csv}: no image has a label; there is nothing to learn")
    labels = with_duplicate_groups(given, competition.name, data.fingerprint)
    check_sample(data.sample_csv, competition, labels.classes)
    path = folds_path(competition.name, recipe.n_folds, recipe.seed)
    stamp_path, stamp = path.with_suffix(".json"), folds_stamp(labels, recipe)
    if path.exists() and not force and not stamp_path.exists():
        fold_of = read_folds(path, labels.ids, recipe.n_folds)
        check_groups(labels, fold_of, path)
        info(
            f"folds: {path} was not written by comp; every id is in it exactly once, so it is used unchanged"
        )
    elif path.exists() and not force and is_done(stamp_path, stamp, force=False):
        read_folds(path, labels.ids, recipe.n_folds)
        info(f"folds: {path} done already")
        return
    else:
        fold_of = assign_folds(labels, recipe.n_folds, recipe.seed)
        path.unlink(missing_ok=True)
        write_json(stamp_path, {"stamp": stamp})
        frame = pd.DataFrame({"id": labels.ids, "fold": fold_of})
        write_text(path, frame.to_csv(index=False, lineterminator="\n"))
        info(f"folds: {path}, {len(labels.ids):,} ids")
    for group in exclusive_groups(competition.labels, labels.classes):
        if n_wrong := int((labels.positives[:, group].sum(1) != 1).sum()):
            names = ", ".join(labels.classes[c] for c in group)
            info(f"folds: {n_wrong:,} images don't have exactly one of {names}")
    if n_ungrouped := count_ungrouped(given):
        info(f"folds: {n_ungrouped:,} images have no {competition.labels.group}; each is a group of its own")
    if n_unknown := int((~labels.known).sum()):
        info(f"folds: {n_unknown:,} cells of the labels are not known; no loss or score counts them")
    if labels.are_numbers:
        print_means(labels, fold_of, recipe.n_folds)
        return
    counts = count_classes(labels, fold_of, recipe.n_folds)
    for line in remarks(labels, counts, fold_of, with_duplicates=labels is not given):
        info(f"folds: {line}")
    print_table(recipe, labels, counts, fold_of)


def print_means(labels: Labels, fold_of: np.ndarray, n_folds: int) -> None:
    """Print the mean of each number, of all images and of each fold."""
    parts = [np.ones(len(fold_of), bool), *(fold_of == fold for fold in range(n_folds))]
    table(
        ["mean", "all", *(f"fold {fold}" for fold in range(n_folds))],
        [
            *(
                [name, *(f"{np.nanmean(labels.targets[part, c]):.4g}" for part in parts)]
                for c, name in enumerate(labels.classes)
            ),
            ["images", *(f"{part.sum():,}" for part in parts)],
        ],
    )


def print_table(recipe: Recipe, labels: Labels, counts: np.ndarray, fold_of: np.ndarray) -> None:
    """Print the images of each class, `counts` (C, folds), and of all classes, in each fold."""
    rarest, table_of_labels = find_rarest(counts), recipe.competition.labels
    names, rows = [labels.classes[c] for c in rarest.tolist()], counts[rarest].tolist()
    if table_of_labels.empty:
        names.append(f"({table_of_labels.none or 'none'})")
        rows.append(count_bare_images(labels, fold_of, recipe.n_folds).tolist())
    names.append("images")
    rows.append(np.bincount(fold_of, minlength=recipe.n_folds).tolist())
    table(
        ["class", "all", *(f"fold {fold}" for fold in range(recipe.n_folds))],
        [[name, f"{sum(row):,}", *(f"{n:,}" for n in row)] for name, row in zip(names, rows)],
    )
