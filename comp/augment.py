"""Training transforms, by albumentations on the CPU or for whole batches on the device, each image with its
own draw, and the named test-time views."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would look for updates over the network

import albumentations as A  # noqa: E402
import cv2  # noqa: E402

from comp.errors import CompError  # noqa: E402

Transform = Callable[[np.ndarray, int], np.ndarray]
View = Callable[[torch.Tensor], torch.Tensor]
ZOOM, SHIFT, TURN, LIGHT = 0.1, 0.06, 15.0, 0.1  # of "satellite", either way: share, share, degrees, share
ON_DEVICE = ("none", "dihedral", "satellite")  # what `Batched` can do


def training_transform(name: str) -> Transform:
    """A function of a batch (B, H, W, channels) uint8 and a seed, giving a batch of the same shape.

    "none"; "dihedral": the 8 symmetries of the square; "satellite": those, small shifts, zooms and rotations,
    and brightness and contrast. The same seed draws the same, whatever process or worker runs it."""
    if name == "none":
        return lambda batch, seed: batch
    steps: list[A.BasicTransform] = [A.D4(p=1.0)]
    if name == "satellite":
        steps += [
            A.Affine(
                scale=(1 - ZOOM, 1 + ZOOM),
                translate_percent=(-SHIFT, SHIFT),
                rotate=(-TURN, TURN),
                border_mode=4,
                p=0.5,
            ),  # border_mode 4: mirrored
            A.RandomBrightnessContrast(brightness_limit=LIGHT, contrast_limit=LIGHT, p=0.5),
        ]
    compose = A.Compose(steps)
    cv2.setNumThreads(0)  # loaders are many already

    def transform(batch: np.ndarray, seed: int) -> np.ndarray:
        compose.set_random_seed(seed)
        return np.stack([compose(image=image)["image"] for image in batch])

    return transform


@dataclass(frozen=True)
class Draws:
    """What happens to each image of a batch of B."""

    symmetry: np.ndarray  # (B,) 0 … 7, ascending, so that equal ones are worked on together
    moved: np.ndarray  # (B,) bool
    moves: np.ndarray  # (B, 2, 3) from places in the answer to places in the image, both -1 … 1
    contrast: np.ndarray  # (B,) factor of the values
    brightness: np.ndarray  # (B,) share of their range that is added then

    def __getitem__(self, part: slice) -> "Draws":
        return Draws(*(getattr(self, name)[part] for name in self.__dataclass_fields__))


class Batched:
    """What `training_transform` does, for whole batches on any device. Images come in an order that is
    random, since the symmetries go along it."""

    def __init__(self, name: str):
        self.name = name

    def draw(self, n: int, seed: int) -> Draws | None:
        """What happens to n images; None where nothing does. The same seed draws the same anywhere."""
        if self.name == "none":
            return None
        rng = np.random.default_rng(seed)
        symmetry = np.sort(rng.integers(0, 8, n))
        moved = np.zeros(n, bool)
        moves, contrast, brightness = np.tile(np.eye(2, 3), (n, 1, 1)), np.ones(n), np.zeros(n)
        if self.name == "satellite":
            moved = rng.random(n) < 0.5
            zoom = rng.uniform(1 - ZOOM, 1 + ZOOM, n)
            turn = np.radians(rng.uniform(-TURN, TURN, n))
            cos, sin = np.cos(turn) / zoom, np.sin(turn) / zoom
            moves[:, :, :2] = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)
            moves[:, :, 2] = rng.uniform(-2 * SHIFT, 2 * SHIFT, (n, 2))
            lit = rng.random(n) < 0.5
            contrast = np.where(lit, rng.uniform(1 - LIGHT, 1 + LIGHT, n), 1.0)
            brightness = np.where(lit, rng.uniform(-LIGHT, LIGHT, n), 0.0)
        return Draws(symmetry, moved, *(part.astype(np.float32) for part in (moves, contrast, brightness)))

    def turned(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """The symmetries, of square images (B, H, W, channels) uint8."""
        cuts = np.searchsorted(draws.symmetry, np.arange(9))
        views = zip(VIEWS.values(), cuts[:-1], cuts[1:])
        parts = [view(images[a:b].permute(0, 3, 1, 2)).permute(0, 2, 3, 1) for view, a, b in views if b > a]
        return torch.cat(parts)

    def moved(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Shifts, zooms and rotations, of images (B, H, W, channels) in float, mirrored at their edges; in
        place."""
        if not draws.moved.any():
            return images
        rows, moves = (
            sent(part, images.device) for part in (np.flatnonzero(draws.moved), draws.moves[draws.moved])
        )
        size = images.shape[1]
        line = (torch.arange(size, device=images.device) * 2 + 1) / size - 1  # -1 … 1 at the pixels' middles
        along, down = line.view(1, 1, -1, 1), line.view(1, -1, 1, 1)
        a, b, c = (moves[:, :, k].view(-1, 1, 1, 2) for k in range(3))
        grid = torch.addcmul(c + b * down, a, along)  # row by row; affine_grid takes over twice as long
        picked = functional.grid_sample(
            images.index_select(0, rows).permute(0, 3, 1, 2),
            grid,
            padding_mode="reflection",
            align_corners=False,
        )
        return images.index_copy_(0, rows, picked.permute(0, 2, 3, 1).contiguous())


