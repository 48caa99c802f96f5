"""Find images, and channels of images, that have one value."""

from collections.abc import Mapping

import numpy as np

from comp.artifacts.resumable import GrowingArray
from comp.console import info
from comp.data.image_files import ImageSet, spread_indices
from comp.errors import CompError, summarize

INVISIBLE = 2  # levels between the darkest and the brightest pixel
MANY_BLANK = 0.05  # a larger share of blank images is worth a line
MAX_BLANK = 0.95  # a larger share of blank images is an error


def check_not_blank(images: ImageSet, arrays: Mapping[int, GrowingArray]) -> None:
    """Raise CompError and remove the caches if nearly all images are black or white. Name images and channels
    of one value if there are many; a few may be nights or masks."""
    rows = arrays[min(arrays)].rows
    n, few = len(rows), spread_indices(len(rows))
    if sum(_is_blank(rows[i]) for i in few) >= MANY_BLANK * len(few):
        blank = [i for i in range(n) if _is_blank(rows[i])]
        extreme = [i for i in blank if rows[i].max() <= INVISIBLE or rows[i].min() >= 255 - INVISIBLE]
        if len(extreme) >= MAX_BLANK * n:
            for array in arrays.values():
                array.remove()
            raise CompError(
                f"{len(extreme):,} of {n:,} {images.name} images are blank: completely black or white "
                f"(first: {images.paths[extreme[0]][0]}); for files of more than 8 bits set images.range in "
                "the competition's TOML; convert other files"
            )
        info(f"{images.name} images of one value: {summarize(images.ids[i] for i in blank)}")
    for k, channel in enumerate(images.channels if len(images.channels) > 1 else ()):
        if sum(_is_blank(rows[i][..., k]) for i in few) >= MAX_BLANK * len(few):
            ids = summarize(images.ids[i] for i in few)
            info(f"{images.name} images have one value in channel {channel}: {ids}")


def _is_blank(pixels: np.ndarray) -> bool:
    return int(pixels.max()) - int(pixels.min()) <= INVISIBLE
