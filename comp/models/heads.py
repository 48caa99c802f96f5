"""Heads that timm's networks don't have: for numeric features beside the image, and for angles (ArcFace)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from comp.errors import CompError

N_HIDDEN = 128  # units between the features and the logits


class FeatureHead(nn.Module):
    """Logits (B, C) of numeric features (B, F). They are standardised; an unknown one (NaN) counts as the
    mean."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], n_classes: int):
        super().__init__()
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32), persistent=False)
        self.direct = nn.Linear(len(mean), n_classes)
        self.hidden = nn.Linear(len(mean), N_HIDDEN)
        self.last = nn.Linear(N_HIDDEN, n_classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = ((features - self.mean) / self.std).nan_to_num(0.0)
        return self.direct(x) + self.last(functional.silu(self.hidden(x)))


class WithFeatures(nn.Module):
    """A network of images with a head of features. Its logits are the sum of both, which is a linear layer
    over the pooled image beside the features and their hidden units."""

    def __init__(self, images: nn.Module, features: FeatureHead):
        super().__init__()
        self.images, self.features = images, features

    def forward(self, images: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits (B, C). Without features all of them are unknown."""
        if features is None:
            features = torch.full((len(images), len(self.features.mean)), torch.nan, device=images.device)
        return self.images(images) + self.features(features)

    def get_classifier(self) -> list[nn.Module]:
        """Return the modules of the head."""
        found: Any = self.images.get_classifier() if hasattr(self.images, "get_classifier") else []  # type: ignore[operator]
        return [*(found if isinstance(found, list | tuple) else [found]), self.features]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.images.set_grad_checkpointing(enable)  # type: ignore[operator]


def image_network(model: nn.Module) -> nn.Module:
    """Return the part of a network that sees images."""
    return model.images if isinstance(model, WithFeatures) else model  # type: ignore[return-value]


class CosineHead(nn.Module):
    """Logits (B, C): cosines of the angles between an image's features and each class, times `scale`."""

    def __init__(self, n_features: int, n_classes: int, scale: float):
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(n_classes, n_features)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):  # half precision is too coarse near a cosine of 1
            return self.scale * functional.linear(
                functional.normalize(x.float()), functional.normalize(self.weight)
            )


def with_cosine_head(model: nn.Module, backbone: str, scale: float) -> nn.Module:
    """Return a network with its last linear layer replaced by a `CosineHead`. Raise CompError for one whose
    classifier isn't a linear layer."""
    last: Any = model.get_classifier() if hasattr(model, "get_classifier") else None  # type: ignore[operator]
    name = next((name for name, module in model.named_modules() if module is last), "")
    if not isinstance(last, nn.Linear) or not name:
        raise CompError(
            f'loss "arcface" needs a network whose classifier is one linear layer; that of {backbone} is '
            f"{type(last).__name__}"
        )
    model.set_submodule(name, CosineHead(last.in_features, last.out_features, scale))
    return model


def feature_statistics(features: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and deviation of each column of (N, F), without its NaN. A constant column has a
    deviation of 1, one without any number a mean of 0."""
    known = ~np.isnan(features)
    n = known.sum(0).clip(min=1)
    filled = np.where(known, features, 0).astype(np.float64)
    mean = filled.sum(0) / n
    std = np.sqrt((np.where(known, filled - mean, 0) ** 2).sum(0) / n)
    return tuple(mean.tolist()), tuple(np.where(std > 1e-12, std, 1.0).tolist())
