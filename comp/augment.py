"""Training transforms (albumentations, one draw an image) and the named test-time views."""

import os
from collections.abc import Callable, Sequence

import numpy as np
import torch

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would look for updates over the network

import albumentations as A  # noqa: E402

from comp.errors import CompError  # noqa: E402

Transform = Callable[[np.ndarray, int], np.ndarray]
View = Callable[[torch.Tensor], torch.Tensor]


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
                scale=(0.9, 1.1), translate_percent=(-0.06, 0.06), rotate=(-15, 15), border_mode=4, p=0.5
            ),  # border_mode 4: mirrored
            A.RandomBrightnessContrast(brightness_limit=0.1, contrast_limit=0.1, p=0.5),
        ]
    compose = A.Compose(steps)

    def transform(batch: np.ndarray, seed: int) -> np.ndarray:
        compose.set_random_seed(seed)
        return np.stack([compose(image=image)["image"] for image in batch])

    return transform


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
