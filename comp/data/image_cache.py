"""Every image decoded once, into one array per size."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from comp.artifacts.files import waiting_lock
from comp.artifacts.resumable import GrowingArray
from comp.artifacts.stamps import digest
from comp.console import progress, say
from comp.data.damage import read_frame
from comp.data.decoding import Limits, decode, reduction, shows_through
from comp.data.image_files import ImageSet, _check_seen, _tell, resize, spread
from comp.errors import CompError, TimeIsUp, some

Paths = dict[int, Path]  # by size in pixels
CHUNK = 256  # images between two notes of what is done


def as_cached(
    paths: Sequence[Path], size: int, *, joined: bool, finest: int, filter: str, limits: Limits | None = None
) -> np.ndarray:
    """(side, side, channels) uint8: one image as the cache of its set holds it for `size` (pixels)."""
    image = decode(paths, joined=joined, finest=finest, limits=limits)
    native = max(image.shape[:2])
    return resize(_filtered(filter, min(finest, native))(image), min(size, native))


def probe(images: ImageSet, n_probed: int = 64) -> tuple[int, bool, list[str]]:
    """(the longest side in pixels, whether there are JPEGs, what is done to pixels besides) of some images
    spread over the set."""
    sides, formats, done = [0], set(), set()
    for i in spread(len(images.ids), n_probed):
        path = images.paths[i][0]
        try:
            with Image.open(path) as image:
                sides.append(max(image.size))
                formats.add(image.format)
                if image.format == "JPEG" and image.info.get("xmp"):
                    frame = read_frame(path.read_bytes())
                    done |= {"turned"} if frame and frame.turned else set()
                done |= {"white"} if shows_through(image) else set()
        except Exception:  # noqa: S112  # named with all others when the cache is built
            continue
    return max(sides) or 1, "JPEG" in formats, sorted(done)


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
    comp.data.dehaze), whose colours then are the same at all sizes. `side` is at most the images' own size:
    enlarging is left to the device. Stopped anywhere, it goes on where it was. Raises TimeIsUp at the
    deadline, and one CompError that names all files that can't be read, of all sets.
    """
    n_threads = os.cpu_count() or 1
    answers, failed = {}, []
    for name, (images, sizes) in image_sets.items():
        native, jpegs, done = probe(images)
        coarser = reduction(native, finest) if jpegs else 1
        side = min(finest, native)
        more = [filter, side] if filter != "none" else []
        more += [*done, *([images.limits[:2]] if images.limits else [])]
        key = digest(stamp, images.ids, images.channels, coarser, *more)
        sides = {size: min(size, native) for size in sizes}
        paths = {side: folder / f"{images.name}-{side}-{key}.npy" for side in sorted(set(sides.values()))}
        with waiting_lock(folder / f".{images.name}.lock"):
            if absent := {side: path for side, path in paths.items() if not path.exists()}:
                _tell(images, done)
                failed += _build(images, absent, key, n_threads, deadline, finest, _filtered(filter, side))
        answers[name] = {size: paths[side] for size, side in sides.items()}
    if failed:
        raise CompError(f"images that can't be read: {some(failed)}; mend or replace them")
    return answers


def _filtered(filter: str, side: int) -> Callable[[np.ndarray], np.ndarray]:
    """What is done to images before they are resized."""
    if filter == "none":
        return lambda image: image
    from comp.data.dehaze import FILTERS

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
    clipped: list[Path] = []
    joined = bool(images.channels)
    targets = [(side, np.asarray(array.rows)) for side, array in arrays.items()]  # quicker than memmaps

    def fill(rows: np.ndarray) -> int:
        filled, n_seen = [], 0
        for row in rows.tolist():
            if time.time() > deadline:
                break
            n_seen += 1
            files = images.paths[row]
            try:
                image = decode(files, joined=joined, finest=finest, limits=images.limits, clipped=clipped)
                image = filtered(image)
            except OSError as error:
                failed.append(f"{files[0]}: {str(error).splitlines()[0]}")
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
    if clipped:
        say(f"{images.name} images hold values beyond these, which are clipped: {some(sorted(clipped))}")
    if not failed:
        _check_seen(images, arrays)
        for array in arrays.values():
            array.finish()
    return sorted(failed)


def _chunks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]
