"""Decode an image file to uint8 RGB or one grey channel: upright, transparency on white, more than 8 bits
scaled as in the whole competition. Files with missing parts are refused."""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from comp.data.arrays import UnsuitableFile, choose_bands, kind_of, read_values, to_uint8, too_many
from comp.data.damage import (
    ORIENTATION,
    ZEROS,
    Frame,
    has_black_gap,
    has_wrong_pixels,
    is_suspect,
    lacks_pixels,
    read_frame,
)
from comp.data.scaling import Limits, scale_to_uint8
from comp.errors import CompError

Image.MAX_IMAGE_PIXELS = (
    500_000_000  # pixels: slides of 20,000² are images, larger files are decompression bombs
)
ROW_STEP = {
    "BMP": -1,
    "PPM": 1,
    "TIFF": 1,
    "TGA": -1,
}  # formats whose zeros are black: order of the rows
WHITE_16 = 65535.0  # 16 bits
ROTATIONS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # by EXIF orientation
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: np.rot90,
}


def decode(
    paths: Sequence[Path],
    *,
    joined: bool,
    bands: Sequence[int] = (),
    max_size: int | None = None,
    limits: Limits | None = None,
    clipped: list[Path] | None = None,
) -> np.ndarray:
    """Return one RGB image (H, W, 3) uint8, or if `joined` one grey channel per file, (H, W, len(paths)), or
    these `bands` of one file, counted from 1, (H, W, len(bands)).

    CMYK, grey and palette files become RGB. Transparent parts become white. The camera's rotation is applied.
    In files with more than 8 bits `limits` become black and white; without them 16 bits are scaled to 8.
    Files with values beyond the limits are appended to `clipped`. With `max_size` (pixels) a JPEG of at least
    twice that size is reduced to 1/2, 1/4 or 1/8 while it is decoded, but not below `max_size`. Raise OSError
    for a file that is not complete."""
    if bands or not joined:
        return _open(paths[0], "RGB", bands, max_size, limits, clipped)
    opened = [
        _open(path, "L", (), max_size, limits and limits.of_channels([k]), clipped)
        for k, path in enumerate(paths)
    ]
    if len({channel.shape for channel in opened}) > 1:
        raise OSError(f"channels of different sizes: {[c.shape for c in opened]}")
    return np.stack(opened, -1)


def _open(
    path: Path,
    mode: str,
    bands: Sequence[int],
    max_size: int | None,
    limits: Limits | None,
    clipped: list[Path] | None,
) -> np.ndarray:
    file = os.open(path, os.O_RDONLY)  # read_bytes takes the GIL twice as often
    try:
        data = os.read(file, os.fstat(file).st_size)
    finally:
        os.close(file)
    frame = read_frame(data)
    try:
        if kind := kind_of(data, bands):
            values = read_values(data, kind, windowed=limits is None)
            if kind == "tiff" and has_black_gap(values.array):
                raise OSError("a part is filled with zeros")
            found, is_clipped = to_uint8(values, bands, limits, grey=mode == "L")
            if is_clipped and clipped is not None:
                clipped.append(path)
            return found
        if frame and mode == "RGB" and (image := _open_jpeg(data, frame, max_size)) is not None:
            return choose_bands(image, bands, grey=False) if bands else image
        image = _by_pillow(path, data, frame, mode, limits, clipped)
        return choose_bands(image, bands, grey=False) if bands else image
    except (CompError, UnsuitableFile):
        raise
    except Exception as error:  # Pillow's decoders raise nearly anything for damaged files
        raise OSError(str(error) or type(error).__name__) from error


