"""Drawing folds: each label spread evenly over them, whether rows are images or groups of images."""

import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from scipy.sparse import csr_array

from comp.console import progress

QUICK = 10**9  # rows x labels² up to which the library takes about a second
SIZE = 4  # labels that the sizes of folds count as much as, where groups are drawn by size


def stratified(targets: csr_array, n_folds: int, seed: int) -> np.ndarray:
    """(N,) int: the fold of each row by multilabel stratification (Sechidis et al. 2011). Each row has one
    label at least, and each label one row. There are as many rows as folds, or more."""
    n, n_labels = targets.shape
    if n_labels == 1 or n * n_labels**2 > QUICK:
        return by_counts_kept(targets, n_folds, seed)
    dense, fold_of = targets.toarray().astype(np.uint8), np.full(n, -1)
    splitter = MultilabelStratifiedKFold(n_splits=n_folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(dense, dense)):
        assert (fold_of[held_out] == -1).all(), "a row is held out twice"
        fold_of[held_out] = fold
    assert (fold_of >= 0).all(), "a row is in no fold"
    return fold_of


def by_counts_kept(targets: csr_array, n_folds: int, seed: int) -> np.ndarray:
    """The very folds of MultilabelStratifiedKFold, draw by draw, also of a single label. It counts all rows
    anew for each label, so that its time grows with rows x labels²; here counts are kept, and it grows with
    the labels that there are."""
    rng, order = np.random.RandomState(seed), np.arange(targets.shape[0])
    rng.shuffle(order)
    rows = targets[order]
    columns = rows.tocsc()
    columns.sort_indices()
    left = np.diff(columns.indptr)  # rows of each label that have no fold yet
    wanted = np.full(n_folds, 1 / n_folds) * len(order)  # more rows, by fold
    wanted_of = np.outer(np.full(n_folds, 1 / n_folds), left)  # and of each label
    fold_of = np.full(len(order), -1)
    with progress("drawing folds", len(order)) as advance:
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


def by_size(counts: csr_array, n_folds: int, seed: int) -> np.ndarray:
    """(N,) int: the fold of each group. The first column of `counts` is the number of its images, the others
    are those of its images with each label.

    The largest come first, each to the fold that holds least of what it brings, where an image counts the
    more the fewer there are of its label: a greedy descent of chi-square over folds and labels. No fold stays
    empty, since an empty one holds least of all."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(counts.shape[0])
    sizes = counts[:, [0]].toarray()[:, 0]
    weights = 1 / counts.sum(0)
    weights[0] *= SIZE
    held, fold_of = np.zeros((n_folds, counts.shape[1])), np.full(len(order), -1)
    with progress("drawing folds by size", len(order)) as advance:
        for row in order[np.argsort(-sizes[order], kind="stable")].tolist():
            part = slice(counts.indptr[row], counts.indptr[row + 1])
            own, brought = counts.indices[part], counts.data[part]
            fold = fold_of[row] = (held[:, own] @ (brought * weights[own])).argmin()
            held[fold, own] += brought
            advance(1)
    return rng.permutation(n_folds)[fold_of]
