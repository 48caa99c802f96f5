"""From uint8 images to normalised floats at the network's size."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from comp.batches.augmentation import Batched, Draws, sent

FLAT = 0.02  # of the range: no image is stretched as if it deviated less, which would show noise alone


class Input(nn.Module):
    """uint8 batches (B, H, W, channels) -> normalised float (B, channels, size, size), channels last in
    memory, enlarged or reduced bilinearly where the size differs. In between they may be augmented.

    Without a mean and deviation each image has its own, as they are before its light is augmented."""

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], size: int, augment: Batched | None = None
    ):
        super().__init__()
        self.size, self.augment = size, augment
        self.scale: torch.Tensor
        self.shift: torch.Tensor
        self.register_buffer("scale", 1 / (torch.tensor(std) * 255))
        self.register_buffer("shift", torch.tensor(mean) / torch.tensor(std))

    def forward(self, batch: torch.Tensor, draws: Draws | None = None) -> torch.Tensor:
        n, height, width, channels = batch.shape
        if draws and self.augment:
            batch = self.augment.turned(batch, draws)
        # whole rows at once, since a pixel's channels are too few for the processor's vectors
        rows = batch.reshape(n, height, width * channels).float()
        scale, shift = self.scale, self.shift
        if not len(scale):
            std, mean = torch.std_mean(rows.view(n, 1, -1, channels), 2, correction=0)  # (B, 1, channels)
            scale = 1 / std.clamp(min=FLAT * 255)
            shift = mean * scale
        if draws and self.augment:
            contrast, brightness = (sent(part, batch.device) for part in (draws.contrast, draws.brightness))
            shift = shift - brightness.view(n, 1, -1) * 255 * scale
            scale = scale * contrast.view(n, 1, -1)
        rows.mul_(scale.repeat(*[1] * (scale.ndim - 1), width)).sub_(
            shift.repeat(*[1] * (shift.ndim - 1), width)
        )
        images = rows.view(n, height, width, channels)
        if draws and self.augment:
            images = self.augment.moved(images, draws)
        x = images.permute(0, 3, 1, 2)
        if x.shape[-1] != self.size:
            x = functional.interpolate(
                x, (self.size, self.size), mode="bilinear", antialias=x.shape[-1] > self.size
            )
        return x.contiguous(memory_format=torch.channels_last)
