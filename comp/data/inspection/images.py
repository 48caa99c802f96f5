"""Which image files belong to the ids of a table: templates such as train/{id}_{channel}.png."""

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import pandas as pd

from comp.config.schema import FIELD
from comp.data.discovery import split_template
from comp.data.image_files import to_nfc

CHANNEL = re.compile(r"(?P<start>.*\{id\}[_.\-/])(?P<piece>[^/{}._\-]+)(?P<end>\.\w+)")
CHANNEL_ORDER = ("red", "green", "blue", "yellow", "r", "g", "b", "y")
MAX_CHANNELS = 12
MAX_FOLDERS = 8  # in an id
MAX_TEMPLATES = 100  # of one set of images
SECONDARY = re.compile(r"mask|thumb|small|resized|segment|annotat|crop", re.IGNORECASE)
RARE_ENDINGS = (".tif", ".tiff", ".dcm", ".npy", ".jp2", ".bmp")
MIN_STARRED = 4  # folders that become one with *
Split = Literal["train", "test"]
WORDS = {"train": "train", "test": "test|valid|\\bval\\b", "any": "train|test"}


@dataclass(frozen=True)
class Match:
    """The templates that lead from ids to files."""

    templates: tuple[str, ...]
    channels: tuple[str, ...]
    missing: tuple[str, ...]  # ids without a file


