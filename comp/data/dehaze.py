"""Haze removal: a filter applied once to each RGB uint8 image, when its cache is built."""

from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np

KEPT_HAZE = 0.05  # share of haze that stays, so that distance stays visible (1 - omega)
MIN_TRANSMISSION = 0.1  # less would amplify noise
HAZE_RANK = 1000  # one in so many pixels determines the colour of the haze
EPSILON = 1e-3  # guided filter: areas with a smaller variance of greys (0 … 1) are smoothed


def dehaze(image: np.ndarray) -> np.ndarray:
    """Remove haze from an image (H, W, 3) by the dark channel prior (He, Sun and Tang 2009). A guided filter
    (He, Sun and Tang 2010) along the image's greys refines the transmission.

    The radii of the windows are shares of the smaller side, like those of the papers' 600x400 images: 1/64
    for the dark channel, 8/64 for the guided filter."""
    radius = max(1, round(min(image.shape[:2]) / 64))
    planes = np.stack(cv2.split(image))  # (3, H, W): numpy is slow along three values
    air = haze_colour(planes, dark_channel(planes, radius))[:, None, None]
    through = 1 - (1 - KEPT_HAZE) * dark_channel(planes / air, radius)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    through = np.maximum(guided_filter(grey, through, 8 * radius), MIN_TRANSMISSION)
    clear = planes - air
    clear /= through
    clear += air
    return cv2.merge(np.clip(np.rint(clear, out=clear), 0, 255, out=clear).astype(np.uint8))


def dark_channel(planes: np.ndarray, radius: int) -> np.ndarray:
    """Return (H, W): the lowest value of all channels (3, H, W) in the square window around each pixel, as
    far as the window is in the image."""
    return cv2.erode(planes.min(0), np.ones((2 * radius + 1,) * 2, np.uint8))


def haze_colour(planes: np.ndarray, dark: np.ndarray) -> np.ndarray:
    """Return (3,) float32: the brightest of the pixels with the brightest dark channel."""
    n = max(1, dark.size // HAZE_RANK)
    haziest = planes[:, dark >= np.partition(dark.ravel(), -n)[-n]]  # (3, n or more)
    return np.maximum(haziest[:, haziest.sum(0, dtype=int).argmax()], 1).astype(np.float32)


def guided_filter(guide: np.ndarray, values: np.ndarray, radius: int) -> np.ndarray:
    """Smooth `values` (H, W) in windows of 2 radius + 1 pixels, but keep the edges of `guide` (H, W)."""

    shares = _shares(*guide.shape, radius)

    def means(array: np.ndarray) -> np.ndarray:
        sides = (2 * radius + 1,) * 2
        sums = cv2.boxFilter(array, -1, sides, normalize=False, borderType=cv2.BORDER_CONSTANT)
        return np.multiply(sums, shares, out=sums)  # in place: new memory costs as much time as the sums

    mean, of_guide, slope, spread = map(means, (values, guide, guide * values, guide * guide))
    slope -= of_guide * mean
    spread -= of_guide * of_guide
    slope /= np.add(spread, EPSILON, out=spread)
    mean -= slope * of_guide
    return means(slope) * guide + means(mean)


@lru_cache(16)
def _shares(height: int, width: int, radius: int) -> np.ndarray:
    """Return (H, W): 1 / the number of pixels of each window that are in the image."""
    down, along = (
        np.minimum(np.arange(n) + radius, n - 1) - np.maximum(np.arange(n) - radius, 0) + 1
        for n in (height, width)
    )
    return (1 / np.outer(down, along)).astype(np.float32)


FILTERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"dehaze": dehaze}
