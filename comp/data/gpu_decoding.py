"""Decode JPEGs on a GPU by nvJPEG, through torchvision: those that are reduced for the caches anyway.

Of smaller ones nvJPEG repeats each coloured pixel of 2 x 2, where libjpeg interpolates. An image that is
reduced shows no difference, and large ones are those that a GPU decodes faster."""

import io
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from comp.console import info
from comp.data.damage import ORIENTATION, has_suspect_bytes, read_frame
from comp.data.decoding import jpeg_reduction
from comp.data.image_files import ImageSet, spread_indices
from comp.errors import CompError

MAX_PIXELS = 64_000_000  # of the images that are decoded at once
BLOCK = 8  # pixels: the side of a JPEG's blocks
NO_GPU = 'decode = "gpu" needs a GPU; {why}. Set decode = "cpu", or go on where there is one'


class Jpeg(NamedTuple):
    """A file that the GPU can decode."""

    path: Path
    data: bytes
    n_pixels: int
    coarser: int  # by which its sides are divided


def check_gpu_decoder() -> None:
    """Raise CompError where JPEGs can't be decoded on a GPU."""
    import torch

    if not torch.cuda.is_available():
        raise CompError(NO_GPU.format(why="torch sees none here"))
    try:
        import torchvision

        _decode_jpegs()
    except (ImportError, RuntimeError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CompError(
            f'decode = "gpu" needs a torchvision that decodes JPEGs: {reason}. Set decode = "cpu", or '
            "install the torchvision that belongs to this torch"
        ) from error
    if "+cpu" in torchvision.__version__:
        raise CompError(NO_GPU.format(why=f"torchvision {torchvision.__version__} has no nvJPEG"))


class GpuDecoder:
    """The JPEGs of a set, decoded on the GPU that this process works on. Threads may share it."""

    def __init__(self, max_size: int):
        import torch

        self.max_size = max_size
        self.device = torch.device("cuda", torch.cuda.current_device())  # threads begin with GPU 0
        self.refused: dict[Path, str] = {}  # what nvJPEG can't decode, and why
        self._lock = threading.Lock()

    def close(self, name: str) -> None:
        """Free the GPU's memory, and say which of the set's files nvJPEG could not decode."""
        import torch

        torch.cuda.empty_cache()
        if self.refused:
            first = min(self.refused)
            info(
                f"{name} images that nvJPEG can't decode, so that the CPU does: {len(self.refused):,} "
                f"(first: {first}: {self.refused[first]})"
            )

    def decode(self, paths: Sequence[Path]) -> Iterator[np.ndarray | None]:
        """Yield each image (H, W, 3) uint8, reduced as `decode` of comp.data.decoding does it, or None for a
        file that has to be read on the CPU: another format, a rare kind of JPEG, or one that may be
        damaged."""
        waiting: list[Jpeg | None] = []
        n_pixels = 0
        for path in paths:
            jpeg = read_jpeg(path, self.max_size)
            more = jpeg.n_pixels if jpeg else 0
            if n_pixels + more > MAX_PIXELS:
                yield from self._decode_some(waiting)
                waiting, n_pixels = [], 0
            waiting.append(jpeg)
            n_pixels += more
        yield from self._decode_some(waiting)

    def _decode_some(self, jpegs: Sequence[Jpeg | None]) -> list[np.ndarray | None]:
        found = iter(self._try([jpeg for jpeg in jpegs if jpeg]))
        return [next(found) if jpeg else None for jpeg in jpegs]

    def _try(self, jpegs: list[Jpeg]) -> list[np.ndarray | None]:
        """Return the images. If nvJPEG fails, find the file that it can't decode by halves."""
        import torch

        if not jpegs:
            return []
        try:
            with self._lock:
                return self._read(jpegs)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            torch.cuda.empty_cache()
        if len(jpegs) > 1:
            half = len(jpegs) // 2
            return self._try(jpegs[:half]) + self._try(jpegs[half:])
        path, _, n_pixels, _ = jpegs[0]
        if "out of memory" in reason:
            raise CompError(
                f"the GPU has no memory left to decode {path} ({n_pixels / 1e6:.0f} million pixels); end "
                'what else works on it, or set decode = "cpu"'
            )
        self.refused[path] = reason
        return [None]

    def _read(self, jpegs: list[Jpeg]) -> list[np.ndarray | None]:
        """Decode under the lock. torchvision takes memory that is free for the current stream and writes to
        it on a stream of its own, so nothing may be queued that reads it (pytorch/vision, pull 9606)."""
        import torch

        torch.cuda.synchronize(self.device)
        images = _decode_jpegs()(
            [torch.from_numpy(np.frombuffer(jpeg.data, np.uint8).copy()) for jpeg in jpegs], self.device
        )
        return [_as_read(image, jpeg.coarser) for image, jpeg in zip(images, jpegs, strict=True)]


def read_jpeg(path: Path, max_size: int) -> Jpeg | None:
    """Return a file that is best decoded on a GPU, or None: one that isn't reduced for `max_size`, and all
    that nvJPEG may read otherwise than libjpeg does. What can't be read at all is reported by the CPU."""
    try:
        data = path.read_bytes()
        frame = read_frame(data)
        if frame is None or frame.kind > 0xC1 or frame.n_colours != 3 or not frame.whole or frame.turned:
            return None
        coarser = jpeg_reduction(min(frame.height, frame.width), max_size)
        if coarser == 1 or has_suspect_bytes(data, frame) or not _is_plain(data):
            return None
        return Jpeg(path, data, frame.height * frame.width, coarser)
    except Exception:  # headers of damaged files
        return None


def any_for_gpu(images: ImageSet, max_size: int) -> bool:
    """Return whether some files of a set, spread over it, are best decoded on a GPU."""
    rows = spread_indices(len(images.ids))
    return not images.channels and any(read_jpeg(images.paths[row][0], max_size) for row in rows)


def _is_plain(data: bytes) -> bool:
    """Return whether a JPEG is upright and has luma and chroma, not RGB."""
    with Image.open(io.BytesIO(data)) as image:
        upright = image.getexif().get(ORIENTATION, 1) == 1
        first = getattr(image, "layer", [(0,)])[0][0]
        return upright and image.info.get("adobe_transform", 1) == 1 and first != ord("R")


def _decode_jpegs() -> Any:
    """Return torchvision's decoder of several JPEGs on a device. torchvision warns that TorchCodec will
    follow it, which a user can't change."""
    from torchvision.io import ImageReadMode, decode_jpeg

    def decode(files: list[Any], device: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return decode_jpeg(files, ImageReadMode.RGB, device=device)

    return decode


def _as_read(image: Any, coarser: int) -> np.ndarray | None:
    """Return (H, W, 3) uint8 of an image (3, H, W) on a GPU, each pixel the mean of coarser x coarser. Return
    None if its last block has one colour, as that of a file whose last part is missing."""
    from torch.nn import functional as F

    last = image[:, (image.shape[1] - 1) // BLOCK * BLOCK :, (image.shape[2] - 1) // BLOCK * BLOCK :].cpu()
    if bool((last == last[:, :1, :1]).all()):
        return None
    means = F.avg_pool2d(image[None].float(), coarser, ceil_mode=True, count_include_pad=False)
    found: np.ndarray = means[0].round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
    return found
