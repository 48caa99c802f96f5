"""Find image files by id, and resize images."""

import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote

import numpy as np

from comp.config.labels import LABEL
from comp.data.scaling import Limits
from comp.errors import CompError, summarize

Listing = Callable[[Path], Mapping[str, str]]  # name as given or composed -> name of the file
NO_CELLS: Mapping[str, Sequence[str]] = MappingProxyType({})


@dataclass(frozen=True)
class ImageSet:
    """Images in one order: one file per id, or one per channel, or one with all bands."""

    name: str  # train, test, external
    ids: np.ndarray  # (N,) str
    paths: tuple[tuple[Path, ...], ...]  # N times 1 or n_channels
    channels: tuple[str, ...]  # empty: RGB
    limits: Limits | None = None  # for values of more than 8 bits
    bands: tuple[int, ...] = ()  # of each file, counted from 1, that are its channels

    @property
    def n_channels(self) -> int:
        return len(self.channels) or 3


def find_images(
    name: str,
    ids: np.ndarray,
    folders: Sequence[tuple[Path, str]],
    channels: Sequence[str],
    cells: Mapping[str, Sequence[str]] = NO_CELLS,
) -> ImageSet:
    """Return the files of every id, each from the first of `folders` (folder, file name with {id}, {channel}
    and other columns) that has it. `cells` hold the values (N,) of these columns. Without {channel} the
    channels are numbers of bands of one file. Accents in names may be composed or, as macOS writes them, not.

    Raise one CompError that lists all ids without a file, and names a file that is nearly right."""
    listing = cache(names_in)
    found, missing = [], []
    for text in (*channels, *(pattern for _, pattern in folders)):
        if text.startswith("/") or ".." in text.split("/"):
            raise CompError(f"the pattern or channel {text!r} points outside the image folder")
    places = [place for folder, pattern in folders for place in expand_folders(folder, pattern, listing)]
    rows = [dict(zip(cells, row)) for row in zip(*cells.values())] or [{}] * len(ids)
    for image_id, row in zip(ids.tolist(), rows):
        for field, text in (("id", image_id), *row.items()):
            if text.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", text):
                raise CompError(f"{field} {text!r} points outside the image folder")
        for folder, pattern in places:
            filled = channels if "{channel}" in pattern else [""]
            names = [file_name(pattern, image_id, channel, row) for channel in filled]
            paths = [path for n in names if (path := look_up(folder, n, listing))]
            if len(paths) == len(names):
                found.append(tuple(paths))
                break
        else:
            missing.append((image_id, row))
    if missing:
        looked_for = " or ".join(str(folder / pattern) for folder, pattern in folders)
        lacking = summarize([image_id for image_id, _ in missing])
        raise CompError(
            f"no image for {lacking} of the {len(ids):,} {name} ids; looked for {looked_for}"
            f"{_similar_file_hint(missing, places, channels, listing)}"
        )
    in_one = bool(channels) and not any("{channel}" in pattern for _, pattern in folders)
    bands = tuple(map(int, channels)) if in_one else ()
    return ImageSet(name, ids, tuple(found), tuple(channels), bands=bands)


def file_name(pattern: str, image_id: str, channel: str, row: Mapping[str, str]) -> str:
    """Return the name that a pattern gives an image with these cells in its row. Raise CompError for a
    position such as {id[2]} that a text does not have."""
    try:
        return pattern.format(**{**row, "id": image_id, "channel": channel})
    except IndexError as error:
        raise CompError(f"{image_id!r} is too short for the image template {pattern}") from error


def expand_folders(folder: Path, pattern: str, listing: Listing | None = None) -> list[tuple[Path, str]]:
    """Return (folder, pattern) for each folder that fits a pattern with * in its first folders."""
    head, slash, rest = pattern.partition("/")
    if not slash or "*" not in pattern:
        return [(folder, pattern)]
    fits, listing = template_to_regex(head).fullmatch, listing or names_in
    names = sorted(set(listing(folder).values())) if "*" in head else [head]
    inner = [folder / name for name in names if fits(to_nfc(name))]
    return [place for path in inner if path.is_dir() for place in expand_folders(path, rest, listing)]


def names_in(folder: Path) -> dict[str, str]:
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {to_nfc(name): name for name in names} | {name: name for name in names}


