"""Images on disk -> uint8 arrays: found by id, decoded to RGB or joined channels, kept resized in a
memory-mapped cache so that every file is decoded once."""

import os
import re
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from PIL import Image, ImageOps

from comp.artifacts import GrowingArray, digest, waiting_lock
from comp.console import progress
from comp.errors import CompError, TimeIsUp, some

Image.MAX_IMAGE_PIXELS = (
    500_000_000  # slides of 20,000 pixels are images; larger ones are decompression bombs
)
Paths = dict[int, Path]  # by size in pixels
CHUNK = 256  # images between two notes of what is done


@dataclass(frozen=True)
class ImageSet:
    """Images of a competition in one order: one file an id, or one a channel."""

    name: str  # "train" or "test"
    ids: np.ndarray  # (N,) str
    paths: tuple[tuple[Path, ...], ...]  # N times 1 or n_channels
    channels: tuple[str, ...]  # empty: RGB

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


def decode(paths: Sequence[Path], *, joined: bool, finest: int | None = None) -> np.ndarray:
    """One RGB image (H, W, 3), or where `joined` one grey channel a file, (H, W, len(paths)), as uint8.

    CMYK, grey, palette and transparent files become RGB; 16-bit greys are scaled to 8 bits, not clipped; a
    rotation noted by the camera is applied. With `finest` (pixels) a JPEG of twice that size or more is
    reduced to 1/2, 1/4 or 1/8 while it is decoded, but not below it. Raises OSError for a file that can't be
    read whole."""
    if not joined:
        found = _open_jpeg(paths[0], finest)
        return np.asarray(_open(paths[0], "RGB")) if found is None else found
    channels = [np.asarray(_open(path, "L")) for path in paths]
    if len({channel.shape for channel in channels}) > 1:
        raise OSError(f"channels of different sizes: {[c.shape for c in channels]}")
    return np.stack(channels, -1)


def _open_jpeg(path: Path, finest: int | None) -> np.ndarray | None:
    """What Pillow would give, in a third to two thirds of its time; None for what isn't a whole JPEG."""
    import cv2

    file = os.open(
        path, os.O_RDONLY
    )  # read_bytes waits for the interpreter twice as often beside other threads
    try:
        data = os.read(file, os.fstat(file).st_size)
    finally:
        os.close(file)
    if (frame := _jpeg_frame(data)) is None:
        return None
    height, width, n_colours = frame
    if n_colours == 4 and int(cv2.__version__.split(".")[0]) < 5:
        return None  # earlier ones take all CMYK for inverted
    coarser = reduction(min(height, width), finest)
    flag = getattr(cv2, f"IMREAD_REDUCED_COLOR_{coarser}") if coarser > 1 else cv2.IMREAD_COLOR
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def reduction(side: int, finest: int | None) -> int:
    """By how much a JPEG of `side` pixels may be reduced so that `finest` are left."""
    if not finest or side < 2 * finest:
        return 1
    return 8 if side >= 8 * finest else 4 if side >= 4 * finest else 2


def _jpeg_frame(data: bytes) -> tuple[int, int, int] | None:
    """(height, width, colours) of a JPEG that has its end."""
    at = 2
    while data[:2] == b"\xff\xd8" and at + 10 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame, and not a table
            height, width = (int.from_bytes(data[at + k : at + k + 2]) for k in (5, 7))
            return (height, width, data[at + 9]) if data.rfind(b"\xff\xd9") > at else None
        at += 2 + length
    return None


def _open(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            upright: Image.Image = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16 bits of grey: convert() would clip at 255
                values = np.clip(np.asarray(upright).astype(np.int64), 0, 65535) >> 8
                upright = Image.fromarray(values.astype(np.uint8))
            return upright.convert(mode)
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        raise OSError(str(error) or type(error).__name__) from error


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """(size, size, channels) uint8 of (H, W, channels): means of areas, or bilinear where a side grows."""
    import cv2

    if image.shape[:2] == (size, size):
        return image
    how = cv2.INTER_AREA if min(image.shape[:2]) >= size else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=how).reshape(size, size, -1)


def as_cached(paths: Sequence[Path], size: int, *, joined: bool, finest: int, filter: str) -> np.ndarray:
    """(side, side, channels) uint8: one image as the cache of its set holds it for `size` (pixels)."""
    image = decode(paths, joined=joined, finest=finest)
    native = max(image.shape[:2])
    return resize(_filtered(filter, min(finest, native))(image), min(size, native))


