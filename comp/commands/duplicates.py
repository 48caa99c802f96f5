"""duplicates: equal and nearly equal images, within and across train, test and external ones.

Reads the images, which are resized on the way for `train` and `predict`; writes
folds/<competition>-duplicates.html, the groups as pictures, and last folds/<competition>-duplicates.csv
(split, id, group, likeness) with its stamp beside it. `folds` keeps each group in one fold.
"""

from collections.abc import Sequence

import pandas as pd

from comp.artifacts.files import write_json, write_text
from comp.artifacts.paths import cache_dir, duplicates_path
from comp.artifacts.schemas import Compared
from comp.artifacts.stamps import digest, is_done, read_stamp
from comp.config.recipe import Recipe
from comp.console import say, table
from comp.data.duplicates import SIDE, find, read_groups
from comp.data.image_cache import cached
from comp.data.image_files import open_cache
from comp.data.manifest import read_manifest
from comp.deadline import deadline_in
from comp.errors import CompError
from comp.evaluation.duplicates_page import Group, Part, differ, groups_of, names_of, page
from comp.safe_text import as_cell
from comp.training.extra_images import externals_of

LEAST = 10  # images that a group may have, however few there are; else a tenth of the train images


def run(recipe: Recipe, *, force: bool, budget: float | None, likeness: float) -> None:
    if not 0.5 <= likeness <= 1:
        raise CompError(f"--likeness {likeness:g}: a number from 0.5 to 1 is expected")
    deadline = deadline_in(budget)
    competition = recipe.competition
    data = read_manifest(competition)
    labels, test_ids = data.labels(competition), data.sample_ids(competition)
    extras = externals_of(recipe, labels.classes, competition.images.channels, data)
    sets = {"train": digest(data.stamp, labels.ids), "test": digest(data.stamp, test_ids)}
    sets |= {extra.images.name: extra.stamp for extra in extras}
    path = duplicates_path(competition.name)
    stamp_path, page_path = path.with_suffix(".json"), path.with_suffix(".html")
    if path.exists() and not force and not stamp_path.exists():
        say(f"duplicates: {path} is not from here; its {len(read_groups(competition.name)):,} rows are taken")
        return
    before = (read_stamp(stamp_path, Compared) or {"sets": {}})["sets"] if path.exists() else {}
    shared = {name: stamp for name, stamp in sets.items() if name in before}  # other recipes may know more
    stamp = {"sets": before | shared, "likeness": likeness}
    if before and is_done(stamp_path, stamp, force=force) and len(shared) == len(sets):
        say(f"duplicates: {path} done already")
        return
    channels = competition.images.channels
    first = recipe.members[0] if recipe.members else recipe
    sizes = sorted({phase.size for phase in first.phases})
    parts: dict[str, Part] = {
        "train": (data.images("train", labels.ids, channels), sizes, labels.targets),
        "test": (data.images("test", test_ids, channels), [first.phases[-1].size], None),
        **{extra.images.name: (extra.images, sizes, extra.targets) for extra in extras},
    }
    plain = first.filter == "none"  # else what training sees is not what is compared
    needed = {name: (images, [SIDE, *(sizes if plain else ())]) for name, (images, sizes, _) in parts.items()}
    caches = cached(needed, cache_dir(competition.name), data.stamp, deadline, first.finest)
    thumbnails = [open_cache(caches[name][SIDE]) for name in parts]
    most = max(LEAST, len(labels.ids) // 10)
    found = find(thumbnails, joined=bool(channels), likeness=likeness, most=most)
    groups = groups_of(found, list(parts.values()), labels.classes)
    path.unlink(missing_ok=True)
    title = f"Duplicates in {competition.title or competition.name}"
    write_text(page_path, page(groups, len(found.group), title))
    write_json(stamp_path, {"stamp": {"sets": sets, "likeness": likeness}})
    write_text(path, csv_of(groups))
    report(groups, list(parts))
    if found.n_blank:
        say(f"duplicates: {found.n_blank:,} images are blank, and not compared")
    if found.torn:
        say(
            f"duplicates: groups are cut at {most:,} train images, so that folds can be even; images up to "
            f"{found.torn:.3f} alike are in different ones. Images of one camera, patient or place are kept "
            "together by a column that names it: labels.group"
        )
    n_found = sum(map(len, groups))
    say(f"duplicates: {path}, {n_found:,} of {len(found.group):,} images; {page_path} shows them")


def csv_of(groups: Sequence[Group]) -> str:
    rows = [
        (member.images.name, as_cell(member.id), number, f"{member.likeness:.4f}")
        for number, group in enumerate(groups, 1)
        for member in group
    ]
    frame = pd.DataFrame(rows, columns=["split", "id", "group", "likeness"])
    return frame.to_csv(index=False, lineterminator="\n")


def report(groups: Sequence[Group], names: Sequence[str]) -> None:
    kinds: dict[tuple[str, ...], list[Group]] = {(name,): [] for name in names} | {tuple(names[:2]): []}
    for group in groups:
        kinds.setdefault(names_of(group), []).append(group)
    table(
        ["duplicates", "groups", "images", "labels differ", "what is done"],
        [
            [
                f"{'within' if len(kind) == 1 else 'across'} {', '.join(kind)}",
                f"{len(found):,}",
                f"{sum(map(len, found)):,}",
                f"{sum(map(differ, found)):,}",
                what_is_done(kind),
            ]
            for kind, found in kinds.items()
        ],
        shortened=4,
    )


def what_is_done(kind: tuple[str, ...]) -> str:
    if "train" not in kind:
        return "nothing"
    others = [name for name in kind if name not in ("train", "test")]
    beside = f", {', '.join(others)} not trained on while it is held out" if others else ""
    return f"train images in one fold{beside}"
