"""Fold tables: id -> fold, joined by id."""

from pathlib import Path

import numpy as np

from comp.artifacts.csv_tables import check_unique, read_table
from comp.errors import CompError, some

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
