"""Mixup and cutmix of whole batches. An unknown target (NaN) mixed with a known one is unknown."""

from typing import NamedTuple

import numpy as np
import torch

from comp.batches.augmentation import to_device


class Mix(NamedTuple):
    """How a batch of B images is mixed. Image i is mixed with image B - 1 - i."""

    kind: str  # mixup or cutmix
    shares: np.ndarray  # (B, 1) float32: of each image's own pixels
    window: tuple[slice, slice]  # of cutmix: the rows and columns that the other image fills


class MixupCutmix:
    """Mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019). Targets are mixed by the same share as the
    pixels. If both are on, one of them is drawn per batch."""

    def __init__(self, mixup: float, cutmix: float):
        self.kinds = [(kind, alpha) for kind, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha]

    def draw(self, n: int, height: int, width: int, seed: int) -> Mix | None:
        """Return how n images are mixed; None if they are not. It depends on the seed only."""
        if not self.kinds:
            return None
        rng = np.random.default_rng([seed, 1])
        kind, alpha = self.kinds[rng.integers(len(self.kinds))]
        if kind == "mixup":
            return Mix(kind, rng.beta(alpha, alpha, (n, 1)).astype(np.float32), (slice(0), slice(0)))
        side = np.sqrt(1 - rng.beta(alpha, alpha))
        top, left = (int(rng.integers(0, length)) - side * length / 2 for length in (height, width))
        rows, columns = (
            slice(max(0, round(at)), min(length, round(at + side * length)))
            for at, length in ((top, height), (left, width))
        )
        area = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        return Mix(kind, np.full((n, 1), 1 - area, np.float32), (rows, columns))

    def __call__(
        self, x: torch.Tensor, targets: torch.Tensor, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mixed images (B, channels, H, W) and targets (B, C). The result depends on the seed only."""
        if (mix := self.draw(len(x), x.shape[2], x.shape[3], seed)) is None:
            return x, targets
        shares = to_device(mix.shares, x.device)
        if mix.kind == "mixup":
            x = torch.lerp(x.flip(0), x, shares[:, :, None, None])
        else:
            rows, columns = mix.window
            others = x.flip(0)[:, :, rows, columns]
            x = x.clone()
            x[:, :, rows, columns] = others
        return x, torch.lerp(targets.flip(0), targets, shares)
