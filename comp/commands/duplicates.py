"""duplicates: equal and nearly equal images, within and across train, test and external ones.

Reads the images, and caches them, in the sizes of `train` and `predict` too unless these are
filtered or decoded by a GPU; writes
folds/<competition>-duplicates.html, the groups as pictures, then folds/<competition>-duplicates.csv
(split, id, group, likeness) with its stamp beside it. `folds` keeps each group in one fold.
"""

from collections.abc import Sequence

import numpy as np

from comp.artifacts.files import write_json, write_text
from comp.artifacts.paths import cache_dir, duplicates_path
from comp.artifacts.schemas import DuplicatesStamp
from comp.artifacts.stamps import is_done, read_stamp
from comp.config.recipe import Recipe
from comp.console import info, table
from comp.data.duplicate_groups import (
    ComparedSet,
    Group,
    collect_groups,
    fingerprints_of_sets,
    group_limit,
    groups_csv,
    summarize_groups,
)
from comp.data.duplicates import THUMBNAIL_SIDE, find_duplicates, read_groups
from comp.data.image_cache import build_caches
from comp.data.image_files import open_cache
from comp.data.manifest import read_manifest
from comp.deadline import deadline_in
from comp.errors import CompError
from comp.evaluation.duplicates_page import render_page
from comp.training.extra_images import read_externals


def run(recipe: Recipe, *, force: bool, budget: float | None, likeness: float) -> None:
    if not 0.5 <= likeness <= 1:
        raise CompError(f"--likeness {likeness:g}: a number from 0.5 to 1 is expected")
    deadline = deadline_in(budget)
    competition = recipe.competition
    data = read_manifest(competition)
    labels, test_ids = data.labels(competition), data.test_ids(competition)
    channels = competition.images.channel_names
    extras = read_externals(recipe, labels.classes, channels, data)
    fingerprints = fingerprints_of_sets(
        data.fingerprint,
        labels.ids,
        test_ids,
        {extra.images.name: extra.fingerprint for extra in extras},
    )
    path = duplicates_path(competition.name)
    stamp_path, page_path = path.with_suffix(".json"), path.with_suffix(".html")
    if path.exists() and not force and not stamp_path.exists():
        n_rows = len(read_groups(competition.name))
        info(f"duplicates: {path} was not written by comp; its {n_rows:,} rows are used unchanged")
        return
    before = (read_stamp(stamp_path, DuplicatesStamp) or {"sets": {}})["sets"] if path.exists() else {}
    shared = {name: value for name, value in fingerprints.items() if name in before}
    stamp = {"sets": before | shared, "likeness": likeness}  # other recipes' sets don't make it stale
    if before and is_done(stamp_path, stamp, force=force) and len(shared) == len(fingerprints):
        info(f"duplicates: {path} done already")
        return
    first = recipe.members[0] if recipe.members else recipe
    sizes = sorted(set(first.cached_sizes.values()))

    def known(targets: np.ndarray) -> np.ndarray | None:
        return None if labels.are_numbers else targets  # numbers of duplicates are not compared

    sets = [
        ComparedSet(data.images("train", labels.ids, channels), sizes, known(labels.targets)),
        ComparedSet(data.images("test", test_ids, channels), [first.phases[-1].size]),
        *(ComparedSet(extra.images, sizes, known(extra.targets)) for extra in extras),
    ]
    # Compared are images as the CPU decodes them, unfiltered; other caches are built later.
    plain = first.filter == "none" and first.decode == "cpu"
    needed = {
        part.images.name: (part.images, [THUMBNAIL_SIDE, *(part.sizes if plain else ())]) for part in sets
    }
    caches = build_caches(needed, cache_dir(competition.name), data.fingerprint, deadline, first.max_size)
    thumbnails = [open_cache(caches[name][THUMBNAIL_SIDE]) for name in needed]
    limit = group_limit(len(labels.ids))
    found = find_duplicates(thumbnails, joined=bool(channels), likeness=likeness, max_group=limit)
    groups = collect_groups(found, sets, labels.classes)
    path.unlink(missing_ok=True)
    title = f"Duplicates in {competition.title or competition.name}"
    write_text(page_path, render_page(groups, len(found.group), title))
    write_json(stamp_path, {"stamp": {"sets": fingerprints, "likeness": likeness}})
    write_text(path, groups_csv(groups))
    print_table(groups, list(needed))
    if found.n_blank:
        info(f"duplicates: {found.n_blank:,} images are blank and were not compared")
    if found.split_likeness:
        info(
            f"duplicates: groups are cut at {limit:,} train images, so that folds can be even; images up to "
            f"{found.split_likeness:.3f} alike are in different groups. To keep images of one camera, "
            "patient or place together, set labels.group to a column that names it"
        )
    n_found = sum(map(len, groups))
    info(f"duplicates: {path}, {n_found:,} of {len(found.group):,} images; {page_path} shows them")


def print_table(groups: Sequence[Group], names: Sequence[str]) -> None:
    table(
        ["duplicates", "groups", "images", "labels differ", "what is done"],
        [
            [
                f"{'within' if len(row['sets']) == 1 else 'across'} {', '.join(row['sets'])}",
                f"{row['groups']:,}",
                f"{row['images']:,}",
                f"{row['labels_differ']:,}",
                _consequence(row["sets"]),
            ]
            for row in summarize_groups(groups, names)
        ],
        shortened=4,
    )


def _consequence(sets: tuple[str, ...]) -> str:
    """Return what `folds` and `train` do with duplicates in these sets."""
    if "train" not in sets:
        return "nothing"
    others = [name for name in sets if name not in ("train", "test")]
    extra = f"; {', '.join(others)} not trained on while it is held out" if others else ""
    return f"train images in one fold{extra}"
