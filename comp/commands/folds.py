"""folds: multilabel-stratified folds (Sechidis et al. 2011), images of one group and duplicates together.

Reads the label CSV, and where it is there folds/<competition>-duplicates.csv; writes
folds/<competition>-k<n>-s<seed>.csv (id, fold), and its stamp beside it.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from comp.artifacts.files import write_json, write_text
from comp.artifacts.paths import folds_path
from comp.artifacts.stamps import digest, is_done
from comp.config.recipe import Recipe
from comp.console import say, table
from comp.data.duplicates import grouped
from comp.data.folds import assign, check_groups, read_folds, uneven, unevenness
from comp.data.labels import ALONE, Labels, groups_of
from comp.data.manifest import read_manifest
from comp.errors import CompError, some
from comp.kaggle.submission_file import check_sample

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
