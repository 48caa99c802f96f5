"""Augmentation on a CPU: OpenCV's functions of single images, where they take less time than torch's of
batches."""

import cv2
import numpy as np
import torch

from comp.batches.augmentation import AugmentParams, sample

# By the number of a symmetry in `SYMMETRIES`: whether x and y are swapped, and the code of OpenCV's flip.
TURNS = ((False, None), (False, 1), (False, 0), (True, 0), (False, -1), (True, 1), (True, None), (True, -1))
MAX_CHANNELS = 4  # OpenCV's transpose takes each number up to this, and only some above


def turn_images(images: torch.Tensor, draws: AugmentParams) -> torch.Tensor:
    """Return square images (B, H, W, channels) uint8 after their symmetries."""
    source = images.numpy()
    answer = np.empty_like(source)
    swap = cv2.transpose if source.shape[-1] <= MAX_CHANNELS else _swap
    for number, old, new in zip(draws.symmetry.tolist(), source, answer):
        swapped, flip = TURNS[number]
        if swapped:
            swap(old, new)
        if flip is not None:
            cv2.flip(new if swapped else old, flip, new)
        elif not swapped:
            np.copyto(new, old)
    return torch.from_numpy(answer)


def move_images(images: torch.Tensor, draws: AugmentParams) -> None:
    """Shift, zoom, rotate and crop those of the float images (B, H, W, channels) that move, in place."""
    rows = np.flatnonzero(draws.moved)
    source = images.index_select(0, torch.from_numpy(rows)).permute(0, 3, 1, 2)
    moved, places = sample(source, torch.from_numpy(draws.moves[rows])).numpy(), images.numpy()
    for row, planes in zip(rows.tolist(), moved):
        cv2.merge(tuple(planes), places[row])


def _swap(old: np.ndarray, new: np.ndarray) -> None:
    np.copyto(new, old.swapaxes(0, 1))