class Mixed:
    """Mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019) of each image with the one across its batch; a
    label that one of the two has becomes as sure as its share of the picture. Where both are on, a batch has
    one of them."""

    def __init__(self, mixup: float, cutmix: float):
        self.kinds = [(kind, alpha) for kind, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha]

    def __call__(
        self, x: torch.Tensor, targets: torch.Tensor, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, channels, H, W) and targets (B, C); the same seed draws the same."""
        if not self.kinds:
            return x, targets
        rng = np.random.default_rng([seed, 1])
        kind, alpha = self.kinds[rng.integers(len(self.kinds))]
        n, height, width = len(x), *x.shape[2:]
        if kind == "mixup":
            share = sent(rng.beta(alpha, alpha, (n, 1)).astype(np.float32), x.device)
            x = torch.lerp(x.flip(0), x, share[:, :, None, None])
        else:
            side = np.sqrt(1 - rng.beta(alpha, alpha))
            top, left = (int(rng.integers(0, length)) - side * length / 2 for length in (height, width))
            rows, columns = (
                slice(max(0, round(at)), min(length, round(at + side * length)))
                for at, length in ((top, height), (left, width))
            )
            area = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
            share = torch.full((n, 1), 1 - area, device=x.device)
            others = x.flip(0)[:, :, rows, columns]
            x = x.clone()
            x[:, :, rows, columns] = others
        return x, torch.lerp(targets.flip(0), targets, share)


def sent(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """As a tensor on the device, without waiting for it."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


# Views of square batches (B, channels, H, W); the 8 of d4 are the symmetries of the square.
VIEWS: dict[str, View] = {
    "identity": lambda x: x,
    "flip_h": lambda x: x.flip(3),
    "flip_v": lambda x: x.flip(2),
    "rot90": lambda x: x.rot90(1, (2, 3)),
    "rot180": lambda x: x.rot90(2, (2, 3)),
    "rot270": lambda x: x.rot90(3, (2, 3)),
    "transpose": lambda x: x.transpose(2, 3),
    "antitranspose": lambda x: x.rot90(2, (2, 3)).transpose(2, 3),
}
SETS = {"d4": tuple(VIEWS), "flips": ("identity", "flip_h", "flip_v", "rot180")}


def view_names(names: Sequence[str]) -> tuple[str, ...]:
    """The views that names of views and of sets ("d4", "flips") stand for. Raises CompError for an unknown
    one."""
    views = [view for name in names for view in SETS.get(name, (name,))]
    if unknown := [view for view in views if view not in VIEWS]:
        raise CompError(f"unknown view {unknown[0]!r}; there are {', '.join([*SETS, *VIEWS])}")
    return tuple(dict.fromkeys(views))
