"""Small pictures for pages and charts."""

import base64

import numpy as np

from comp.data.decoding import decode
from comp.data.image_files import ImageSet, resize


def thumbnail(images: ImageSet, row: int, size: int) -> np.ndarray:
    """Return (side, side, channels) uint8 of an image: `size` pixels, or its own longer side if that is less.
    Raise OSError if it can't be read."""
    image = decode(
        images.paths[row], joined=bool(images.channels), bands=images.bands, max_size=size,
        limits=images.limits,
    )  # fmt: skip
    return resize(image, min(size, max(image.shape[:2])))


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Return (h, w, 3): the first three channels; the last channel is repeated if there are fewer."""
    return np.pad(image[..., :3], ((0, 0), (0, 0), (0, max(0, 3 - image.shape[-1]))), mode="edge")


def encode_jpeg(image: np.ndarray, quality: int = 88) -> str:
    """Return (side, side, channels) uint8 as a JPEG in base64."""
    return _encode(image, ".jpg", "IMWRITE_JPEG_QUALITY", quality)


def encode_webp(image: np.ndarray, quality: int = 75) -> str:
    """Return (side, side, channels) uint8 as a WebP in base64, about half as long as a JPEG that looks
    alike."""
    return _encode(image, ".webp", "IMWRITE_WEBP_QUALITY", quality)


def _encode(image: np.ndarray, ending: str, setting: str, quality: int) -> str:
    import cv2

    _, data = cv2.imencode(ending, to_rgb(image)[..., ::-1], [getattr(cv2, setting), quality])
    return base64.b64encode(data.tobytes()).decode()
