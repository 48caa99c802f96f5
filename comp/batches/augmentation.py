"""Random transforms of training images: whole batches on the device, or images with albumentations on the
CPU."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional

from comp.batches.tta import SYMMETRIES
from comp.batches.view_names import SETS

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else it checks for updates over the network

import albumentations as A  # noqa: E402
import cv2  # noqa: E402
import yaml  # noqa: E402

from comp.config.augment import Augment
from comp.errors import CompError
from comp.user_code import (
    NO_CODE,
    Code,
    as_users_error,
    checked_image,
    is_pipeline,
    load,
    load_function,
    text_of,
)

Transform = Callable[[np.ndarray, int], np.ndarray]
ASPECTS = (3 / 4, 4 / 3)  # of crops, width / height, as in torchvision
# From output to input coordinates (x, y), by the number of a symmetry in `SYMMETRIES`.
SQUARE = np.array(
    [
        [[1, 0], [0, 1]],
        [[-1, 0], [0, 1]],
        [[1, 0], [0, -1]],
        [[0, -1], [1, 0]],
        [[-1, 0], [0, -1]],
        [[0, 1], [-1, 0]],
        [[0, 1], [1, 0]],
        [[0, -1], [-1, 0]],
    ]
)
# Steps that keep the seed of the whole composition, so that they change the same images.
SAME_IMAGES = (A.D4, A.Affine, A.RandomBrightnessContrast)


def training_transform(augment: Augment, code: Code = NO_CODE) -> Transform:
    """Return a function of a batch (B, H, W, channels) uint8 and a seed that returns an augmented batch of
    the same shape. Steps are symmetries, affine transforms, the crop, light and gains. The result depends on
    the seed only, whichever process runs it. `code` holds the text of a user's own pipeline."""
    if augment.nothing:
        return lambda batch, seed: batch
    cv2.setNumThreads(0)  # there are many loader processes already
    if augment.own:
        return _own_transform(augment.extends, code)

    @lru_cache(1)
    def composed(height: int, width: int) -> A.Compose:
        return A.Compose(_steps(augment, (height, width)))

    def transform(batch: np.ndarray, seed: int) -> np.ndarray:
        compose = composed(*batch.shape[1:3])
        _seed(compose, seed, SAME_IMAGES)
        return np.stack([compose(image=image)["image"] for image in batch])

    return transform


def _seed(pipeline: A.BaseCompose, seed: int, same: tuple[type, ...] = ()) -> None:
    """Seed a pipeline and its steps. Steps of the types `same` share its seed, so that their random numbers
    are correlated."""
    pipeline.set_random_seed(seed)
    for k, step in enumerate(pipeline.transforms, 1):
        if not isinstance(step, same):
            step.set_random_seed(seed + (k << 32))


def _own_transform(reference: str, code: Code) -> Transform:
    """Return `training_transform` for a pipeline of albumentations, or a function of an image and a generator
    of random numbers. Raise CompError for what is neither."""
    pipeline = _read_pipeline(reference, code) if is_pipeline(reference) else load(reference, code)
    if not isinstance(pipeline, A.BaseCompose):
        pipeline = load_function(reference, code, "image", "rng")

    def transform(batch: np.ndarray, seed: int) -> np.ndarray:
        try:
            if isinstance(pipeline, A.BaseCompose):
                _seed(pipeline, seed)
                answers = [pipeline(image=image)["image"] for image in batch]
            else:
                rng = np.random.default_rng(seed)
                answers = [pipeline(image, rng) for image in batch]
        except Exception as error:
            raise as_users_error(error, reference) from error
        return np.stack([checked_image(new, image, reference) for new, image in zip(answers, batch)])

    return transform


def _read_pipeline(name: str, code: Code) -> A.BaseCompose:
    text = text_of(name, code)
    try:
        pipeline = A.from_dict(json.loads(text) if name.endswith(".json") else yaml.safe_load(text))
    except Exception as error:
        raise CompError(f"{name} is no pipeline of albumentations, as A.save writes it ({error})") from error
    if not isinstance(pipeline, A.BaseCompose):
        raise CompError(f"{name} holds a {type(pipeline).__name__}; an A.Compose is expected")
    return pipeline


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
class AugmentParams:
    """The drawn transform of each image of a batch of B."""

    symmetry: np.ndarray  # (B,) 0 … 7, ascending, so that equal ones are contiguous
    moved: np.ndarray  # (B,) bool
    moves: np.ndarray  # (B, 2, 3) from output to input coordinates, both -1 … 1
    contrast: np.ndarray  # (B, 1 or channels) factor
    brightness: np.ndarray  # (B, 1 or channels) added after it, as a share of the range

    def __getitem__(self, part: slice) -> "AugmentParams":
        return AugmentParams(*(getattr(self, name)[part] for name in self.__dataclass_fields__))

    def joined_moves(self) -> np.ndarray:
        """Return (B, 2, 3) as `moves`, of the symmetries and the moves together."""
        moves = np.where(self.moved[:, None, None], self.moves, np.eye(2, 3))
        return (SQUARE[self.symmetry] @ moves).astype(np.float32)