def probe(images: ImageSet, n_probed: int = 64) -> tuple[int, bool]:
    """(the longest side in pixels, whether there are JPEGs) of some images spread over the set."""
    sides, formats = [0], set()
    for i in np.unique(np.linspace(0, len(images.ids) - 1, min(n_probed, len(images.ids))).astype(int)):
        try:
            with Image.open(images.paths[i][0]) as image:
                sides.append(max(image.size))
                formats.add(image.format)
        except (OSError, SyntaxError):
            continue  # named with all others when the cache is built
    return max(sides) or 1, "JPEG" in formats


def cached(
    image_sets: Mapping[str, tuple[ImageSet, Sequence[int]]],
    folder: Path,
    stamp: str,
    deadline: float,
    finest: int,
    filter: str = "none",
) -> dict[str, Paths]:
    """For each named set of images and sizes, by size the path of a .npy with all images (N, side, side,
    channels) uint8, built where it isn't there.

    Each file is decoded once for all sizes, in no more detail than the `finest` of the recipe's sizes needs,
    so that train and predict see the same pixels. In that detail it goes through the `filter` (of
    comp.filters), whose colours then are the same at all sizes. `side` is at most the images' own size:
    enlarging is left to the device. Stopped anywhere, it goes on where it was. Raises TimeIsUp at the
    deadline, and one CompError that names all files that can't be read, of all sets.
    """
    n_threads = os.cpu_count() or 1
    answers, failed = {}, []
    for name, (images, sizes) in image_sets.items():
        native, jpegs = probe(images)
        coarser = reduction(native, finest) if jpegs else 1
        side = min(finest, native)
        more = [filter, side] if filter != "none" else []
        key = digest(stamp, images.ids, images.channels, coarser, *more)
        sides = {size: min(size, native) for size in sizes}
        paths = {side: folder / f"{images.name}-{side}-{key}.npy" for side in sorted(set(sides.values()))}
        with waiting_lock(folder / f".{images.name}.lock"):
            if absent := {side: path for side, path in paths.items() if not path.exists()}:
                failed += _build(images, absent, key, n_threads, deadline, finest, _filtered(filter, side))
        answers[name] = {size: paths[side] for size, side in sides.items()}
    if failed:
        raise CompError(f"images that can't be read: {some(failed)}; mend or replace them")
    return answers


def _filtered(filter: str, side: int) -> Callable[[np.ndarray], np.ndarray]:
    """What is done to images before they are resized."""
    if filter == "none":
        return lambda image: image
    from comp.filters import FILTERS

    return lambda image: FILTERS[filter](resize(image, side))


def _build(
    images: ImageSet,
    paths: dict[int, Path],
    key: str,
    n_threads: int,
    deadline: float,
    finest: int,
    filtered: Callable[[np.ndarray], np.ndarray],
) -> list[str]:
    """Fill the caches; give the files that can't be read, each with the reason."""
    import cv2

    cv2.setNumThreads(1)  # images are small: one a thread
    arrays = {
        side: GrowingArray(path, (len(images.ids), side, side, images.n_channels), "uint8", {"key": key})
        for side, path in paths.items()
    }
    todo = np.unique(np.concatenate([array.missing() for array in arrays.values()]))
    failed: list[str] = []
    joined = bool(images.channels)
    targets = [(side, np.asarray(array.rows)) for side, array in arrays.items()]  # quicker than memmaps

    def fill(rows: np.ndarray) -> int:
        filled, n_seen = [], 0
        for row in rows.tolist():
            if time.time() > deadline:
                break
            n_seen += 1
            try:
                image = filtered(decode(images.paths[row], joined=joined, finest=finest))
            except OSError as error:
                failed.append(f"{images.paths[row][0]}: {str(error).splitlines()[0]}")
                continue
            for side, rows_of_side in targets:
                rows_of_side[row] = resize(image, side)
            filled.append(row)
        for array in arrays.values():
            array.done[filled] = 1
        return n_seen

    label = f"{images.name} images to {', '.join(map(str, paths))} px"
    done = len(images.ids) - len(todo)
    with progress(label, len(images.ids), done) as advance, ThreadPoolExecutor(n_threads) as pool:
        for n in pool.map(fill, _chunks(todo)):
            done += n
            advance(n)
    if done < len(images.ids):
        raise TimeIsUp(f"{done:,} of {len(images.ids):,} {images.name} images resized")
    if not failed:
        for array in arrays.values():
            array.finish()
    return sorted(failed)


def _chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]
