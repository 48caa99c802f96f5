"""duplicates: equal and nearly equal images, within and across train, test and external ones.

Reads the images, which are resized on the way for `train` and `predict`; writes
folds/<competition>-duplicates.html, the groups as pictures, and last folds/<competition>-duplicates.csv
(split, id, group, likeness) with its stamp beside it. `folds` keeps each group in one fold.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd

from comp.artifacts.schemas import Compared
from comp.artifacts.stamps import (
    cache_dir,
    digest,
    duplicates_path,
    is_done,
    read_stamp,
    write_json,
    write_text,
)
from comp.config.loading import Recipe
from comp.console import say, table
from comp.data.duplicates import SIDE, Found, find, read_groups
from comp.data.image_files import ImageSet, cached, open_cache
from comp.data.manifest import read_manifest
from comp.data.thumbnails import jpeg, thumbnail
from comp.deadline import deadline_in
from comp.errors import CompError
from comp.safe_text import as_cell, visible
from comp.training.extra_images import externals_of

MOST_GROUPS, MOST_IMAGES = 200, 12  # shown: groups, and images of one
PICTURE = 128  # pixels
LEAST = 10  # images that a group may have, however few there are; else a tenth of the train images
MOST_OF_NAME = 80  # characters

PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }}
section {{ border-top: 1px solid GrayText; padding-bottom: 1rem }}
h2 {{ font-size: 1rem }}
div {{ display: flex; flex-wrap: wrap; gap: 1rem }}
figure {{ margin: 0; width: 9rem }}
img {{ width: 9rem; height: 9rem; display: block; image-rendering: pixelated }}
figcaption {{ font-size: .8rem; overflow-wrap: anywhere }}
</style>
<h1>{title}</h1>
<p>{about}</p>
{sections}
</html>
"""


@dataclass(frozen=True)
class Member:
    """An image that has a duplicate."""

    images: ImageSet
    row: int
    labels: frozenset[str] | None  # None: not known
    likeness: float

    @property
    def id(self) -> str:
        return str(self.images.ids[self.row])


Group = list[Member]
Part = tuple[ImageSet, Sequence[int], np.ndarray | None]  # its sizes in pixels, and its labels if known


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


def groups_of(found: Found, parts: Sequence[Part], classes: Sequence[str]) -> list[Group]:
    """The groups, those that should be looked at first."""
    groups: dict[int, Group] = {}
    start = 0
    for images, _, targets in parts:
        part = slice(start, start := start + len(images.ids))
        for row in np.flatnonzero(found.likeness[part]).tolist():
            known = (
                None
                if targets is None
                else frozenset(classes[c] for c in np.flatnonzero(targets[row]).tolist())
            )
            member = Member(images, row, known, float(found.likeness[part][row]))
            groups.setdefault(int(found.group[part][row]), []).append(member)
    return sorted(groups.values(), key=lambda group: (-urgency(group), -len(group)))


def differ(group: Group) -> bool:
    """Whether images that are the same have labels that aren't."""
    return len({member.labels for member in group} - {None}) > 1


def urgency(group: Group) -> int:
    return 2 * (len(names_of(group)) > 1) + differ(group)


def names_of(group: Group) -> tuple[str, ...]:
    return tuple(dict.fromkeys(member.images.name for member in group))


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


def page(groups: Sequence[Group], n: int, title: str) -> str:
    """The groups, of n images, as a page that needs nothing else: pictures are inside."""
    shown = groups[:MOST_GROUPS]
    about = (
        f"{len(groups):,} groups of {sum(map(len, groups)):,} images that are equal or nearly so: first "
        "those across sets, then those whose labels differ (marked). The number after an image's id says "
        "how alike the most alike other one is; 1 is equal."
    )
    if not groups:
        about = f"Nothing was found: no two of {n:,} images are equal or nearly so."
    if left := len(groups) - len(shown):
        about += f" {left:,} more groups are not shown; the CSV beside this page has them."
    sections = [section(number, group) for number, group in enumerate(shown, 1)]
    return PAGE.format(title=escape(title), about=about, sections="\n".join(sections))


def section(number: int, group: Group) -> str:
    notes = [", ".join(f"{n:,} {name}" for name, n in Counter(m.images.name for m in group).items())]
    if differ(group):
        notes.append("labels differ")
    if len(group) > MOST_IMAGES:
        notes.append(f"{MOST_IMAGES} of them shown")
    known = [member.labels for member in group if member.labels is not None]
    shared = frozenset.intersection(*known) if known else frozenset()
    places = np.unique(np.linspace(0, len(group) - 1, min(MOST_IMAGES, len(group))).astype(int)).tolist()
    figures = "\n".join(figure(group[place], shared) for place in places)
    return f"<section><h2>{number}: {'; '.join(notes)}</h2><div>\n{figures}\n</div></section>"


def figure(member: Member, shared: frozenset[str]) -> str:
    image = thumbnail(member.images, member.row, PICTURE)
    labels = [
        text if name in shared else f"<mark>{text}</mark>"
        for name in sorted(member.labels or ())
        if (text := escape(visible(name, MOST_OF_NAME)))
    ]
    name = escape(visible(member.id, MOST_OF_NAME))
    about = f"{escape(member.images.name)} <b>{name}</b> {member.likeness:.3f}"
    return (
        f'<figure><img alt="{name}" src="data:image/jpeg;base64,{jpeg(image)}">'
        f"<figcaption>{about}<br>{', '.join(labels)}</figcaption></figure>"
    )
