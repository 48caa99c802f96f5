"""Multilabel-stratified folds: make, check and read them."""

from pathlib import Path

import numpy as np
from scipy.sparse import csr_array, hstack

from comp.artifacts.csv_tables import check_unique, read_table
from comp.data.labels import Labels
from comp.data.stratification import by_size, stratified
from comp.errors import CompError, some

UNEVEN = 0.05  # share by which the smallest fold may lack of the largest before it is said

EXTRA, UNUSED = -1, -2  # in the place of a fold: rows that every network learns, and that none does


def read_folds(path: Path, ids: np.ndarray, n_folds: int) -> np.ndarray:
    """(N,) int: the fold of each id, 0 … n_folds - 1. Raises CompError where ids are missing, extra or
    doubled."""
    if not path.exists():
        raise CompError(f"{path} is not there; run `comp folds` first")
    table = read_table(path, ["id", "fold"])
    listed = table["id"].to_numpy(str)
    check_unique(listed, path)
    fold_of = dict(zip(listed.tolist(), table["fold"]))
    if missing := [i for i in ids.tolist() if i not in fold_of]:
        raise CompError(f"{path} lacks ids: {some(missing)}; rerun `comp folds --force`")
    if extra := sorted(fold_of.keys() - set(ids.tolist())):
        raise CompError(
            f"{path} has ids that the labels don't have: {some(extra)}; rerun `comp folds --force`"
        )
    names = [str(fold) for fold in range(n_folds)]
    if wrong := sorted(set(fold_of.values()) ^ set(names)):
        raise CompError(
            f"{path}: folds {', '.join(names)} are expected, each with rows; not so: {some(wrong)}"
        )
    return np.array([int(fold_of[i]) for i in ids.tolist()])


def unevenness(sizes: np.ndarray) -> float:
    """The share of the largest fold that the smallest one lacks."""
    return float(1 - sizes.min() / sizes.max())


def uneven(sizes: np.ndarray) -> bool:
    return unevenness(sizes) > UNEVEN and sizes.max() - sizes.min() > 1


def assign(labels: Labels, n_folds: int, seed: int) -> np.ndarray:
    """(N,) int: the fold of each row, the same whatever the order of the rows. A group counts as one row that
    has all labels of its images; where this leaves folds uneven, since groups are, it counts by its size."""
    names = labels.ids if labels.groups is None else labels.groups
    # sorted before shuffling
    units, unit_of, sizes = np.unique(names, return_inverse=True, return_counts=True)
    if len(units) < n_folds:
        raise CompError(
            f"{len(units)} images or groups can't be cut into {n_folds} folds; lower n_folds"
            + (f", or change the groups that {len(names):,} images have" if labels.groups is not None else "")
        )
    images = csr_array((np.ones(len(names), int), (unit_of, np.arange(len(names)))))  # of each unit
    counts = images @ csr_array(labels.targets)
    bare = (counts.sum(1) == 0).astype(int)  # units without any label are spread as well
    targets = without_empty(hstack([counts > 0, csr_array(bare[:, None])], "csr", int))
    fold_of_unit = stratified(targets, n_folds, seed)
    held = np.bincount(fold_of_unit, sizes, n_folds)
    if held.min() == 0 or (uneven(held) and sizes.min() < sizes.max()):
        bare = images @ ~labels.targets.any(1)
        counts = hstack([csr_array(sizes[:, None]), counts, csr_array(bare[:, None])], "csr", int)
        weighed = by_size(without_empty(counts), n_folds, seed)
        if unevenness(np.bincount(weighed, sizes, n_folds)) < unevenness(held):
            fold_of_unit = weighed
    return fold_of_unit[unit_of]


def without_empty(columns: csr_array) -> csr_array:
    return columns[:, np.flatnonzero(columns.sum(0))]


def check_groups(labels: Labels, fold_of: np.ndarray, path: Path) -> None:
    """Raises CompError where a group is in more than one fold: what is learned in one would leak into
    another."""
    if labels.groups is None:
        return
    pairs = np.unique(np.stack([labels.groups, fold_of.astype(str)]), axis=1)[0]
    if torn := sorted(set(pairs[1:][pairs[1:] == pairs[:-1]].tolist())):
        raise CompError(f"{path} has groups in more than one fold: {some(torn)}; keep each in one")