def _open_jpeg(data: bytes, frame: Frame, max_size: int | None) -> np.ndarray | None:
    """Return what Pillow would return, in 1/3 to 2/3 of its time, or None for an incomplete or unusual
    JPEG."""
    import cv2

    if not frame.whole or frame.turned:
        return None
    if frame.n_colours == 4 and int(cv2.__version__.split(".")[0]) < 5:
        return None  # earlier versions read all CMYK as inverted
    coarser = jpeg_reduction(min(frame.height, frame.width), max_size)
    flag = getattr(cv2, f"IMREAD_REDUCED_COLOR_{coarser}") if coarser > 1 else cv2.IMREAD_COLOR
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    if image is None:
        return None
    _check_jpeg(data, frame, image)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _check_jpeg(data: bytes, frame: Frame, image: np.ndarray) -> None:
    if is_suspect(data, frame, image) and lacks_pixels(data, frame):
        raise OSError("a part of its coded pixels is missing")


def jpeg_reduction(side: int, max_size: int | None) -> int:
    """Return the factor by which a JPEG of `side` pixels can be reduced without going below `max_size`."""
    if not max_size or side < 2 * max_size:
        return 1
    return 8 if side >= 8 * max_size else 4 if side >= 4 * max_size else 2


def _by_pillow(
    path: Path,
    data: bytes,
    frame: Frame | None,
    mode: str,
    limits: Limits | None,
    clipped: list[Path] | None,
) -> np.ndarray:
    try:
        image = Image.open(path)
    except UnidentifiedImageError:
        if (values := _floats(data)) is None:
            raise
        return _of_values(values, path, mode, limits, clipped)
    with image:
        depth, kind = _depth(image), image.format or ""
        _check_bands(image)
        image.load()
        if step := ROW_STEP.get(kind):
            values = np.asarray(image)
            if has_black_gap(values[::step]) or (kind == "TGA" and has_black_gap(values)):
                raise OSError("a part is filled with zeros")
        if has_wrong_pixels(data, kind, image.width * image.height):
            raise OSError("a part of its coded pixels is wrong")
        if image.mode[0] in "IF":
            upright = ImageOps.exif_transpose(image)
            return _of_values(np.asarray(upright), path, mode, limits or _usual(image.mode), clipped)
        if depth > 8 and limits and (values := _as_stored(image, data)) is not None:
            return _of_values(values, path, mode, limits, clipped)
        found = np.asarray(_on_white(ImageOps.exif_transpose(image)).convert(mode))
    if frame and not frame.whole and data.endswith(ZEROS):
        raise OSError("a part is filled with zeros")
    if frame and frame.whole:
        _check_jpeg(data, frame, found)
    return found


# --- bands and transparency ---------------------------------------------------------------------------------


def _check_bands(image: Image.Image) -> None:
    """Raise OSError for a TIFF with more bands or pages than would be read."""
    if image.format != "TIFF":
        return
    n_bands, known = image.tag_v2.get(277, 1), len(image.getbands())  # type: ignore[attr-defined]
    if image.mode == "RGBA" and n_bands == 4:  # many programs mark any fourth band as alpha
        alpha = np.asarray(image)[..., 3]
        if ((alpha > 0) & (alpha < 255)).mean() < 0.5:
            return
        known = 3
    if n_bands > known:
        raise UnsuitableFile(too_many(n_bands, known))
    if getattr(image, "n_frames", 1) > 1:
        size = image.size
        image.seek(1)
        same = image.size == size
        image.seek(0)
        if same:  # not a smaller copy
            raise UnsuitableFile(too_many(image.n_frames, 1, "pages"))  # type: ignore[attr-defined]


def _on_white(image: Image.Image) -> Image.Image:
    """Return the image on white, as viewers show it. If nothing would be visible, ignore the alpha
    channel."""
    if is_partly_transparent(image):
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours)
    return image


