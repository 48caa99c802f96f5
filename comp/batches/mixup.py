"""Mixup and cutmix of whole batches. An unknown target (NaN) mixed with a known one is unknown."""

import numpy as np
import torch

from comp.batches.augmentation import to_device


class MixupCutmix:
    """Mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019). Image i is mixed with image B - 1 - i. Targets
    are mixed by the same share as the pixels. If both are on, one of them is drawn per batch."""

    def __init__(self, mixup: float, cutmix: float):
        self.kinds = [(kind, alpha) for kind, alpha in (("mixup", mixup), ("cutmix", cutmix)) if alpha]

    def __call__(
        self, x: torch.Tensor, targets: torch.Tensor, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mixed images (B, channels, H, W) and targets (B, C). The result depends on the seed only."""
        if not self.kinds:
            return x, targets
        rng = np.random.default_rng([seed, 1])
        kind, alpha = self.kinds[rng.integers(len(self.kinds))]
        n, height, width = len(x), *x.shape[2:]
        if kind == "mixup":
            share = to_device(rng.beta(alpha, alpha, (n, 1)).astype(np.float32), x.device)
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
