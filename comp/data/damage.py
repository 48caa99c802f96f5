"""Image files that decode without a word though a part of them is lost: cut out, or filled up with zeros."""

import io
import re
import zlib
from typing import NamedTuple

import numpy as np
from PIL import Image

HOLE = bytes(64)  # so many zeros in a row are hardly coded pixels
NOISE = bytes(1 + 37 * k % 254 for k in range(256))  # neither zeros nor a marker
MARKER = re.compile(rb"\xff+[\x01-\xcf\xd8-\xfe]")  # but restarts
RESTART = re.compile(rb"\xff([\xd0-\xd7])")
XMP = b"http://ns.adobe.com/xap/1.0/\0"
TURNED = re.compile(rb"tiff:Orientation(?:=[\"']|>)[2-8]")
ORIENTATION = 0x0112
DARK = 0.05  # share of black pixels from which a black part says nothing
STEP = 16  # levels: what is brighter does not fade to black


class Frame(NamedTuple):
    """What the head of a JPEG says."""

    height: int
    width: int
    n_colours: int
    kind: int  # 0xC0 and 0xC1: sequential, 0xC2: progressive, others: not from libjpeg's usual coder
    start: int  # of its coded pixels
    restarts: bool  # whether there are any
    turned: bool  # by XMP alone: OpenCV knows the rotation of EXIF
    whole: bool  # whether its end is there


def read_frame(data: bytes) -> Frame | None:
    """The head of a JPEG; None for other files."""
    at, sof, exif, xmp, restarts = 2, 0, b"", False, False
    while data[:2] == b"\xff\xd8" and at + 10 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame, and not a table
            sof = sof or at
        elif marker == 0xDD:
            restarts = data[at + 4 : at + 6] != b"\0\0"
        elif marker == 0xE1 and data.startswith(XMP, at + 4):
            xmp = bool(TURNED.search(data, at, at + length))
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
    """Whether `image`, decoded from a JPEG, may lack a part. libjpeg makes grey of what it misses, and pixels
    of zeros; of a progressive file nothing shows."""
    return (
        frame.kind == 0xC2
        or _has_grey_corner(image, frame.n_colours)
        or data.find(HOLE, frame.start) >= 0
        or (frame.restarts and not _in_turn(RESTART.findall(data, frame.start)))
    )


def lacks_pixels(data: bytes, frame: Frame) -> bool:
    """Whether coded pixels of a JPEG are missing or overwritten with zeros. It is decoded twice, once with
    noise before each marker and in place of zeros: a whole file stays the same, since nothing reads these
    bytes. Pillow does it, as OpenCV would warn of them."""
    if frame.kind > 0xC2:
        return False
    altered, complete = _with_noise(data)
    return not complete or not np.array_equal(_coded(altered), _coded(data))


def _coded(data: bytes) -> np.ndarray:
    """The pixels of a JPEG in its own colours, which takes less time."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("YCbCr", None)  # type: ignore[arg-type]
        return np.asarray(image)


def _has_grey_corner(image: np.ndarray, n_colours: int) -> bool:
    grey = (63, 66) if n_colours == 4 else (128, 128)
    height, width = image.shape[:2]
    corners = image[:: max(1, height - 1), :: max(1, width - 1)].reshape(-1, image.size // (height * width))
    return any(grey[0] <= min(corner) and max(corner) <= grey[1] for corner in corners.tolist())


def _in_turn(restarts: list[bytes]) -> bool:
    return b"".join(restarts) == bytes(0xD0 + k % 8 for k in range(len(restarts)))


def _with_noise(data: bytes) -> tuple[bytes, bool]:
    """(a JPEG with noise where no decoder reads, and in place of long zeros where they would be no flat area;
    whether no scan of a progressive one is missing, and no restart)."""
    first: dict[int, int] = {}  # of each table of AC codes, the symbol that zeros stand for
    left: dict[tuple[int, int], int] = {}  # bits to come, by component and coefficient
    parts, kept, at, whole = [], 0, 2, True
    every, n_blocks, n_colours = 0, 0, 0  # blocks from restart to restart, all of them, where they hold all
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
            n_zeros = 4 * len(HOLE) if bits >> 4 else len(HOLE)  # corrections come in up to 1,000 bits
            end = found.start() if (found := MARKER.search(data, at)) else len(data)
            restarts = RESTART.findall(data, at, end)
            n_least = (n_blocks - 1) // every if every and n == n_colours else 0
            whole = whole and _in_turn(restarts) and len(restarts) >= n_least
            pixels = RESTART.sub(lambda mark: NOISE + mark[0], data[at:end])
            if not flat:
                pixels = re.sub(rb"\0{%d,}" % n_zeros, lambda zeros: NOISE, pixels)
            parts += [data[kept:at], pixels, NOISE]
            kept = at = end
    return b"".join([*parts, data[kept:]]), whole and not any(left.values())


def coded_wrong(data: bytes, kind: str, n_pixels: int) -> bool:
    """Whether the coded pixels of a PNG don't have their checksum, which Pillow does not look at; or those of
    a WebP, JPEG 2000 or AVIF hold more zeros in a row than a flat area has."""
    at = 8
    while kind == "PNG" and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        coded = data[at + 4 : at + 8] == b"IDAT"
        if coded and zlib.crc32(memoryview(data)[at + 4 : end]) != int.from_bytes(data[end : end + 4]):
            return True
        at = end + 4
    hole = bytes(len(HOLE) + n_pixels // 4096)
    if kind == "AVIF":  # among the pixels may be other things
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


def black_part(values: np.ndarray) -> bool:
    """Whether pixels (H, W) or (H, W, channels), in the order of the file, have a run of zeros that is no
    black area: it begins or ends within a row, beside pixels that aren't dark, in an image without black."""
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
    if n_dark > DARK * (n - (stop - start)):
        return False
    rows = pixels.reshape(n, -1)
    beside = [(start, rows[max(0, start - 4) : start])] if start else []
    beside += [(stop, rows[stop : stop + 4])] if stop < n else []
    step = STEP * (float(pixels.max()) / 255 if pixels.dtype != np.uint8 else 1)
    return bool(beside) and all(edge % width and float(near.max()) > step for edge, near in beside)