class BatchAugmentation:
    """`training_transform` for whole batches on any device. The images' order must be random, since
    symmetries are assigned in ascending order."""

    def __init__(self, augment: Augment, n_channels: int = 3):
        self.augment, self.n_channels = augment, n_channels
        views = SETS.get(augment.symmetry, ("identity", augment.symmetry))
        self.symmetries = np.array([k for k, name in enumerate(SYMMETRIES) if name in views])

    def draw(self, n: int, seed: int) -> AugmentParams | None:
        """Draw the transforms of n images; return None if there are none. They depend on the seed only, not
        on the device."""
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
        if augment.crop < 1:  # output to window coordinates, then to input coordinates as above
            sides, middles = draw_windows(n, augment.crop, rng)
            moves[~moved] = np.eye(2, 3)
            moves[:, :, 2] += (moves[:, :, :2] @ middles[:, :, None])[:, :, 0]
            moves[:, :, :2] *= sides[:, None]
            moved[:] = True
        return AugmentParams(
            symmetry, moved, *(part.astype(np.float32) for part in (moves, contrast, brightness))
        )

    def apply_symmetry(self, images: torch.Tensor, draws: AugmentParams) -> torch.Tensor:
        """Return square images (B, H, W, channels) uint8 after their symmetries."""
        cuts = np.searchsorted(draws.symmetry, np.arange(9))
        views = zip(SYMMETRIES.values(), cuts[:-1], cuts[1:])
        parts = [view(images[a:b].permute(0, 3, 1, 2)).permute(0, 2, 3, 1) for view, a, b in views if b > a]
        return torch.cat(parts)


def sample(x: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """Return square images (B, channels, H, W) at the places that `moves` (B, 2, 3) lead to, from output to
    input coordinates in -1 … 1. They are interpolated bilinearly, and mirrored at their edges."""
    grid = sampling_grid(moves, x.shape[-1])
    return functional.grid_sample(x, grid.permute(0, 2, 3, 1), padding_mode="reflection", align_corners=False)


def sampling_grid(moves: torch.Tensor, size: int) -> torch.Tensor:
    """Return (B, 2, size, size): the places that `moves` lead to, rows of x apart from those of y;
    affine_grid takes over twice as long. A CPU multiplies matrices: the same sums in a third of the time. A
    GPU would round the factors to TF32."""
    line = (torch.arange(size, device=moves.device) * 2 + 1) / size - 1  # -1 … 1, pixel centres
    a, b, c = (moves[:, :, k].view(-1, 2, 1) for k in range(3))
    if moves.device.type == "cpu":
        parts = torch.stack([c + b * line, a.expand(-1, -1, size)], -1)  # (B, 2, size, 2)
        return parts @ torch.stack([torch.ones(size), line])
    return torch.addcmul((c + b * line)[..., None], a[..., None], line)


def draw_windows(n: int, min_area: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return sides (n, 2) and centres (n, 2) of n random windows in square images, x first: sides as shares
    of the image's side, centres in -1 … 1.

    They are drawn as in torchvision: areas uniformly from `min_area` (a share of the image's) to 1, aspects
    uniformly by their logarithm; the first of 10 that fits is taken, else the whole image."""
    area = rng.uniform(min_area, 1, (10, n))
    aspect = np.exp(rng.uniform(np.log(ASPECTS[0]), np.log(ASPECTS[1]), (10, n)))
    sides = np.stack([np.sqrt(area * aspect), np.sqrt(area / aspect)], -1)  # (10, n, 2)
    fits = sides.max(-1) <= 1
    first = sides[fits.argmax(0), np.arange(n)]
    chosen = np.where(fits.max(0)[:, None], first, 1.0)
    return chosen, rng.uniform(-1, 1, (n, 2)) * (1 - chosen)


def to_device(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return a tensor on the device. The copy to a GPU is asynchronous."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