class ImageFiles:
    """Image files by the ends of their paths, in which ids are looked up."""

    def __init__(self, paths: Sequence[str]):
        self.paths = list(paths)
        self._tails: dict[int, dict[str, list[int]]] = {}

    def share(self, ids: Sequence[str], n_probed: int = 200) -> float:
        """Return the share of some of the ids that name an image file."""
        probed = ids[:: max(1, len(ids) // n_probed)][:n_probed]
        return sum(any(True for _ in self._templates_of(name)) for name in probed) / max(1, len(probed))

    def match(self, ids: Sequence[str], split: Split, frame: pd.DataFrame | None = None) -> Match:
        """Return the fewest templates that lead to a file of each id. Of several files for one id, those in
        folders named after the split, and in common formats, are preferred. Folders may be named by columns
        of the ids' table, `frame`."""
        ids_of: dict[str, set[str]] = defaultdict(set)
        columns = {} if frame is None else {str(c): frame[c].str.strip().tolist() for c in frame.columns}
        for i, name in enumerate(ids):
            row = {c: cells[i] for c, cells in columns.items() if cells[i] and cells[i] != name}
            for template in self._templates_of(name):
                ids_of[template].add(name)
                if other := _with_column(template, row):
                    ids_of[other].add(name)
        forms, channels = _join_channels(ids_of)
        left, chosen = set(ids), list[str]()
        while left and forms and len(chosen) < MAX_TEMPLATES:
            best = max(forms, key=lambda t: (len(forms[t] & left) * _worth(t, split), -len(t), t))
            if not forms[best] & left:
                break
            chosen.append(best)
            left -= forms.pop(best)
        if channels and any("{channel}" not in template for template in chosen):
            chosen = [template for template in chosen if "{channel}" in template]
        templates = tuple(sorted(self.shortened(template) for template in chosen))
        return with_stars(
            Match(templates, channels if chosen else (), tuple(name for name in ids if name in left))
        )

    def shortened(self, template: str) -> str:
        """Return the template without the folders that are not needed to tell its files from others."""
        folders, rest = split_template(template)
        named = [n for n, folder in enumerate(reversed(folders), 1) if re.search(WORDS["any"], folder, re.I)]
        for n in range(min(named, default=1), len(folders)):
            tail = folders[len(folders) - n :]
            if sum(folder[-n:] == tail for folder in self._folders(rest)) == 1:
                return "/".join((*tail, rest))
        return template

    def _folders(self, rest: str) -> set[tuple[str, ...]]:
        """Return the folders that files of such a form may lie in."""
        deeper = rest.count("/") + 1
        return {parts[:-deeper] for parts in self._parts if len(parts) >= deeper}

    @cached_property
    def _parts(self) -> set[tuple[str, ...]]:
        """The folders of all files, each with a file's place behind it."""
        return {(*path.split("/")[:-1], "") for path in self.paths}

    def _templates_of(self, name: str) -> Iterable[str]:
        plain = to_nfc(name).replace("\\", "/").strip("/")
        if not plain or plain.count("/") > MAX_FOLDERS:
            return
        for number in self._by_tail(plain.count("/") + 1).get(plain, ()):
            template = _with_field(self.paths[number], plain)
            if template:
                yield template

    def _by_tail(self, n: int) -> dict[str, list[int]]:
        """Return the files by the last `n` parts of their paths: with ending, without it, and without what
        follows the last _, - or . in the name. For one part also by their folder's name."""
        if n not in self._tails:
            found: dict[str, list[int]] = defaultdict(list)
            for number, path in enumerate(self.paths):
                parts = path.rsplit("/", n)
                tail = path if len(parts) <= n else path[len(parts[0]) + 1 :]
                stem = tail.rpartition(".")[0]
                keys = {tail, stem, re.sub(r"[_.\-][^/_.\-]*$", "", stem)}
                if n == 1 and "/" in path:
                    keys.add(path.split("/")[-2])
                for key in keys:
                    found[key].append(number)
            self._tails[n] = found
        return self._tails[n]


def with_stars(match: Match) -> Match:
    """Return the match with one template instead of several that differ in the end of one folder's name."""
    parts = [template.split("/") for template in match.templates]
    if match.channels or len({len(one) for one in parts}) != 1:
        return match
    differs = [k for k, texts in enumerate(zip(*parts)) if len(set(texts)) > 1]
    folders = sorted({one[k] for one in parts for k in differs})
    start = os.path.commonprefix(folders)
    first = next((k for k, part in enumerate(parts[0]) if "{" in part), 0)
    if len(differs) != 1 or differs[0] >= first or len(folders) < MIN_STARRED or not start:
        return match
    return replace(
        match, templates=("/".join([*parts[0][: differs[0]], f"{start}*", *parts[0][differs[0] + 1 :]]),)
    )


def _with_column(template: str, row: Mapping[str, str]) -> str | None:
    """Return the template with a column in place of the first folder that is named as its cell in this
    row."""
    folders = template.split("/")[:-1]
    for folder in folders:
        for column, cell in row.items():
            if folder == cell and "{" not in folder and FIELD.fullmatch(column):
                return template.replace(f"{folder}/", f"{{{column}}}/", 1)
    return None


def _with_field(path: str, name: str) -> str | None:
    """Return the path with {id} for each place where the id stands on its own, or None if there is none."""
    pieces, start = [], 0
    while (at := path.find(name, start)) >= 0:
        end = at + len(name)
        alone = not path[at - 1 : at].isalnum() and not path[end : end + 1].isalnum()
        pieces.append(path[start:at] + ("{id}" if alone else name))
        start = end
    text = "".join(pieces) + path[start:]
    if any(c in path for c in "{}") or "{id}" not in text:
        return None
    return text


def _join_channels(ids_of: dict[str, set[str]]) -> tuple[dict[str, set[str]], tuple[str, ...]]:
    """Join templates that differ in the name of a channel only; return (ids by template, the channels)."""
    groups: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for template in ids_of:
        if match := CHANNEL.fullmatch(template):
            groups[match["start"], match["end"]][match["piece"]] = template
    joined: dict[str, set[str]] = dict(ids_of)
    channels: tuple[str, ...] = ()
    for (start, end), pieces in sorted(groups.items()):
        ids = set().union(*(ids_of[template] for template in pieces.values()))
        full = {piece for piece, template in pieces.items() if len(ids_of[template]) >= 0.9 * len(ids)}
        if not 2 <= len(full) <= MAX_CHANNELS or (channels and full != set(channels)):
            continue
        known = [name for name in CHANNEL_ORDER if name in {piece.lower() for piece in full}]
        channels = tuple(sorted(full, key=lambda p: (p.lower() not in known, CHANNEL_ORDER.index(p.lower())
                                                    if p.lower() in known else 0, p)))  # fmt: skip
        for piece in full:
            del joined[pieces[piece]]
        joined[f"{start}{{channel}}{end}"] = set.intersection(*(ids_of[pieces[piece]] for piece in full))
    return joined, channels


def _worth(template: str, split: Split) -> float:
    other: Split = "test" if split == "train" else "train"
    worth = 1.0
    if re.search(WORDS[split], template, re.IGNORECASE):
        worth *= 1.5
    if re.search(WORDS[other], template, re.IGNORECASE):
        worth *= 0.5
    if SECONDARY.search(template):
        worth *= 0.5
    return worth * (0.8 if template.lower().endswith(RARE_ENDINGS) else 1.0)
