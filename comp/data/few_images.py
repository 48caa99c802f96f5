"""A few images as the caches will have them, before there are caches."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, UnidentifiedImageError

from comp.data.decoding import decode
from comp.data.image_cache import CachedSet, reason_of, unreadable
from comp.data.image_files import ImageSet, resize


def read_rows(part: CachedSet, rows: np.ndarray, max_size: int) -> dict[int, np.ndarray]:
    """Return by side (n, side, side, channels) uint8: some images as the caches will have them, but always
    decoded by the CPU. Caches are neither read nor written. Raise one CompError that lists all unreadable
    files."""
    found = {side: np.zeros((len(rows), side, side, part.images.n_channels), np.uint8) for side in part.paths}
    failed: list[str] = []

    def fill(at: int) -> None:
        try:
            image = part.read(int(rows[at]), max_size)
        except OSError as error:
            failed.append(reason_of(part, int(rows[at]), error))
            return
        for side, images in found.items():
            images[at] = resize(image, side)

    with ThreadPoolExecutor(part.n_threads) as pool:
        list(pool.map(fill, range(len(rows))))
    if failed:
        raise unreadable(sorted(failed))
    return found


def original_size(images: ImageSet, row: int) -> tuple[int, int]:
    """Return (width, height) of an image's first file, in pixels."""
    path = images.paths[row][0]
    try:
        with Image.open(path) as image:
            return image.size
    except UnidentifiedImageError:  # numbers rather than a picture
        height, width, _ = decode([path], joined=bool(images.channels), bands=images.bands).shape
        return width, height
