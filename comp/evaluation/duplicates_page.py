"""The page that shows groups of duplicate images."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from comp.data.duplicates import Found
from comp.data.image_files import ImageSet
from comp.data.thumbnails import jpeg, thumbnail
from comp.safe_text import visible

MOST_GROUPS, MOST_IMAGES = 200, 12  # shown: groups, and images of one
PICTURE = 128  # pixels
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
Part = tuple[ImageSet, Sequence[int], np.ndarray | None]  # its sizes in pixels, and its labels if known


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
