"""Numbers as answers of a network: from logits to the targets' unit."""

from dataclasses import dataclass

import numpy as np
import torch

from comp.batches.augmentation import to_device


@dataclass(frozen=True)
class NumberScale:
    """What logits stand for. A logit of 0 is the mean, or with `y_range` the middle of the range."""

    mean: tuple[float, ...]  # (C,) of the training images
    std: tuple[float, ...]  # (C,)
    y_range: tuple[float, ...] = ()  # low and high; numbers stay between them, as with fastai's sigmoid_range

    def numbers(self, logits: torch.Tensor) -> torch.Tensor:
        """Return numbers (B, C) in the targets' unit."""
        if self.y_range:
            low, high = self.y_range
            return low + (high - low) * logits.sigmoid()
        return logits * self._on(self.std, logits) + self._on(self.mean, logits)

    def errors(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return (B, C) predicted numbers minus targets, in standard deviations of the targets."""
        std = self._on(self.std, logits)
        if self.y_range:
            return (self.numbers(logits) - targets) / std
        return logits - (targets - self._on(self.mean, logits)) / std

    def _on(self, values: tuple[float, ...], other: torch.Tensor) -> torch.Tensor:
        return to_device(np.array(values, np.float32), other.device)


def scale_of(targets: np.ndarray, y_range: tuple[float, float] | None) -> NumberScale:
    """Return the scale of training targets (N, C), which may hold NaN. A constant column has a deviation of
    1."""
    known = np.asarray(targets, np.float64)
    mean, std = np.nanmean(known, 0), np.nanstd(known, 0)
    return NumberScale(tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist()), y_range or ())