def is_partly_transparent(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    least, most = image.convert("RGBA").getchannel("A").getextrema()
    return least < 255 and most > 0  # type: ignore[operator]


# --- more than 8 bits ---------------------------------------------------------------------------------------


def _depth(image: Image.Image) -> int:
    """Return the bits per channel of a file that was opened, but not loaded."""
    stored = str(getattr(image, "tile", ()))
    if image.mode == "F" or ";32" in stored:
        return 32
    if ";12" in stored:
        return 12
    return 16 if image.mode[0] == "I" or ";16" in stored or "('RGB', 65535)" in stored else 8


def _usual(mode: str) -> Limits:
    return Limits(0, 255) if mode == "F" else Limits(0, WHITE_16)


def _as_stored(image: Image.Image, data: bytes) -> np.ndarray | None:
    """Return (H, W, 3 or 4) upright colours of 16 bits (Pillow keeps only 8), or None for other images."""
    import cv2

    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype == np.uint8 or values.ndim < 3:
        return None
    values = values[..., [2, 1, 0, 3][: values.shape[-1]]]
    turn = ROTATIONS.get(image.getexif().get(ORIENTATION, 1))
    return turn(values) if turn else values


def _floats(data: bytes) -> np.ndarray | None:
    """Return (H, W) or (H, W, 3) of a TIFF of floats that Pillow can't read, or None for others."""
    import cv2

    if data[:4] not in (b"II*\0", b"MM\0*"):
        return None
    tags, file = TiffImagePlugin.ImageFileDirectory_v2(data[:8]), io.BytesIO(data)
    file.seek(tags.next)
    tags.load(file)
    if (n_bands := tags.get(277, 1)) not in (1, 3):
        raise UnsuitableFile(too_many(n_bands, 1 if n_bands == 2 else 3))
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype.kind != "f":
        return None
    return values[..., ::-1] if values.ndim == 3 else values


def _of_values(
    values: np.ndarray, path: Path, mode: str, limits: Limits | None, clipped: list[Path] | None
) -> np.ndarray:
    limits = limits or Limits(0, 255)
    alpha = None
    if values.ndim == 3 and values.shape[-1] == 4:
        values, alpha = values[..., :3], values[..., 3:]
    if clipped is not None and bool((values > limits.high).any()):
        clipped.append(path)
    found = scale_to_uint8(values, limits)
    if alpha is not None and alpha.any():
        share = alpha / (np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1)
        found = np.rint(found * share + 255 * (1 - share)).astype(np.uint8)
    return np.asarray(Image.fromarray(found).convert(mode))


def find_limits(paths: Sequence[Path]) -> Limits | None:
    """Return the range that the values of these files use: a number of bits for integers, a part of 0 … 1 for
    floats. Return None if no file has more than 8 bits, or if all 16 are used."""
    low, high, depths, usual = 0.0, 0.0, set(), set()
    for path in paths:
        try:
            values, depth, mode = _deep(path)
        except Exception:  # noqa: S112  # reported with all other files when the cache is built
            continue
        if values is None or not (finite := values[np.isfinite(values)]).size:
            continue
        low, high = min(low, float(finite.min())), max(high, float(finite.max()))
        depths.add(depth)
        usual.add(_usual(mode))
    if not depths or (low, high) == (0, 0):
        return None
    if low < 0:
        return Limits(low, high)
    if usual == {Limits(0, 255)} and high <= 1:
        return Limits(0, 2.0 ** np.ceil(np.log2(high)))
    n_bits = int(np.ceil(high)).bit_length()
    limits = Limits(0, 2.0**n_bits - 1, f"{n_bits} bits of {max(depths)}")
    return None if usual == {limits[:2]} or usual == {Limits(*limits[:2])} else limits


def _deep(path: Path) -> tuple[np.ndarray | None, int, str]:
    """Return (the stored values or None for 8 bits, bits per channel, Pillow's mode)."""
    try:
        image = Image.open(path)
    except UnidentifiedImageError:
        return _floats(path.read_bytes()), 32, "F"
    with image:
        depth = _depth(image)
        if depth == 8:
            return None, 8, image.mode
        if image.mode[0] in "IF":
            return _without_nodata(image), depth, image.mode
        values: Any = _as_stored(image, path.read_bytes())
        return (None if values is None else values[..., :3]), depth, image.mode


def _without_nodata(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    try:
        nothing = float(str(tags.get(42113, "nan")).strip("\0 "))  # GDAL's tag
    except ValueError:
        return values
    return values[values != nothing]
