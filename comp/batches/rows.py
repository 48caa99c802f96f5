"""What goes with each image of a batch, in one matrix: its targets, and where there are some its weight in
the loss and the numeric features beside the image."""

from dataclasses import dataclass

import numpy as np
import torch

from comp.data.labels import Labels

Parts = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]


@dataclass(frozen=True)
class RowLayout:
    """The columns of the matrix: C targets, one weight if `weighted`, the features."""

    n_targets: int
    weighted: bool = False
    n_features: int = 0

    @classmethod
    def of(cls, labels: Labels) -> "RowLayout":
        n_features = 0 if labels.features is None else labels.features.shape[1]
        return cls(labels.targets.shape[1], labels.weights is not None, n_features)

    def join(self, labels: Labels, train_rows: np.ndarray) -> np.ndarray:
        """Return (N, columns): the targets as they are where there is nothing else. Weights are divided by
        their mean over the training rows, so that they change no learning rate."""
        if not (self.weighted or self.n_features):
            return labels.targets
        parts = [labels.targets.astype(np.float32)]
        if labels.weights is not None:
            mean = float(labels.weights[train_rows].mean(dtype=np.float64))
            parts.append((labels.weights / (mean or 1.0)).astype(np.float32)[:, None])
        if labels.features is not None:
            parts.append(labels.features.astype(np.float32))
        return np.concatenate(parts, 1)

    def split(self, rows: torch.Tensor) -> Parts:
        """Return the targets (B, C), and the weights (B,) and features (B, F) or None."""
        n, first = self.n_targets, self.n_targets + self.weighted
        weights = rows[:, n] if self.weighted else None
        return rows[:, :n], weights, rows[:, first:] if self.n_features else None
