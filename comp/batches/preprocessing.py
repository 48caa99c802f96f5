"""From uint8 images to normalised floats at the network's size; mean and deviation of images."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from comp.batches.augmentation import AugmentParams, BatchAugmentation, sample, to_device
from comp.batches.cpu_augmentation import move_images, turn_images
from comp.batches.loader import ConcatCache

MIN_STD = 0.02  # share of the range; dividing by a smaller deviation would only amplify noise


class Preprocess(nn.Module):
    """Map uint8 batches (B, H, W, channels) to normalised float ones (B, channels, size, size), channels last
    in memory. Larger images are first reduced to `size` by area means, like those of a cache of this size;
    smaller ones are enlarged bilinearly. With `augment` they are augmented on the way.

    If `mean` and `std` are empty, each image is normalised by its own, measured before its light changes.

    On devices of the types `at_once` images are turned, moved and normalised in one pass: a symmetry is then
    one more matrix. Else it is a copy of whole pixels, and only the images that move are sampled."""

    at_once: tuple[str, ...] = ("cuda",)

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], size: int, augment: BatchAugmentation | None = None
    ):
        super().__init__()
        self.size, self.augment = size, augment
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        self.register_buffer("scale", 1 / (torch.tensor(std) * 255))
        self.register_buffer("shift", torch.tensor(mean) / torch.tensor(std))

    def forward(self, batch: torch.Tensor, draws: AugmentParams | None = None) -> torch.Tensor:
        if batch.shape[2] > self.size:
            batch = _reduced(batch, self.size)
        n, height, width, channels = batch.shape
        draws = draws if self.augment else None
        at_once = bool(draws and draws.moved.any() and batch.device.type in self.at_once)
        if draws and self.augment and not at_once:
            on_cpu = batch.device.type == "cpu"
            batch = turn_images(batch, draws) if on_cpu else self.augment.apply_symmetry(batch, draws)
        # whole rows at once: a pixel has too few channels for the CPU's vectors
        rows = batch.reshape(n, height, width * channels).float()
        scale, shift = self.scale, self.shift
        if not len(scale):
            std, mean = torch.std_mean(rows.view(n, 1, -1, channels), 2, correction=0)  # (B, 1, channels)
            scale = 1 / std.clamp(min=MIN_STD * 255)
            shift = mean * scale
        if draws:
            contrast, brightness = (
                to_device(part, batch.device) for part in (draws.contrast, draws.brightness)
            )
            shift = shift - brightness.view(n, 1, -1) * 255 * scale
            scale = scale * contrast.view(n, 1, -1)
        images = rows.view(n, height, width, channels)
        if draws and at_once:
            x = _sampled(images, to_device(draws.joined_moves(), batch.device), scale, shift)
        else:
            rows.mul_(scale.repeat(*[1] * (scale.ndim - 1), width)).sub_(
                shift.repeat(*[1] * (shift.ndim - 1), width)
            )
            if draws and draws.moved.any():
                move_images(images, draws)
            x = images.permute(0, 3, 1, 2)
        if x.shape[-1] != self.size:
            x = functional.interpolate(x, (self.size, self.size), mode="bilinear")
        return x.contiguous(memory_format=torch.channels_last)


def _sampled(
    images: torch.Tensor, moves: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor
) -> torch.Tensor:
    """Return (B, channels, H, W): float images (B, H, W, channels) after `moves` (B, 2, 3), times `scale`,
    minus `shift`, both (B, 1, channels)."""
    n, channels = len(images), images.shape[-1]
    x = sample(images.permute(0, 3, 1, 2), moves)
    return torch.addcmul(-shift.reshape(n, channels, 1, 1), x, scale.reshape(n, channels, 1, 1))


def _reduced(batch: torch.Tensor, size: int) -> torch.Tensor:
    """Return images (B, H, W, channels) as (B, size, size, channels) uint8: means of areas, rounded."""
    means = functional.interpolate(batch.permute(0, 3, 1, 2).float(), (size, size), mode="area")
    return means.round_().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def channel_statistics(
    images: np.ndarray | ConcatCache, rows: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation per channel, scaled to 0 … 1, of these rows of (N, H, W, channels) uint8.
    At most 2,000 rows are read."""
    rows = rows[:: -(-len(rows) // 2000)]
    counts = np.zeros((images.shape[-1], 256))  # per channel and value
    for first in range(0, len(rows), 64):
        some = images[rows[first : first + 64]]
        for channel in range(len(counts)):
            counts[channel] += np.bincount(some[..., channel].ravel(), minlength=256)
    shares, values = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
    mean = shares @ values
    std = np.sqrt(np.maximum(shares @ values**2 - mean**2, 1e-6))
    return tuple(mean.tolist()), tuple(std.tolist())
