"""Decode every image once, into one cached array per size."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from comp.artifacts.files import free_bytes, lock
from comp.artifacts.resumable import GrowingArray, growing_paths
from comp.artifacts.stamps import digest
from comp.console import info, progress, size_text
from comp.data.blank_images import check_not_blank
from comp.data.damage import read_frame
from comp.data.decoding import decode, is_partly_transparent, jpeg_reduction
from comp.data.gpu_decoding import GpuDecoder, any_for_gpu, check_gpu_decoder
from comp.data.image_files import ImageSet, resize, spread_indices
from comp.data.reading_threads import in_threads
from comp.data.scaling import Limits
from comp.errors import CompError, TimeIsUp, summarize
from comp.user_code import NO_CODE, Code, as_users_error, checked_image, is_reference, load_function, stamped

CachePaths = dict[int, Path]  # by size in pixels
CHUNK, LEAST_CHUNK = 256, 16  # images of 256 px, and of any size, that a thread takes at a time
MAX_THREADS = 32
MAX_SMALL = 2048  # pixels: a thread for each core is enough for larger images, which take memory


@dataclass(frozen=True)
class CachedSet:
    """A set of images and its caches."""

    images: ImageSet
    sides: dict[int, int]  # of the caches, by size of the phases; at most the images' own
    paths: CachePaths  # by side
    key: str  # what the caches depend on
    native: int  # the images' own longest side, in pixels
    done: list[str]  # what else is done to pixels
    filtered: Callable[[np.ndarray], np.ndarray]  # applied before an image is resized
    on_gpu: bool  # whether nvJPEG decodes what it can

    def absent(self) -> CachePaths:
        return {side: path for side, path in self.paths.items() if not path.exists()}

    def by_size(self) -> CachePaths:
        """Return the caches by size of the phases."""
        return {size: self.paths[side] for size, side in self.sides.items()}

    def read(self, row: int, max_size: int, clipped: list[Path] | None = None) -> np.ndarray:
        """Return an image (H, W, channels) uint8, decoded and filtered, before it is resized."""
        images = self.images
        image = decode(
            images.paths[row], joined=bool(images.channels), bands=images.bands, max_size=max_size,
            limits=images.limits, clipped=clipped,
        )  # fmt: skip
        return self.filtered(image)

    @property
    def n_threads(self) -> int:
        """The most threads that decode. Network mounts answer late, so small files keep more of them busy
        than there are cores."""
        n_cores = os.cpu_count() or 1
        return n_cores if self.native > MAX_SMALL else max(n_cores, min(MAX_THREADS, 4 * n_cores))

    @property
    def n_at_a_time(self) -> int:
        """The images that a thread takes at a time: fewer large ones, so that no thread is left alone."""
        return min(CHUNK, max(LEAST_CHUNK, CHUNK * 256**2 // self.native**2))


def read_as_cached(
    paths: Sequence[Path],
    size: int,
    *,
    joined: bool,
    bands: Sequence[int] = (),
    max_size: int,
    filter: str,
    code: Code = NO_CODE,
    limits: Limits | None = None,
) -> np.ndarray:
    """Return (side, side, channels) uint8: one image as the cache of its set has it for `size` (pixels), but
    always decoded by the CPU."""
    image = decode(paths, joined=joined, bands=bands, max_size=max_size, limits=limits)
    return as_cached(image, size, max_size=max_size, filter=filter, code=code)


def as_cached(
    image: np.ndarray, size: int, *, max_size: int, filter: str, code: Code = NO_CODE
) -> np.ndarray:
    """Return (side, side, channels) uint8: a decoded image (H, W, channels) as a cache has it for `size`."""
    native = max(image.shape[:2])
    return resize(_filtered(filter, min(max_size, native), code)(image), min(size, native))


def probe(images: ImageSet, n_probed: int = 64) -> tuple[int, bool, list[str]]:
    """Return (the longest side in pixels, whether there are JPEGs, what else is done to pixels) for some
    images spread over the set."""
    sides, formats, done = [0], set(), set()
    for i in spread_indices(len(images.ids), n_probed):
        path = images.paths[i][0]
        try:
            with Image.open(path) as image:
                sides.append(max(image.size))
                formats.add(image.format)
                if image.format == "JPEG" and image.info.get("xmp"):
                    frame = read_frame(path.read_bytes())
                    done |= {"turned"} if frame and frame.turned else set()
                done |= {"white"} if is_partly_transparent(image) else set()
        except UnidentifiedImageError:  # numbers rather than a picture
            try:
                pixels = decode([path], joined=bool(images.channels), bands=images.bands)
            except OSError:  # reported with all other files when the cache is built
                continue
            sides.append(max(pixels.shape[:2]))
        except Exception:  # noqa: S112  # reported with all other files when the cache is built
            continue
    return max(sides) or 1, "JPEG" in formats, sorted(done)


def build_caches(
    image_sets: Mapping[str, tuple[ImageSet, Sequence[int]]],
    folder: Path,
    fingerprint: str,
    deadline: float,
    max_size: int,
    filter: str = "none",
    code: Code = NO_CODE,
    decode: str = "cpu",
) -> dict[str, CachePaths]:
    """Return for each named set the path of its .npy by size: all images (N, side, side, channels) uint8.

    Missing caches are built. Each file is decoded once for all sizes, with no more detail than `max_size`,
    the largest size of the recipe, so that train and predict see the same pixels. The `filter` of
    comp.data.dehaze or of `code` is applied in that detail, so that colours are the same at all sizes. `side`
    is at most the images' own size; the device enlarges them. A stopped build resumes. With `decode` "gpu",
    nvJPEG decodes JPEGs that are reduced.

    Raise TimeIsUp at the deadline, one CompError before anything is built if the disk is too small for all of
    it or there is no such GPU, and one that lists all unreadable files of all sets."""
    sets = describe_caches(image_sets, folder, fingerprint, max_size, filter, code, decode)
    failed: list[str] = []
    if any(part.on_gpu and part.absent() for part in sets.values()):
        check_gpu_decoder()
    _check_space(folder, list(sets.values()))
    for part in sets.values():
        if decode == "gpu" and not part.on_gpu:
            info(
                f'decode = "gpu" changes nothing for {part.images.name} images: none that was looked '
                "at is an upright, sequential RGB JPEG (4:4:4 or 4:2:0) whose shorter side has "
                f"{2 * max_size} px, twice the largest size"
            )
        with lock(folder / f".{part.images.name}.lock", wait=True):
            if part.absent():
                _announce(part.images, part.done)
                failed += _build(part, deadline, max_size)
    if failed:
        raise unreadable(failed)
    return {name: part.by_size() for name, part in sets.items()}


def describe_caches(
    image_sets: Mapping[str, tuple[ImageSet, Sequence[int]]],
    folder: Path,
    fingerprint: str,
    max_size: int,
    filter: str = "none",
    code: Code = NO_CODE,
    decode: str = "cpu",
) -> dict[str, CachedSet]:
    """Return for each named set what its caches are, built or not, with the arguments of `build_caches`."""
    sets: dict[str, CachedSet] = {}
    for name, (images, sizes) in image_sets.items():
        native, jpegs, done = probe(images)
        coarser = jpeg_reduction(native, max_size) if jpegs else 1
        side, on_gpu = min(max_size, native), decode == "gpu" and jpegs and any_for_gpu(images, max_size)
        more = [*stamped([filter], code), side] if filter != "none" else []
        more += [*done, *([images.limits[:2]] if images.limits else []), *(["nvjpeg"] if on_gpu else [])]
        key = digest(fingerprint, images.ids, images.channels, coarser, *more)
        sides = {size: min(size, native) for size in sizes}
        paths = {side: folder / f"{images.name}-{side}-{key}.npy" for side in sorted(set(sides.values()))}
        own = _filtered(filter, side, code)
        sets[name] = CachedSet(images, sides, paths, key, native, done, own, on_gpu)
    return sets


def reason_of(part: CachedSet, row: int, error: OSError) -> str:
    """Return which file can't be read, and why."""
    return f"{part.images.paths[row][0]}: {str(error).splitlines()[0]}"


