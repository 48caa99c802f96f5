"""Losses of logits (B, C) against targets (B, C)."""

import torch
from torch.nn import functional


def bce(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy over images and classes, in float32."""
    return functional.binary_cross_entropy_with_logits(logits.float(), targets.float())
