"""Find image files by id, and resize images."""

import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from comp.data.decoding import Limits
from comp.errors import CompError, summarize


@dataclass(frozen=True)
class ImageSet:
    """Images in one order: one file per id, or one per channel."""

    name: str  # train, test, external
    ids: np.ndarray  # (N,) str
    paths: tuple[tuple[Path, ...], ...]  # N times 1 or n_channels
    channels: tuple[str, ...]  # empty: RGB
    limits: Limits | None = None  # for values of more than 8 bits

    @property
    def n_channels(self) -> int:
        return len(self.channels) or 3


def find_images(
    name: str, ids: np.ndarray, folders: Sequence[tuple[Path, str]], channels: Sequence[str]
) -> ImageSet:
    """Return the files of every id, each from the first of `folders` (folder, file name with {id} and
    {channel}) that has it. Accents in names may be composed or, as macOS writes them, not.

    Raise one CompError that lists all ids without a file, and names a file that is nearly right."""
    listing = cache(_names_in)
    found, missing = [], []
    for text in (*channels, *(pattern for _, pattern in folders)):
        if text.startswith("/") or ".." in text.split("/"):
            raise CompError(f"the pattern or channel {text!r} points outside the image folder")
    for image_id in ids.tolist():
        if image_id.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", image_id):
            raise CompError(f"id {image_id!r} points outside the image folder")
        for folder, pattern in folders:
            names = [pattern.format(id=image_id, channel=channel) for channel in (channels or [""])]
            paths = [path for n in names if (path := look_up(folder, n, listing))]
            if len(paths) == len(names):
                found.append(tuple(paths))
                break
        else:
            missing.append(image_id)
    if missing:
        places = " or ".join(str(folder / pattern) for folder, pattern in folders)
        raise CompError(
            f"no image for {summarize(missing)} of the {len(ids):,} {name} ids; looked for {places}"
            f"{_similar_file_hint(missing, folders, channels, listing)}"
        )
    return ImageSet(name, ids, tuple(found), tuple(channels))


Listing = Callable[[Path], Mapping[str, str]]  # name as given or composed -> name of the file


def _names_in(folder: Path) -> dict[str, str]:
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {to_nfc(name): name for name in names} | {name: name for name in names}


def look_up(folder: Path, name: str, listing: Listing = _names_in) -> Path | None:
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
    missing: Sequence[str], folders: Sequence[tuple[Path, str]], channels: Sequence[str], listing: Listing
) -> str:
    """Return a hint for the end of a message: a file whose name differs from an id's only in ending, case or
    the like; else an empty text."""
    alike = cache(lambda folder: {_normalized_name(name): name for name in listing(folder)})
    for image_id, (folder, pattern), channel in product(missing[:100], folders, channels or [""]):
        name = pattern.format(id=image_id, channel=channel)
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


def template_to_regex(
    template: str, channels: Sequence[str] = (), identifier: str = "[^/]+"
) -> re.Pattern[str]:
    """Return a regular expression for the names of a template, with the groups id and channel. Without
    `channels` any channel matches."""
    expression = re.escape(to_nfc(template))
    for field, form in (("id", identifier), ("channel", "|".join(map(re.escape, channels)) or "[^/]+")):
        expression = expression.replace(rf"\{{{field}\}}", f"(?P<{field}>{form})", 1)
        expression = expression.replace(rf"\{{{field}\}}", f"(?P={field})")
    return re.compile(expression)


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
