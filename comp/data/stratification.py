"""Stratify rows into folds: each label is spread evenly, whether rows are images or groups of images."""

import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from scipy.sparse import csr_array

from comp.console import progress

LIBRARY_LIMIT = 10**9  # rows x labels²: up to here the library takes about a second
SIZE_WEIGHT = 4  # fold size counts as much as this many labels


def stratify(targets: csr_array, n_folds: int, seed: int) -> np.ndarray:
    """Return (N,) int: the fold of each row by multilabel stratification (Sechidis et al. 2011). Each row
    needs at least one label, each label at least one row, and each fold at least one row."""
    n, n_labels = targets.shape
    if n_labels == 1 or n * n_labels**2 > LIBRARY_LIMIT:
        return stratify_quickly(targets, n_folds, seed)
    dense, fold_of = targets.toarray().astype(np.uint8), np.full(n, -1)
    splitter = MultilabelStratifiedKFold(n_splits=n_folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(dense, dense)):
        assert (fold_of[held_out] == -1).all(), "a row is held out twice"
        fold_of[held_out] = fold
    assert (fold_of >= 0).all(), "a row is in no fold"
    return fold_of


def stratify_quickly(targets: csr_array, n_folds: int, seed: int) -> np.ndarray:
    """Return exactly the folds of MultilabelStratifiedKFold, also for a single label.

    The library counts all rows again for each label, so its time grows with rows x labels². Here counts are
    updated, so the time grows with the number of ones in `targets`."""
    rng, order = np.random.RandomState(seed), np.arange(targets.shape[0])
    rng.shuffle(order)
    rows = targets[order]
    columns = rows.tocsc()
    columns.sort_indices()
    left = np.diff(columns.indptr)  # (labels,) rows without a fold
    wanted = np.full(n_folds, 1 / n_folds) * len(order)  # (folds,) rows still missing
    wanted_of = np.outer(np.full(n_folds, 1 / n_folds), left)  # (folds, labels) rows still missing
    fold_of = np.full(len(order), -1)
    with progress("assigning folds", len(order)) as advance:
        while left.any():
            rarest = np.flatnonzero(left == left[left > 0].min())
            label = rarest[rng.choice(len(rarest)) if len(rarest) > 1 else 0]
            members = columns.indices[columns.indptr[label] : columns.indptr[label + 1]]
            members = members[fold_of[members] < 0]
            for row in members.tolist():
                best = np.flatnonzero(wanted_of[:, label] == wanted_of[:, label].max())
                if len(best) > 1:
                    best = best[wanted[best] == wanted[best].max()]
                fold = fold_of[row] = best[rng.choice(len(best)) if len(best) > 1 else 0]
                own = rows.indices[rows.indptr[row] : rows.indptr[row + 1]]
                left[own] -= 1
                wanted_of[fold, own] -= 1
                wanted[fold] -= 1
            advance(len(members))
    return fold_of[np.argsort(order)]


def stratify_by_size(counts: csr_array, n_folds: int, seed: int) -> np.ndarray:
    """Return (N,) int: the fold of each group. The first column of `counts` is a group's number of images,
    the others are its images with each label.

    Groups are assigned by descending size. Each goes to the fold that has the fewest images of its labels,
    and images of rare labels weigh more: a greedy descent of chi-square over folds and labels. No fold stays
    empty, because an empty fold has the fewest."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(counts.shape[0])
    sizes = counts[:, [0]].toarray()[:, 0]
    weights = 1 / counts.sum(0)
    weights[0] *= SIZE_WEIGHT
    held, fold_of = np.zeros((n_folds, counts.shape[1])), np.full(len(order), -1)
    with progress("assigning folds by size", len(order)) as advance:
        for row in order[np.argsort(-sizes[order], kind="stable")].tolist():
            part = slice(counts.indptr[row], counts.indptr[row + 1])
            own, brought = counts.indices[part], counts.data[part]
            fold = fold_of[row] = (held[:, own] @ (brought * weights[own])).argmin()
            held[fold, own] += brought
            advance(1)
    return rng.permutation(n_folds)[fold_of]
