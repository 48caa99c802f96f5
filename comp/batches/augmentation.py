"""Random transforms of training images, on the device or with albumentations."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional

from comp.batches.tta import SETS, SYMMETRIES

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would look for updates over the network

import albumentations as A  # noqa: E402
import cv2  # noqa: E402

from comp.config.augment import Augment

Transform = Callable[[np.ndarray, int], np.ndarray]
ASPECTS = (3 / 4, 4 / 3)  # of crops: width to height, as in torchvision
TOGETHER = (
    A.D4,
    A.Affine,
    A.RandomBrightnessContrast,
)  # by albumentations: the same images are moved and lit


def training_transform(augment: Augment) -> Transform:
    """A function of a batch (B, H, W, channels) uint8 and a seed, giving a batch of the same shape: first
    symmetries, then moves, the crop, light and gains. The same seed draws the same, whatever process or
    worker runs it."""
    if augment.nothing:
        return lambda batch, seed: batch
    cv2.setNumThreads(0)  # loaders are many already

    @lru_cache(1)
    def composed(height: int, width: int) -> A.Compose:
        return A.Compose(_steps(augment, (height, width)))

    def transform(batch: np.ndarray, seed: int) -> np.ndarray:
        compose = composed(*batch.shape[1:3])
        compose.set_random_seed(seed)  # the same for all steps: what they draw goes together
        for k, step in enumerate(compose.transforms, 1):
            if not isinstance(step, TOGETHER):
                step.set_random_seed(seed + (k << 32))
        return np.stack([compose(image=image)["image"] for image in batch])

    return transform


def _steps(augment: Augment, size: tuple[int, int]) -> list[A.BasicTransform]:
    p, zoom, shift, turn, gain = (augment.p, augment.zoom, augment.shift, augment.turn, augment.gain)
    steps: list[A.BasicTransform] = {
        "none": [],
        "flip_h": [A.HorizontalFlip(p=0.5)],
        "flips": [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)],
        "d4": [A.D4(p=1.0)],
    }[augment.symmetry]
    if augment.moves:
        steps.append(
            A.Affine(
                scale=(1 - zoom, 1 + zoom),
                translate_percent=(-shift, shift),
                rotate=(-turn, turn),
                border_mode=4,  # mirrored
                p=p,
            )
        )
    if augment.crop < 1:
        steps.append(A.RandomResizedCrop(size, scale=(augment.crop, 1.0), ratio=ASPECTS, p=1.0))
    if augment.light:
        steps.append(
            A.RandomBrightnessContrast(brightness_limit=augment.light, contrast_limit=augment.light, p=p)
        )
    if gain:
        steps.append(A.MultiplicativeNoise((1 - gain, 1 + gain), per_channel=True, elementwise=False, p=p))
    return steps


@dataclass(frozen=True)
class Draws:
    """What happens to each image of a batch of B."""

    symmetry: np.ndarray  # (B,) 0 … 7, ascending, so that equal ones are worked on together
    moved: np.ndarray  # (B,) bool
    moves: np.ndarray  # (B, 2, 3) from places in the answer to places in the image, both -1 … 1
    contrast: np.ndarray  # (B, 1 or channels) factor of the values
    brightness: np.ndarray  # (B, 1 or channels) share of their range that is added then

    def __getitem__(self, part: slice) -> "Draws":
        return Draws(*(getattr(self, name)[part] for name in self.__dataclass_fields__))


class Batched:
    """What `training_transform` does, for whole batches on any device. Images come in an order that is
    random, since the symmetries go along it."""

    def __init__(self, augment: Augment, n_channels: int = 3):
        self.augment, self.n_channels = augment, n_channels
        views = SETS.get(augment.symmetry, ("identity", augment.symmetry))
        self.symmetries = np.array([k for k, name in enumerate(SYMMETRIES) if name in views])

    def draw(self, n: int, seed: int) -> Draws | None:
        """What happens to n images; None where nothing does. The same seed draws the same anywhere."""
        augment = self.augment
        if augment.nothing:
            return None
        rng = np.random.default_rng(seed)
        symmetry = np.sort(self.symmetries[rng.integers(0, len(self.symmetries), n)])
        moved, moves = np.zeros(n, bool), np.tile(np.eye(2, 3), (n, 1, 1))
        contrast, brightness = np.ones((n, 1)), np.zeros((n, 1))
        if augment.moves:
            moved = rng.random(n) < augment.p
            zoom = rng.uniform(1 - augment.zoom, 1 + augment.zoom, n)
            turn = np.radians(rng.uniform(-augment.turn, augment.turn, n))
            cos, sin = np.cos(turn) / zoom, np.sin(turn) / zoom
            moves[:, :, :2] = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)
            moves[:, :, 2] = rng.uniform(-2 * augment.shift, 2 * augment.shift, (n, 2))
        if augment.light:
            lit, light = rng.random((n, 1)) < augment.p, augment.light
            contrast = np.where(lit, rng.uniform(1 - light, 1 + light, (n, 1)), 1.0)
            brightness = np.where(lit, rng.uniform(-light, light, (n, 1)), 0.0)
        if augment.gain:
            gained, gain = rng.random((n, 1)) < augment.p, augment.gain
            gains = np.where(gained, rng.uniform(1 - gain, 1 + gain, (n, self.n_channels)), 1.0)
            contrast, brightness = contrast * gains, brightness * gains
        if augment.crop < 1:  # places in the answer to places in its window, and those on as above
            sides, middles = windows(n, augment.crop, rng)
            moves[~moved] = np.eye(2, 3)
            moves[:, :, 2] += (moves[:, :, :2] @ middles[:, :, None])[:, :, 0]
            moves[:, :, :2] *= sides[:, None]
            moved[:] = True
        return Draws(symmetry, moved, *(part.astype(np.float32) for part in (moves, contrast, brightness)))

    def turned(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """The symmetries, of square images (B, H, W, channels) uint8."""
        cuts = np.searchsorted(draws.symmetry, np.arange(9))
        views = zip(SYMMETRIES.values(), cuts[:-1], cuts[1:])
        parts = [view(images[a:b].permute(0, 3, 1, 2)).permute(0, 2, 3, 1) for view, a, b in views if b > a]
        return torch.cat(parts)

    def moved(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Shifts, zooms, rotations and crops, of images (B, H, W, channels) in float, mirrored at their
        edges; in place where not all are moved."""
        if not draws.moved.any():
            return images
        rows, moves = (
            sent(part, images.device) for part in (np.flatnonzero(draws.moved), draws.moves[draws.moved])
        )
        every = len(rows) == len(images)
        size = images.shape[1]
        line = (torch.arange(size, device=images.device) * 2 + 1) / size - 1  # -1 … 1 at the pixels' middles
        along, down = line.view(1, 1, -1, 1), line.view(1, -1, 1, 1)
        a, b, c = (moves[:, :, k].view(-1, 1, 1, 2) for k in range(3))
        grid = torch.addcmul(c + b * down, a, along)  # row by row; affine_grid takes over twice as long
        source = images if every else images.index_select(0, rows)
        picked = functional.grid_sample(
            source.permute(0, 3, 1, 2), grid, padding_mode="reflection", align_corners=False
        ).permute(0, 2, 3, 1)
        return picked if every else images.index_copy_(0, rows, picked.contiguous())


def windows(n: int, least: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(sides, middles) of n random windows in square images, (n, 2) each, x first: shares of the side, and
    places -1 … 1. As torchvision draws them: areas from `least` of the image's to all of it, aspects evenly
    by their logarithm, the first of 10 that fits, or else the whole image."""
    area = rng.uniform(least, 1, (10, n))
    aspect = np.exp(rng.uniform(np.log(ASPECTS[0]), np.log(ASPECTS[1]), (10, n)))
    sides = np.stack([np.sqrt(area * aspect), np.sqrt(area / aspect)], -1)  # (10, n, 2)
    fits = sides.max(-1) <= 1
    first = sides[fits.argmax(0), np.arange(n)]
    chosen = np.where(fits.max(0)[:, None], first, 1.0)
    return chosen, rng.uniform(-1, 1, (n, 2)) * (1 - chosen)


def sent(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """As a tensor on the device, without waiting for it."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
