"""The page that shows groups of duplicate images."""

from collections import Counter
from collections.abc import Sequence
from html import escape

import numpy as np

from comp.data.duplicate_groups import Group, Member, labels_differ
from comp.data.thumbnails import encode_jpeg, thumbnail
from comp.safe_text import visible

MAX_GROUPS, MAX_IMAGES = 200, 12  # shown: groups, and images per group
THUMBNAIL = 128  # pixels
MAX_NAME = 80  # characters
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


def render_page(groups: Sequence[Group], n: int, title: str) -> str:
    """Return an HTML page of the groups found among n images. It needs no other file: pictures are inside."""
    shown = groups[:MAX_GROUPS]
    about = (
        f"{len(groups):,} groups of {sum(map(len, groups)):,} images that are equal or nearly equal: first "
        "groups across sets, then groups whose labels differ (marked). The number after an image's id is its "
        "likeness to the most similar image of its group; 1 is equal."
    )
    if not groups:
        about = f"Nothing was found: no two of {n:,} images are equal or nearly equal."
    if left := len(groups) - len(shown):
        about += f" {left:,} more groups are not shown; the CSV beside this page has them."
    sections = [_render_section(number, group) for number, group in enumerate(shown, 1)]
    return PAGE.format(title=escape(title), about=about, sections="\n".join(sections))


def _render_section(number: int, group: Group) -> str:
    notes = [", ".join(f"{n:,} {name}" for name, n in Counter(m.images.name for m in group).items())]
    if labels_differ(group):
        notes.append("labels differ")
    if len(group) > MAX_IMAGES:
        notes.append(f"{MAX_IMAGES} of them shown")
    known = [member.labels for member in group if member.labels is not None]
    shared = frozenset.intersection(*known) if known else frozenset()
    places = np.unique(np.linspace(0, len(group) - 1, min(MAX_IMAGES, len(group))).astype(int)).tolist()
    figures = "\n".join(_render_figure(group[place], shared) for place in places)
    return f"<section><h2>{number}: {'; '.join(notes)}</h2><div>\n{figures}\n</div></section>"


def _render_figure(member: Member, shared: frozenset[str]) -> str:
    image = thumbnail(member.images, member.row, THUMBNAIL)
    labels = [
        text if name in shared else f"<mark>{text}</mark>"
        for name in sorted(member.labels or ())
        if (text := escape(visible(name, MAX_NAME)))
    ]
    name = escape(visible(member.id, MAX_NAME))
    about = f"{escape(member.images.name)} <b>{name}</b> {member.likeness:.3f}"
    return (
        f'<figure><img alt="{name}" src="data:image/jpeg;base64,{encode_jpeg(image)}">'
        f"<figcaption>{about}<br>{', '.join(labels)}</figcaption></figure>"
    )
