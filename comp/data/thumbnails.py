"""Images to look at, and as text inside of pages."""

import base64

import numpy as np

from comp.data.decoding import decode
from comp.data.image_files import ImageSet, resize


def thumbnail(images: ImageSet, row: int, size: int) -> np.ndarray:
    """(side, side, channels) uint8 of an image, `size` pixels or its own longer side, if that is less. Raises
    OSError where it can't be read."""
    image = decode(images.paths[row], joined=bool(images.channels), finest=size, limits=images.limits)
    return resize(image, min(size, max(image.shape[:2])))


def as_colours(image: np.ndarray) -> np.ndarray:
    """(h, w, 3) of (h, w, channels): the first three as red, green and blue, the last for any that lack."""
    return np.pad(image[..., :3], ((0, 0), (0, 0), (0, max(0, 3 - image.shape[-1]))), mode="edge")


def jpeg(image: np.ndarray, quality: int = 88) -> str:
    """Base64 of the colours of (side, side, channels) uint8."""
    import cv2

    _, data = cv2.imencode(".jpg", as_colours(image)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return base64.b64encode(data.tobytes()).decode()
