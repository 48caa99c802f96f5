"""Find image files that decode without an error although a part is missing or overwritten with zeros."""

import io
import re
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

ZEROS = bytes(64)  # real coded pixels rarely contain this many zeros in a row
NOISE = bytes(1 + 37 * k % 254 for k in range(256))  # contains neither zeros nor a marker
MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")  # all markers except restarts
RESTART = re.compile(rb"\xff([\xd0-\xd7])")
XMP = b"http://ns.adobe.com/xap/1.0/\0"
XMP_ROTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)[2-8]")
ORIENTATION = 0x0112
MAX_DARK = 0.05  # with a larger share of black pixels a black part proves nothing
MIN_EDGE = 16  # levels: an image that fades to black has a darker edge


class Frame(NamedTuple):
    """The header of a JPEG."""

    height: int
    width: int
    n_colours: int
    kind: int  # 0xC0 and 0xC1: sequential, 0xC2: progressive, others: unusual coders
    start: int  # of the coded pixels
    restarts: bool  # whether there are restart markers
    turned: bool  # rotated by XMP alone; OpenCV reads only EXIF
    whole: bool  # whether the end marker is there


def read_frame(data: bytes) -> Frame | None:
    """Return the header of a JPEG, or None for other files."""
    at, sof, exif, xmp, restarts = 2, 0, b"", False, False
    while data[:2] == b"\xff\xd8" and at + 10 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame, not a table
            sof = sof or at
        elif marker == 0xDD:
            restarts = data[at + 4 : at + 6] != b"\0\0"
        elif marker == 0xE1 and data.startswith(XMP, at + 4):
            xmp = bool(XMP_ROTATION.search(data, at, at + length))
        elif marker == 0xE1:
            exif = data[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xDA:
            break
    if not sof:
        return None
    height, width = (int.from_bytes(data[sof + k : sof + k + 2]) for k in (5, 7))
    turned = xmp and not _knows_orientation(exif)
    return Frame(
        height, width, data[sof + 9], data[sof + 1], at, restarts, turned, data.rfind(b"\xff\xd9") > sof
    )


def _knows_orientation(exif: bytes) -> bool:
    found = Image.Exif()
    if exif:
        found.load(exif)
    return ORIENTATION in found


def is_suspect(data: bytes, frame: Frame, image: np.ndarray) -> bool:
    """Return whether `image`, decoded from a JPEG, may lack a part.

    libjpeg fills missing parts with grey and decodes zeros as pixels. In a progressive file neither shows."""
    return has_suspect_bytes(data, frame) or _has_grey_corner(image, frame.n_colours)


def has_suspect_bytes(data: bytes, frame: Frame) -> bool:
    """Return whether a JPEG may lack a part, by what is known before it is decoded."""
    return (
        frame.kind == 0xC2
        or data.find(ZEROS, frame.start) >= 0
        or (frame.restarts and not _are_in_order(RESTART.findall(data, frame.start)))
    )


def lacks_pixels(data: bytes, frame: Frame) -> bool:
    """Return whether coded pixels of a JPEG are missing or overwritten with zeros.

    The file is decoded twice, once with noise before each marker and instead of zeros. No decoder of a
    complete file reads these bytes, so its pixels stay the same. Pillow decodes it, because OpenCV would
    print warnings."""
    if frame.kind > 0xC2:
        return False
    altered, complete = _with_noise(data)
    return not complete or not np.array_equal(_coded(altered), _coded(data))


def _coded(data: bytes) -> np.ndarray:
    """Return the pixels of a JPEG without conversion to RGB, which is faster."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("YCbCr", None)  # type: ignore[arg-type]
        return np.asarray(image)


def _has_grey_corner(image: np.ndarray, n_colours: int) -> bool:
    grey = (63, 66) if n_colours == 4 else (128, 128)
    height, width = image.shape[:2]
    corners = image[:: max(1, height - 1), :: max(1, width - 1)].reshape(-1, image.size // (height * width))
    return any(grey[0] <= min(corner) and max(corner) <= grey[1] for corner in corners.tolist())


def _are_in_order(restarts: list[bytes]) -> bool:
    return b"".join(restarts) == bytes(0xD0 + k % 8 for k in range(len(restarts)))


def _with_noise(data: bytes) -> tuple[bytes, bool]:
    """Return (the JPEG with noise where no decoder reads, whether no scan and no restart is missing). Long
    runs of zeros are replaced by noise, too, unless they may stand for a flat area."""
    first: dict[int, int] = {}  # table of AC codes: the symbol that zeros code
    left: dict[tuple[int, int], int] = {}  # (component, coefficient): bits still missing
    parts, kept, at, whole = [], 0, 2, True
    every, n_blocks, n_colours = 0, 0, 0  # blocks between restarts, and in an interleaved scan
    while found := MARKER.search(data, at):
        marker, at = data[found.end() - 1], found.end()
        if marker == 0xD9:
            break
        length = int.from_bytes(data[at : at + 2])
        segment = data[at + 2 : at + length]
        at += length
        if marker == 0xC4:
            while len(segment) > 17:
                n = sum(segment[1:17])
                first[segment[0]] = segment[17]
                segment = segment[17 + n :]
        elif marker == 0xDD:
            every = int.from_bytes(segment[:2])
        elif marker in (0xC0, 0xC1, 0xC2):
            n_colours = segment[5]
            across, down = (max(s >> shift & 15 for s in segment[7::3]) for shift in (4, 0))
            across, down = (1, 1) if n_colours == 1 else (across, down)
            height, width = int.from_bytes(segment[1:3]), int.from_bytes(segment[3:5])
            n_blocks = -(-width // (8 * across)) * -(-height // (8 * down))
            if marker == 0xC2:
                left = {(segment[6 + 3 * k], i): 99 for k in range(n_colours) for i in range(64)}
        elif marker == 0xDA and segment:
            n = segment[0]
            low, high, bits = segment[1 + 2 * n : 4 + 2 * n]
            for k in range(n):
                left |= {(segment[1 + 2 * k], i): bits & 15 for i in range(low, high + 1)}
            zeros = [first.get(0x10 | segment[2 + 2 * k] & 15, 0) for k in range(n)]
            flat = high == 0 or not any(zero & 15 for zero in zeros)
            n_zeros = 4 * len(ZEROS) if bits >> 4 else len(ZEROS)  # a correction may have up to 1,000 bits
            end = found.start() if (found := MARKER.search(data, at)) else len(data)
            restarts = RESTART.findall(data, at, end)
            n_least = (n_blocks - 1) // every if every and n == n_colours else 0
            whole = whole and _are_in_order(restarts) and len(restarts) >= n_least
            pixels = RESTART.sub(lambda mark: NOISE + mark[0], data[at:end])
            if not flat:
                pixels = re.sub(rb"\0{%d,}" % n_zeros, lambda zeros: NOISE, pixels)
            parts += [data[kept:at], pixels, NOISE]
            kept = at = end
    return b"".join([*parts, data[kept:]]), whole and not any(left.values())


def has_wrong_pixels(data: bytes, kind: str, n_pixels: int) -> bool:
    """Return whether coded pixels are wrong: those of a PNG fail their checksum, which Pillow does not
    compare; those of a WebP, JPEG 2000 or AVIF have a longer run of zeros than a flat area has."""
    at = 8
    while kind == "PNG" and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        coded = data[at + 4 : at + 8] == b"IDAT"
        if coded and zlib.crc32(memoryview(data)[at + 4 : end]) != int.from_bytes(data[end : end + 4]):
            return True
        at = end + 4
    hole = bytes(len(ZEROS) + n_pixels // 4096)
    if kind == "AVIF":  # other data may lie between the pixels
        return data.endswith(hole)
    if kind == "JPEG2000":
        return data.find(hole, data.find(b"\xff\x4f\xff\x51")) >= 0
    at = 12
    while kind == "WEBP" and at + 8 < len(data):
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] in (b"VP8 ", b"VP8L", b"ALPH") and data.find(hole, at, end) >= 0:
            return True
        at = end + end % 2
    return False


def has_black_gap(values: np.ndarray) -> bool:
    """Return whether pixels (H, W) or (H, W, channels), in the order of the file, have a run of zeros that is
    no black area: it begins or ends inside a row, next to bright pixels, in an image that is hardly black
    elsewhere."""
    pixels = values.reshape(*values.shape[:2], -1)
    lit: np.ndarray = np.any(pixels, -1)
    if lit.any(1).all() or not lit.any():
        return False
    n, width = lit.size, lit.shape[1]
    ends = np.flatnonzero(np.diff(np.concatenate([[1], lit.ravel(), [1]]).astype(np.int8)))
    starts, stops = ends[::2], ends[1::2]
    longest = int(np.argmax(stops - starts))
    start, stop = int(starts[longest]), int(stops[longest])
    n_dark = int((~lit).sum()) - (stop - start)
    if n_dark > MAX_DARK * (n - (stop - start)):
        return False
    rows = pixels.reshape(n, -1)
    beside = [(start, rows[max(0, start - 4) : start])] if start else []
    beside += [(stop, rows[stop : stop + 4])] if stop < n else []
    step = MIN_EDGE * (float(pixels.max()) / 255 if pixels.dtype != np.uint8 else 1)
    return bool(beside) and all(edge % width and float(near.max()) > step for edge, near in beside)
