"""Filters that each image goes through once, when it is put into the cache: RGB uint8 in, RGB uint8 out."""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

KEPT_HAZE = 0.05  # share that is left, so that what is far still looks far (omega is 1 less this)
LEAST = 0.1  # of transmission: what lets through less would be noise
BRIGHTEST = 1000  # one in so many pixels tells the colour of the haze
SMOOTH = 1e-3  # epsilon of the guided filter: variances (of greys 0 … 1) below it are smoothed away


def dehaze(image: np.ndarray) -> np.ndarray:
    """Haze removed from an image (H, W, 3) by the dark channel prior (He, Sun and Tang 2009), with the
    transmission refined by a guided filter (He, Sun and Tang 2010) along the image's greys.

    Windows are shares of the smaller side, as 15 and 60 pixels of the papers' 600x400 images: 1/64 to each
    side of a pixel for the dark channel, 8 times that for the guided filter."""
    radius = max(1, round(min(image.shape[:2]) / 64))
    planes = np.stack(cv2.split(image))  # (3, H, W): numpy is slow along three values
    air = haze_colour(planes, darkest(planes, radius))[:, None, None]
    through = 1 - (1 - KEPT_HAZE) * darkest(planes / air, radius)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    through = np.maximum(guided(grey, through, 8 * radius), LEAST)
    clear = planes - air
    clear /= through
    clear += air
    return cv2.merge(np.clip(np.rint(clear, out=clear), 0, 255, out=clear).astype(np.uint8))


def darkest(planes: np.ndarray, radius: int) -> np.ndarray:
    """(H, W): the dark channel, the least value of all channels (3, H, W) in the square window around each
    pixel, as far as the window lies in the image."""
    return cv2.erode(planes.min(0), np.ones((2 * radius + 1,) * 2, np.uint8))


def haze_colour(planes: np.ndarray, dark: np.ndarray) -> np.ndarray:
    """(3,) float32: of the pixels whose dark channel is brightest, the one that is brightest itself."""
    n = max(1, dark.size // BRIGHTEST)
    haziest = planes[:, dark >= np.partition(dark.ravel(), -n)[-n]]  # (3, n or more)
    return np.maximum(haziest[:, haziest.sum(0, dtype=int).argmax()], 1).astype(np.float32)


def guided(guide: np.ndarray, values: np.ndarray, radius: int) -> np.ndarray:
    """`values` (H, W) smoothed, but for the edges of `guide` (H, W), by windows of 2 radius + 1 pixels."""

    shares = _shares(*guide.shape, radius)

    def means(array: np.ndarray) -> np.ndarray:
        sides = (2 * radius + 1,) * 2
        sums = cv2.boxFilter(array, -1, sides, normalize=False, borderType=cv2.BORDER_CONSTANT)
        return np.multiply(sums, shares, out=sums)  # in place where it can be: new pages cost as much as sums

    mean, of_guide, slope, spread = map(means, (values, guide, guide * values, guide * guide))
    slope -= of_guide * mean
    spread -= of_guide * of_guide
    slope /= np.add(spread, SMOOTH, out=spread)
    mean -= slope * of_guide
    return means(slope) * guide + means(mean)


@lru_cache(16)
def _shares(height: int, width: int, radius: int) -> np.ndarray:
    """(H, W): 1 by the pixels of the window around each that lie in the image."""
    down, along = (
        np.minimum(np.arange(n) + radius, n - 1) - np.maximum(np.arange(n) - radius, 0) + 1
        for n in (height, width)
    )
    return (1 / np.outer(down, along)).astype(np.float32)


FILTERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"dehaze": dehaze}