def unreadable(failed: Sequence[str]) -> CompError:
    return CompError(f"images that can't be read: {summarize(failed)}; repair or replace them")


def cache_bytes(n_images: int, side: int, n_channels: int) -> int:
    """Return the bytes of the cache of one size."""
    return n_images * side * side * n_channels


def _check_space(folder: Path, sets: Sequence[CachedSet]) -> None:
    """Raise CompError if the disk is too small for all absent caches together. What a stopped build has
    reserved counts as there."""
    parts, needed, several = [], 0, False
    for images, absent in ((part.images, part.absent()) for part in sets):
        several |= len(absent) > 1
        for side, path in absent.items():
            n_bytes = cache_bytes(len(images.ids), side, images.n_channels)
            partial = growing_paths(path)[0]
            needed += n_bytes - (min(n_bytes, partial.stat().st_size) if partial.is_file() else 0)
            parts.append(f"{images.name} {side} px {size_text(n_bytes)}")
    if needed > (free := free_bytes(folder)):
        largest = 'set cache = "largest" in the recipe, ' if several else ""
        raise CompError(
            f"the resized images take {size_text(needed)} more ({', '.join(parts)}), and {folder} has "
            f"{size_text(free)} free: free some space, move data/ with COMP_DATA, {largest}or lower the "
            "sizes of the phases; `comp plan` says what fits"
        )


