"""Multilabel-stratified folds: make, read, check and describe them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array, hstack

from comp.artifacts.csv_tables import check_unique, read_table
from comp.artifacts.stamps import digest
from comp.config.recipe import Recipe
from comp.data.labels import Labels
from comp.data.stratification import stratify, stratify_by_size
from comp.errors import CompError, summarize

MAX_UNEVENNESS = 0.05  # warn if the smallest fold is smaller than the largest by more than this share
N_PARTS = 10  # parts of the range of a number that folds share evenly
MAX_CLASSES_SHOWN = 100  # rows of the table of classes

EXTRA, UNUSED = -1, -2  # instead of a fold: rows that every network trains on, and rows that none does


def read_folds(path: Path, ids: np.ndarray, n_folds: int) -> np.ndarray:
    """Return (N,) int: the fold of each id, 0 … n_folds - 1. Raise CompError for missing, unknown or repeated
    ids, and for folds other than these."""
    if not path.exists():
        raise CompError(f"{path} is not there; run `comp folds` first")
    table = read_table(path, ["id", "fold"])
    listed = table["id"].to_numpy(str)
    check_unique(listed, path)
    fold_of = dict(zip(listed.tolist(), table["fold"]))
    if missing := [i for i in ids.tolist() if i not in fold_of]:
        raise CompError(f"{path} lacks ids: {summarize(missing)}; rerun `comp folds --force`")
    if extra := sorted(fold_of.keys() - set(ids.tolist())):
        raise CompError(
            f"{path} has ids that the labels don't have: {summarize(extra)}; rerun `comp folds --force`"
        )
    names = [str(fold) for fold in range(n_folds)]
    if wrong := sorted(set(fold_of.values()) ^ set(names)):
        raise CompError(
            f"{path}: folds {', '.join(names)} are expected, each with at least one row; "
            f"missing or unknown: {summarize(wrong)}"
        )
    return np.array([int(fold_of[i]) for i in ids.tolist()])


def folds_stamp(labels: Labels, recipe: Recipe) -> dict[str, Any]:
    """Return the stamp of a table of folds; `labels` hold the final `fold_groups`."""
    return {
        "n_folds": recipe.n_folds,
        "seed": recipe.seed,
        "labels": digest(labels.ids, labels.classes, labels.targets),
        "group": recipe.competition.labels.group,
        "groups": "" if labels.fold_groups is None else digest(labels.fold_groups),
    }


def unevenness(sizes: np.ndarray) -> float:
    """Return the share of the largest fold that the smallest fold lacks."""
    return float(1 - sizes.min() / sizes.max())


def are_uneven(sizes: np.ndarray) -> bool:
    return unevenness(sizes) > MAX_UNEVENNESS and sizes.max() - sizes.min() > 1


def assign_folds(labels: Labels, n_folds: int, seed: int) -> np.ndarray:
    """Return (N,) int: the fold of each row, whatever the order of the rows. Numbers count as labels, by the
    part of their range. A group counts as one row with all labels of its images. If that leaves folds uneven,
    because groups are, a group counts by its size. Raise CompError for fewer groups than folds."""
    names = labels.ids if labels.fold_groups is None else labels.fold_groups
    # sorted before shuffling
    units, unit_of, sizes = np.unique(names, return_inverse=True, return_counts=True)
    if len(units) < n_folds:
        hint = "" if labels.fold_groups is None else f", or change the groups of the {len(names):,} images"
        raise CompError(f"{len(units)} images or groups can't fill {n_folds} folds; lower n_folds{hint}")
    images = csr_array((np.ones(len(names), int), (unit_of, np.arange(len(names)))))  # (units, N)
    strata = parts_of_range(labels.targets) if labels.are_numbers else labels.positives
    counts = images @ csr_array(strata)
    bare = (counts.sum(1) == 0).astype(int)  # units without any label are spread as well
    targets = without_empty_columns(hstack([counts > 0, csr_array(bare[:, None])], "csr", int))
    fold_of_unit = stratify(targets, n_folds, seed)
    held = np.bincount(fold_of_unit, sizes, n_folds)
    if held.min() == 0 or (are_uneven(held) and sizes.min() < sizes.max()):
        bare = images @ ~strata.any(1)
        counts = hstack([csr_array(sizes[:, None]), counts, csr_array(bare[:, None])], "csr", int)
        weighed = stratify_by_size(without_empty_columns(counts), n_folds, seed)
        if unevenness(np.bincount(weighed, sizes, n_folds)) < unevenness(held):
            fold_of_unit = weighed
    return fold_of_unit[unit_of]


def parts_of_range(numbers: np.ndarray) -> np.ndarray:
    """Return (N, C * N_PARTS) uint8: in which of equally large parts of its column each number (N, C) is;
    none for NaN."""
    parts = []
    for column in numbers.T:
        cuts = np.nanquantile(column, np.linspace(0, 1, N_PARTS + 1)[1:-1])
        part = np.searchsorted(cuts, column, side="right")
        parts.append((part[:, None] == np.arange(N_PARTS)) & ~np.isnan(column)[:, None])
    return np.hstack(parts).astype(np.uint8)


def without_empty_columns(columns: csr_array) -> csr_array:
    return columns[:, np.flatnonzero(columns.sum(0))]


def check_groups(labels: Labels, fold_of: np.ndarray, path: Path) -> None:
    """Raise CompError for a group in more than one fold: what is learned from one of its images would leak
    into the score of another."""
    if labels.fold_groups is None:
        return
    pairs = np.unique(np.stack([labels.fold_groups, fold_of.astype(str)]), axis=1)[0]
    if split := sorted(set(pairs[1:][pairs[1:] == pairs[:-1]].tolist())):
        raise CompError(f"{path} has groups in more than one fold: {summarize(split)}; keep each in one")


# --- described ----------------------------------------------------------------------------------------------


def count_classes(labels: Labels, fold_of: np.ndarray, n_folds: int) -> np.ndarray:
    """Return (C, n_folds) int: the number of images of each class in each fold."""
    positives = labels.positives
    folds = [positives[fold_of == fold].sum(0, dtype=int) for fold in range(n_folds)]
    return np.stack(folds, 1)


def count_bare_images(labels: Labels, fold_of: np.ndarray, n_folds: int) -> np.ndarray:
    """Return (n_folds,) int: the number of images without any label in each fold."""
    return np.bincount(fold_of[~labels.positives.any(1)], minlength=n_folds)


def find_rarest(counts: np.ndarray) -> np.ndarray:
    """Return the indices, ascending, of the MAX_CLASSES_SHOWN rarest classes of `counts` (C, folds)."""
    return np.sort(np.argsort(counts.sum(1), kind="stable")[:MAX_CLASSES_SHOWN])


def remarks(
    labels: Labels, counts: np.ndarray, fold_of: np.ndarray, *, with_duplicates: bool
) -> Iterator[str]:
    """Yield a line for each thing that is odd about folds. `counts` (C, folds) are the images of each class;
    `with_duplicates`: the groups include those of `comp duplicates`."""
    in_all, in_folds, n_folds = counts.sum(1), (counts > 0).sum(1), counts.shape[1]
    for template, found in (
        ("in no image: {}; nothing can be learned about them", in_all == 0),
        ("in every image: {}; nothing can be learned about them", in_all == len(labels.ids)),
        ("in one fold alone: {}; the network that holds it out never sees them", in_folds == 1),
        (
            "missing from some folds: {}; too few images or groups have them",
            (in_folds > 1) & (in_folds < n_folds),
        ),
    ):
        if found.any():
            yield "classes " + template.format(summarize(labels.classes[c] for c in np.flatnonzero(found)))
    sizes = np.bincount(fold_of, minlength=n_folds)
    if are_uneven(sizes):
        line = f"sizes differ by {unevenness(sizes):.0%}, from {sizes.min():,} to {sizes.max():,} images"
        groups = labels.ids if labels.fold_groups is None else labels.fold_groups
        names, n_members = np.unique(groups, return_counts=True)
        if (largest := n_members.max()) > sizes.mean():
            name = names[n_members.argmax()].strip()
            line += f"; {name}, the largest of {len(names):,} groups, has {largest:,}"
            line += "; `comp duplicates --force --likeness 0.95` joins fewer" if with_duplicates else ""
        yield line
    if len(labels.classes) > MAX_CLASSES_SHOWN:
        yield f"the {MAX_CLASSES_SHOWN} rarest of {len(labels.classes):,} classes:"
