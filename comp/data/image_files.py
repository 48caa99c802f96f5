"""Find, decode and resize image files."""

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

from comp.artifacts.resumable import GrowingArray
from comp.console import say
from comp.data.decoding import Limits
from comp.errors import CompError, some

FAINT = 2  # levels from black or white that nobody sees
MOST_BLANK = 0.95  # share of a set's images that may be blank


@dataclass(frozen=True)
class ImageSet:
    """Images of a competition in one order: one file an id, or one a channel."""

    name: str  # "train" or "test"
    ids: np.ndarray  # (N,) str
    paths: tuple[tuple[Path, ...], ...]  # N times 1 or n_channels
    channels: tuple[str, ...]  # empty: RGB
    limits: Limits | None = None  # of values of more than 8 bits

    @property
    def n_channels(self) -> int:
        return len(self.channels) or 3


def find_images(
    name: str, ids: np.ndarray, folders: Sequence[tuple[Path, str]], channels: Sequence[str]
) -> ImageSet:
    """The files of every id: `folders` are (folder, file name with {id} and {channel}), the first that has it
    counts. Accents in names may be composed or not, as macOS writes them.

    Raises one CompError that names all ids without a file, and a file that is nearly what was looked for.
    """
    listing = cache(_names_in)
    found, missing = [], []
    for text in (*channels, *(pattern for _, pattern in folders)):
        if text.startswith("/") or ".." in text.split("/"):
            raise CompError(f"the pattern or channel {text!r} leads out of the image folder")
    for image_id in ids.tolist():
        if image_id.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", image_id):
            raise CompError(f"id {image_id!r} leads out of the image folder")
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
            f"no image for {some(missing)} of the {len(ids):,} {name} ids; looked for {places}"
            f"{_like(missing, folders, channels, listing)}"
        )
    return ImageSet(name, ids, tuple(found), tuple(channels))


Listing = Callable[[Path], Mapping[str, str]]  # the names in a folder, as they are and composed


def _names_in(folder: Path) -> dict[str, str]:
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return {composed(name): name for name in names} | {name: name for name in names}


def look_up(folder: Path, name: str, listing: Listing = _names_in) -> Path | None:
    """The file of this name, which may hold folders of its own, also with backslashes. Accents may be
    composed or not."""
    path = folder / name
    if "/" in name and (name.isascii() or path.is_file()):
        return path if path.is_file() else None
    path = folder
    for part in name.split("/"):
        names = listing(path)
        if (found := names.get(part) or names.get(composed(part))) is None:
            return look_up(folder, name.replace("\\", "/"), listing) if "\\" in name else None
        path /= found
    return path


def _like(
    missing: Sequence[str], folders: Sequence[tuple[Path, str]], channels: Sequence[str], listing: Listing
) -> str:
    """What is said of a file that has an id's name but for its ending, its case or the like."""
    alike = cache(lambda folder: {_bare(name): name for name in listing(folder)})
    for image_id, (folder, pattern), channel in product(missing[:100], folders, channels or [""]):
        name = pattern.format(id=image_id, channel=channel)
        if look_up(folder, name, listing):
            continue
        path: Path | None = folder
        for part in re.split(r"[/\\]", name):
            found = path and (listing(path).get(part) or alike(path).get(_bare(part)))
            path = path / found if path and found else None
        if path is None:
            continue
        ending = pattern.rpartition("}")[2]
        inner, start = path.relative_to(folder).as_posix(), name.removesuffix(ending)
        if inner.startswith(start):
            suited = pattern.removesuffix(ending) + inner[len(start) :]
            return f"; {path} is there: add a template that ends in {suited}"
        return f"; {path} is there, and {name!r} is looked for: names must be equal letter by letter"
    return ""


def _bare(name: str) -> str:
    """A name without what people and programs change in it: case, endings, spaces, zeros in front, and signs
    that Windows or a web address can't hold."""
    name = unicodedata.normalize("NFKC", unquote(name)).casefold()
    name = re.sub(r"(\.[a-z][a-z0-9]{1,4})+$", "", name.strip("\ufeff\u200b \t"))
    name = re.sub(r'[\s<>:"|?*\\+]', "_", name.strip().removesuffix(".0"))
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


def composed(text: str) -> str:
    """With each accent and its letter as one sign, as most programs write them."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def as_expression(template: str, channels: Sequence[str] = (), identifier: str = "[^/]+") -> re.Pattern[str]:
    """What fits the names that a template gives, with the groups id and channel. Without `channels` any will
    do."""
    expression = re.escape(composed(template))
    for field, form in (("id", identifier), ("channel", "|".join(map(re.escape, channels)) or "[^/]+")):
        expression = expression.replace(rf"\{{{field}\}}", f"(?P<{field}>{form})", 1)
        expression = expression.replace(rf"\{{{field}\}}", f"(?P={field})")
    return re.compile(expression)


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """(size, size, channels) uint8 of (H, W, channels): means of areas, or bilinear where a side grows."""
    import cv2

    if image.shape[:2] == (size, size):
        return image
    how = cv2.INTER_AREA if min(image.shape[:2]) >= size else cv2.INTER_LINEAR
    parts = [  # OpenCV takes four channels
        cv2.resize(image[..., k : k + 4], (size, size), interpolation=how).reshape(size, size, -1)
        for k in range(0, image.shape[-1], 4)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, -1)


def spread(n: int, n_probed: int = 64) -> list[int]:
    """Some of n indices, as far from each other as they can be."""
    return np.unique(np.linspace(0, n - 1, min(n_probed, n)).astype(int)).tolist()


def open_cache(path: Path) -> np.ndarray:
    """(N, H, W, channels) uint8, read from the file as it is used. Raises CompError for a damaged file."""
    try:
        images = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise CompError(f"{path} is damaged ({error}); remove it, and it is made again") from error
    if images.ndim != 4 or images.dtype != np.uint8:
        raise CompError(f"{path} holds {images.dtype} {images.shape}; remove it, and it is made again")
    return images


def _tell(images: ImageSet, done: Sequence[str]) -> None:
    """Say what is done to pixels beyond decoding them."""
    if limits := images.limits:
        used = f"{limits.bits}: " if limits.bits else ""
        say(
            f"{images.name} images use {used}{limits.low:,.6g} … {limits.high:,.6g} become black … white "
            "(images.range in the competition's TOML sets other values)"
        )
    if "white" in done:
        say(f"{images.name} images are transparent in part: they are laid on white")


def _check_seen(images: ImageSet, arrays: Mapping[int, GrowingArray]) -> None:
    """Raise CompError, and leave no cache, where nearly all images are black or white all over: some such are
    nights or masks."""
    rows = arrays[min(arrays)].rows
    n = len(rows)

    def blank(i: int) -> bool:
        return bool(rows[i].max() <= FAINT or rows[i].min() >= 255 - FAINT)

    few = spread(n)
    if sum(map(blank, few)) < MOST_BLANK * len(few):
        return
    n_blank = sum(map(blank, range(n)))
    if n_blank >= MOST_BLANK * n:
        for array in arrays.values():
            array.remove()
        raise CompError(
            f"{n_blank:,} of {n:,} {images.name} images are blank, black or white all over (first: "
            f"{images.paths[0][0]}); files of more than 8 bits take images.range in the competition's TOML, "
            "others have to be converted"
        )