def look_up(folder: Path, name: str, listing: Listing = names_in) -> Path | None:
    """Return the file of this name, or None. The name may include folders, also with backslashes; accents may
    be composed or not."""
    path = folder / name
    if "/" in name and (name.isascii() or path.is_file()):
        return path if path.is_file() else None
    path = folder
    for part in name.split("/"):
        names = listing(path)
        if (found := names.get(part) or names.get(to_nfc(part))) is None:
            return look_up(folder, name.replace("\\", "/"), listing) if "\\" in name else None
        path /= found
    return path


def _similar_file_hint(
    missing: Sequence[tuple[str, Mapping[str, str]]],
    folders: Sequence[tuple[Path, str]],
    channels: Sequence[str],
    listing: Listing,
) -> str:
    """Return a hint for the end of a message: a file whose name differs from an id's only in ending, case or
    the like; else an empty text."""
    alike = cache(lambda folder: {_normalized_name(name): name for name in listing(folder)})
    for (image_id, row), (folder, pattern), channel in product(missing[:100], folders, channels or [""]):
        name = file_name(pattern, image_id, channel, row)
        if look_up(folder, name, listing):
            continue
        path: Path | None = folder
        for part in re.split(r"[/\\]", name):
            found = path and (listing(path).get(part) or alike(path).get(_normalized_name(part)))
            path = path / found if path and found else None
        if path is None:
            continue
        ending = pattern.rpartition("}")[2]
        inner, start = path.relative_to(folder).as_posix(), name.removesuffix(ending)
        if inner.startswith(start):
            suited = pattern.removesuffix(ending) + inner[len(start) :]
            return f"; {path} is there: add a template that ends in {suited}"
        return f"; {path} is there, but {name!r} is expected: names must be equal letter by letter"
    return ""


def _normalized_name(name: str) -> str:
    """Return a name without what people and programs change: case, endings, spaces, leading zeros, and
    characters that Windows or a URL does not allow."""
    name = unicodedata.normalize("NFKC", unquote(name)).casefold()
    name = re.sub(r"(\.[a-z][a-z0-9]{1,4})+$", "", name.strip("\ufeff\u200b \t"))
    name = re.sub(r'[\s<>:"|?*\\+]', "_", name.strip().removesuffix(".0"))
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


def to_nfc(text: str) -> str:
    """Return the text with each accented letter as one character (Unicode NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


PART = re.compile(r"\{(?P<name>[^{}\[]+)(?P<position>\[\d+\])?\}|\*")


def template_to_regex(
    template: str, channels: Sequence[str] = (), identifier: str = "[^/]+"
) -> re.Pattern[str]:
    """Return a regular expression for the names of a template, with the groups id, channel and others by the
    names of its fields. Without `channels` any channel matches. `identifier` is the form of an id and of
    other columns, but {label} is the name of one folder or a part of a name."""
    forms = {"channel": "|".join(map(re.escape, channels)) or "[^/]+", LABEL: "[^/]+"}
    expression, end, seen = "", 0, set()
    for part in PART.finditer(template := to_nfc(template)):
        expression += re.escape(template[end : part.start()])
        end, name = part.end(), part["name"]
        if name is None:
            expression += "[^/]*"
        elif part["position"]:
            expression += "[^/]"
        elif not name.isidentifier():
            expression += f"(?:{identifier})"
        elif name in seen:
            expression += f"(?P={name})"
        else:
            expression += f"(?P<{name}>{forms.get(name, identifier)})"
            seen.add(name)
    return re.compile(expression + re.escape(template[end:]))


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resize (H, W, channels) uint8 to (size, size, channels): area means, or bilinear if a side grows."""
    import cv2

    if image.shape[:2] == (size, size):
        return image
    how = cv2.INTER_AREA if min(image.shape[:2]) >= size else cv2.INTER_LINEAR
    parts = [  # OpenCV resizes at most four channels
        cv2.resize(image[..., k : k + 4], (size, size), interpolation=how).reshape(size, size, -1)
        for k in range(0, image.shape[-1], 4)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, -1)


def spread_indices(n: int, n_probed: int = 64) -> list[int]:
    """Return at most `n_probed` of n indices, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n_probed, n)).astype(int)).tolist()


def open_cache(path: Path) -> np.ndarray:
    """Return (N, H, W, channels) uint8 as a memory map of the file. Raise CompError for a damaged file."""
    try:
        images = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise CompError(f"{path} is damaged ({error}); delete it, and it will be rebuilt") from error
    if images.ndim != 4 or images.dtype != np.uint8:
        raise CompError(
            f"{path} has an unexpected dtype or shape ({images.dtype} {images.shape} instead of uint8 with 4 "
            "axes); delete it, and it will be rebuilt"
        )
    return images
