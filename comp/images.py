"""Images on disk -> uint8 arrays: found by id, decoded to RGB or joined channels, kept resized in a
memory-mapped cache so that every file is decoded once."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

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
    counts.

    Raises one CompError that names all ids without a file.
    """
    listings = {folder: _names_in(folder) for folder, _ in folders}
    found, missing = [], []
    for image_id in ids.tolist():
        if image_id.startswith("/") or ".." in image_id.split("/"):
            raise CompError(f"id {image_id!r} leads out of the image folder")
        for folder, pattern in folders:
            names = [pattern.format(id=image_id, channel=channel) for channel in (channels or [""])]
            if all(n in listings[folder] or ("/" in n and (folder / n).is_file()) for n in names):
                found.append(tuple(folder / n for n in names))
                break
        else:
            missing.append(image_id)
    if missing:
        places = " or ".join(str(folder / pattern) for folder, pattern in folders)
        raise CompError(f"no image for {some(missing)} of the {len(ids):,} {name} ids; looked for {places}")
    return ImageSet(name, ids, tuple(found), tuple(channels))


def _names_in(folder: Path) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def decode(paths: Sequence[Path], *, joined: bool) -> Image.Image | np.ndarray:
    """One RGB image (H, W, 3), or where `joined` one grey channel a file, (H, W, len(paths)), as uint8.

    CMYK, grey, palette and transparent files become RGB; 16-bit greys are scaled to 8 bits, not clipped; a
    rotation noted by the camera is applied. Raises OSError for a file that can't be read whole."""
    if not joined:
        return _open(paths[0], "RGB")
    channels = [np.asarray(_open(path, "L")) for path in paths]
    if len({channel.shape for channel in channels}) > 1:
        raise OSError(f"channels of different sizes: {[c.shape for c in channels]}")
    return np.stack(channels, -1)


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


def resize(image: Image.Image | np.ndarray, size: int) -> np.ndarray:
    """(size, size, channels) uint8, by area-weighted bilinear interpolation."""
    if isinstance(image, np.ndarray):
        bands = [resize(Image.fromarray(band), size) for band in np.moveaxis(image, -1, 0)]
        return np.stack(bands, -1)
    if image.size == (size, size):
        return np.asarray(image)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0))


def native_size(images: ImageSet, n_probed: int = 64) -> int:
    """The longest side, in pixels, of some images spread over the set."""
    sides = [0]
    for i in np.unique(np.linspace(0, len(images.ids) - 1, min(n_probed, len(images.ids))).astype(int)):
        try:
            with Image.open(images.paths[i][0]) as image:
                sides.append(max(image.size))
        except (OSError, SyntaxError):
            continue  # named with all others when the cache is built
    return max(sides) or 1


def cached(
    image_sets: Mapping[str, tuple[ImageSet, Sequence[int]]], folder: Path, stamp: str, deadline: float
) -> dict[str, Paths]:
    """For each named set of images and sizes, by size the path of a .npy with all images (N, side, side,
    channels) uint8, built where it isn't there.

    Each file is decoded once for all sizes. `side` is at most the images' own size: enlarging is left to the
    device. Stopped anywhere, it goes on where it was. Raises TimeIsUp at the
    deadline, and one CompError that names all files that can't be read, of all sets.
    """
    n_threads = os.cpu_count() or 1
    answers, failed = {}, []
    for name, (images, sizes) in image_sets.items():
        native = native_size(images)
        key = digest(stamp, images.ids, images.channels)
        sides = {size: min(size, native) for size in sizes}
        paths = {side: folder / f"{images.name}-{side}-{key}.npy" for side in sorted(set(sides.values()))}
        with waiting_lock(folder / f".{images.name}.lock"):
            if absent := {side: path for side, path in paths.items() if not path.exists()}:
                failed += _build(images, absent, key, n_threads, deadline)
        answers[name] = {size: paths[side] for size, side in sides.items()}
    if failed:
        raise CompError(f"images that can't be read: {some(failed)}; mend or replace them")
    return answers


def _build(images: ImageSet, paths: dict[int, Path], key: str, n_threads: int, deadline: float) -> list[str]:
    """Fill the caches; give the files that can't be read, each with the reason."""
    arrays = {
        side: GrowingArray(path, (len(images.ids), side, side, images.n_channels), "uint8", {"key": key})
        for side, path in paths.items()
    }
    todo = np.unique(np.concatenate([array.missing() for array in arrays.values()]))
    failed: list[str] = []

    def fill(rows: np.ndarray) -> int:
        for n_done, row in enumerate(rows):
            if time.time() > deadline:
                return n_done
            try:
                image = decode(images.paths[row], joined=bool(images.channels))
            except OSError as error:
                failed.append(f"{images.paths[row][0]}: {str(error).splitlines()[0]}")
                continue
            for side, array in arrays.items():
                array.put(int(row), resize(image, side))
        return len(rows)

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