def _filtered(filter: str, side: int, code: Code = NO_CODE) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that filters an image before it is resized."""
    if filter == "none":
        return lambda image: image
    if is_reference(filter):
        own = own_filter(filter, code)
        return lambda image: own(resize(image, side))
    from comp.data.dehaze import FILTERS

    return lambda image: FILTERS[filter](resize(image, side))


def own_filter(reference: str, code: Code) -> Callable[[np.ndarray], np.ndarray]:
    """Return a user's function of an image (H, W, channels) uint8. It raises CompError for another result
    than such an image of the same size."""
    function = load_function(reference, code, "image")

    def filtered(image: np.ndarray) -> np.ndarray:
        try:
            answer = function(image)
        except Exception as error:
            raise as_users_error(error, reference) from error
        return checked_image(answer, image, reference)

    return filtered


def _build(part: CachedSet, deadline: float, max_size: int) -> list[str]:
    """Fill the absent caches and return the files that can't be read, each with the reason."""
    import cv2

    images, paths = part.images, part.absent()
    cv2.setNumThreads(1)  # one thread per image: images are small
    arrays = {
        side: GrowingArray(path, (len(images.ids), side, side, images.n_channels), "uint8", {"key": part.key})
        for side, path in paths.items()
    }
    todo = np.unique(np.concatenate([array.missing() for array in arrays.values()]))
    failed: list[str] = []
    clipped: list[Path] = []
    targets = [(side, np.asarray(array.rows)) for side, array in arrays.items()]  # faster than memmaps
    decoder = GpuDecoder(max_size) if part.on_gpu else None

    def fill(rows: np.ndarray) -> int:
        filled, n_seen = [], 0
        if decoder and time.time() > deadline:  # it decodes many at once
            return n_seen
        decoded = decoder.decode([images.paths[row][0] for row in rows]) if decoder else repeat(None)
        for row, found in zip(rows.tolist(), decoded, strict=False):
            if time.time() > deadline:
                break
            n_seen += 1
            try:
                image = part.read(row, max_size, clipped) if found is None else part.filtered(found)
            except OSError as error:
                failed.append(reason_of(part, row, error))
                continue
            for side, rows_of_side in targets:
                rows_of_side[row] = resize(image, side)
            filled.append(row)
        for array in arrays.values():
            array.done[filled] = 1
        return n_seen

    label = f"{images.name} images to {', '.join(map(str, paths))} px"
    done = len(images.ids) - len(todo)
    n_cores = os.cpu_count() or 1
    with progress(label, len(images.ids), done) as advance:
        for n in in_threads(fill, _chunks(todo, part.n_at_a_time), n_cores, part.n_threads):
            done += n
            advance(n)
    if done < len(images.ids):
        raise TimeIsUp(f"{done:,} of {len(images.ids):,} {images.name} images resized")
    if decoder:
        decoder.tell(images.name, len(todo))
    if clipped:
        info(
            f"{images.name} images have values beyond these, which are clipped: {summarize(sorted(clipped))}"
        )
    if not failed:
        check_not_blank(images, arrays)
        for array in arrays.values():
            array.finish()
    return sorted(failed)


def _chunks(rows: np.ndarray, most: int) -> Iterator[np.ndarray]:
    """Yield the rows in parts, of a few at first: how many threads are needed is seen from them."""
    start, n = 0, min(LEAST_CHUNK, most)
    while start < len(rows):
        yield rows[start : start + n]
        start, n = start + n, min(2 * n, most)


def _announce(images: ImageSet, done: Sequence[str]) -> None:
    """Print what is done to pixels besides decoding and resizing."""
    if limits := images.limits:
        used = f"{limits.bits}: " if limits.bits else ""
        info(
            f"{images.name} images use {used}{limits} become black … white "
            "(images.range in the competition's TOML sets other values)"
        )
    if "white" in done:
        info(f"{images.name} images have transparent parts, which become white")
