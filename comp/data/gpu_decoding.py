"""Decode JPEGs on a GPU by nvJPEG, through torchvision: those that are reduced for the caches anyway.

Most JPEGs have one pixel of chroma for 2 x 2 of luma. nvJPEG is reported to repeat it as torchvision calls it
(sgl-project/sglang, pull 34163), where libjpeg interpolates. Once an image is reduced this makes no
difference, and large images are those that take a CPU long."""

import io
import threading
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
SAMPLINGS = {((1, 1),) * 3, ((2, 2), (1, 1), (1, 1))}  # of luma and chroma: 4:4:4 and 4:2:0
OTHERWISE = 'Set decode = "cpu" and train anew, or go on where it can'
OF_A_FILE = ("Failed to", "chroma subsampling")  # in errors of nvJPEG that are not the GPU's
OUT_OF_MEMORY = ("out of memory", ": 5")  # the second is nvJPEG's status for it, at the end


class Jpeg(NamedTuple):
    """A file that the GPU can decode."""

    path: Path
    data: bytes
    n_pixels: int
    coarser: int  # by which its sides are divided


def check_gpu_decoder() -> None:
    """Decode a small JPEG. Raise CompError where that can't be done on a GPU."""
    import torch

    if not torch.cuda.is_available():
        raise CompError(f'decode = "gpu" needs a GPU, and torch sees none here. {OTHERWISE}')
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(buffer, "JPEG")
    try:
        GpuDecoder(BLOCK).read([Jpeg(Path(), buffer.getvalue(), 0, 2)])
    except (ImportError, RuntimeError, AttributeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CompError(
            f'decode = "gpu" needs a torchvision that decodes JPEGs on this GPU, but it answers: {reason}. '
            + OTHERWISE
        ) from error


class GpuDecoder:
    """The JPEGs of a set, decoded on the GPU that this process works on. Threads may share it."""

    def __init__(self, max_size: int):
        import torch

        self.max_size = max_size
        self.device = torch.device("cuda", torch.cuda.current_device())  # threads begin with GPU 0
        self.refused: dict[Path, str] = {}  # what nvJPEG can't decode, and why
        self.n_decoded = self.n_flat = 0  # images; those that may lack their last part
        self._lock = threading.Lock()

    def decode(self, paths: Sequence[Path]) -> Iterator[np.ndarray | None]:
        """Yield each image (H, W, 3) uint8, reduced as `decode` of comp.data.decoding does it, or None for a
        file that has to be read on the CPU: another format, a rare kind of JPEG, or one that may be
        damaged. Raise CompError if the GPU fails."""
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

    def tell(self, name: str, n_images: int) -> None:
        """Say how many images of the set nvJPEG decoded, and why not the others."""
        line = f"nvJPEG decoded {self.n_decoded:,} of {n_images:,} {name} images"
        if self.n_decoded < n_images:
            line += ", the CPU the others"
        if self.n_flat:
            line += f"; the last block of {self.n_flat:,} has one colour, as in damaged files"
        if self.refused:
            first = min(self.refused)
            line += f"; {len(self.refused):,} failed (first: {first}: {self.refused[first]})"
        info(line)

    def _decode_some(self, jpegs: Sequence[Jpeg | None]) -> list[np.ndarray | None]:
        found = iter(self._try([jpeg for jpeg in jpegs if jpeg]))
        return [next(found) if jpeg else None for jpeg in jpegs]

    def _try(self, jpegs: list[Jpeg]) -> list[np.ndarray | None]:
        """Return the images. If nvJPEG fails, find the file that it can't decode by halves."""
        import torch

        if not jpegs:
            return []
        try:
            return self.read(jpegs)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
        torch.cuda.empty_cache()
        path, _, n_pixels, _ = jpegs[0]
        is_memory = OUT_OF_MEMORY[0] in reason or reason.endswith(OUT_OF_MEMORY[1])
        if not is_memory and not any(sign in reason for sign in OF_A_FILE):
            raise CompError(f"the GPU failed at {path} and {len(jpegs) - 1} other JPEGs: {reason}")
        if len(jpegs) > 1:
            half = len(jpegs) // 2
            return self._try(jpegs[:half]) + self._try(jpegs[half:])
        if is_memory:
            raise CompError(
                f"the GPU has no memory left to decode {path} ({n_pixels / 1e6:.1f} million pixels); end "
                f"what else works on it. {OTHERWISE}"
            )
        self.refused[path] = reason
        return [None]

    def read(self, jpegs: Sequence[Jpeg]) -> list[np.ndarray | None]:
        """Return the images (H, W, 3) uint8, or None for one that may lack its last part."""
        # torchvision takes memory that is free for the current stream, and writes to it on a stream of its
        # own. So nothing may be queued that still reads it (pytorch/vision, pull 9606).
        with self._lock:
            found = self._read(jpegs)
            n_flat = sum(image is None for image in found)
            self.n_flat += n_flat
            self.n_decoded += len(found) - n_flat
        return found

    def _read(self, jpegs: Sequence[Jpeg]) -> list[np.ndarray | None]:
        import torch
        from torchvision.io import ImageReadMode, decode_jpeg

        torch.cuda.synchronize(self.device)
        files = [torch.from_numpy(np.frombuffer(jpeg.data, np.uint8).copy()) for jpeg in jpegs]
        images = decode_jpeg(files, ImageReadMode.RGB, device=self.device)
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
    """Return whether a JPEG is upright, has luma and chroma, not RGB, and a sampling of chroma whose means
    are what libjpeg reads. Of others, such as 4:2:2, libjpeg interpolates chroma even when it reduces."""
    with Image.open(io.BytesIO(data)) as image:
        upright = image.getexif().get(ORIENTATION, 1) == 1
        layers: Sequence[Any] = getattr(
            image, "layer", ()
        )  # (name, horizontal, vertical, table) of each component
        plain = image.info.get("adobe_transform", 1) == 1 and layers[0][0] != ord("R")
        return upright and plain and tuple(layer[1:3] for layer in layers) in SAMPLINGS


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
