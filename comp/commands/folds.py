"""folds: multilabel-stratified folds (Sechidis et al. 2011), images of one group and duplicates together.

Reads the label CSV, and where it is there folds/<competition>-duplicates.csv; writes
folds/<competition>-k<n>-s<seed>.csv (id, fold), and its stamp beside it.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import csr_array, hstack

from comp.artifacts.stamps import digest, folds_path, is_done, write_json, write_text
from comp.config.loading import Recipe
from comp.console import say, table
from comp.data.duplicates import grouped
from comp.data.folds import read_folds
from comp.data.labels import ALONE, Labels, groups_of
from comp.data.manifest import read_manifest
from comp.data.stratification import by_size, stratified
from comp.errors import CompError, some
from comp.kaggle.submission_file import check_sample

UNEVEN = 0.05  # share by which the smallest fold may lack of the largest before it is said
SHOWN = 100  # classes in the table


def run(recipe: Recipe, *, force: bool) -> None:
    competition = recipe.competition
    data = read_manifest(competition)
    given = data.labels(competition)
    if not given.targets.any():
        raise CompError(f"{data.labels_csv}: no image has a label; there is nothing to learn")
    labels = grouped(given, competition.name, data.stamp)
    check_sample(data.sample_csv, competition, labels.classes)
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
    alone = [] if given.groups is None else [name for name in given.groups.tolist() if name[:1] == ALONE]
    if alone:
        say(f"folds: {len(alone):,} images have no {competition.labels.group}; each is a group of its own")
    parts = [fold_of == fold for fold in range(recipe.n_folds)]
    counts = np.stack([labels.targets[part].sum(0, dtype=int) for part in parts], 1)  # (C, folds)
    for line in remarks(labels, counts, fold_of, united=labels is not given):
        say(f"folds: {line}")
    rarest = np.sort(np.argsort(counts.sum(1), kind="stable")[:SHOWN])
    names = [labels.classes[c] for c in rarest.tolist()]
    rows = counts[rarest].tolist()
    if competition.labels.empty:
        rows.append([int((~labels.targets[part].any(1)).sum()) for part in parts])
        names.append(f"({competition.labels.none or 'none'})")
    rows.append([int(part.sum()) for part in parts])
    table(
        ["class", "all", *(f"fold {fold}" for fold in range(recipe.n_folds))],
        [[n, f"{sum(c):,}", *(f"{x:,}" for x in c)] for n, c in zip([*names, "images"], rows)],
    )


def remarks(labels: Labels, counts: np.ndarray, fold_of: np.ndarray, *, united: bool) -> Iterator[str]:
    """What is odd about folds that hold `counts` (classes, folds) images of each class; `united`: duplicates
    have a say in the groups."""
    in_all, in_folds, n_folds = counts.sum(1), (counts > 0).sum(1), counts.shape[1]
    for about, found in (
        ("no image has: {}; there is nothing to learn about them", in_all == 0),
        ("every image has: {}; there is nothing to learn about them", in_all == len(labels.ids)),
        ("one fold alone holds: {}; the network that holds it out never learns them", in_folds == 1),
        ("some folds lack: {}; too few images or groups have them", (in_folds > 1) & (in_folds < n_folds)),
    ):
        if found.any():
            yield "classes that " + about.format(some(labels.classes[c] for c in np.flatnonzero(found)))
    sizes = np.bincount(fold_of, minlength=n_folds)
    if uneven(sizes):
        line = f"sizes differ by {unevenness(sizes):.0%}, from {sizes.min():,} to {sizes.max():,} images"
        names, members = np.unique(labels.ids if labels.groups is None else labels.groups, return_counts=True)
        if (most := members.max()) > sizes.mean():
            name = names[members.argmax()].strip()
            line += f"; {name}, the largest of {len(names):,} groups, has {most:,}"
            line += "; `comp duplicates --force --likeness 0.95` unites fewer" if united else ""
        yield line
    if len(labels.classes) > SHOWN:
        yield f"the {SHOWN} rarest of {len(labels.classes):,} classes:"


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
