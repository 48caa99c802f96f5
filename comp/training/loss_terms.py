"""The parts of losses: of logits and targets (B, C), by cell (B, C), by image (B,) or by class (C,)."""

import math
from collections.abc import Sequence

import torch
from torch.nn import functional


def bce(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return (B, C) binary cross-entropies."""
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal(logits: torch.Tensor, targets: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    """Return (B, C) binary cross-entropy times (1 - probability of the true value)^gamma."""
    wrong = torch.sigmoid(logits * (1 - 2 * targets))
    return wrong**gamma * bce(logits, targets)


def asymmetric(
    logits: torch.Tensor, targets: torch.Tensor, down: float = 4.0, up: float = 1.0, clip: float = 0.05
) -> torch.Tensor:
    """Return (B, C) focal losses with gamma `up` for present labels and `down` for absent ones. Absent labels
    with a probability below `clip` cost nothing."""
    p = torch.sigmoid(logits)
    shifted = (p - clip).clamp(min=0)
    present = -targets * functional.logsigmoid(logits) * (1 - p) ** up
    absent = -(1 - targets) * torch.log1p(-shifted) * shifted**down
    return present + absent


def fbeta_of(p: torch.Tensor, targets: torch.Tensor, beta: float) -> torch.Tensor:
    """Return (B,) F-beta of probabilities (B, C)."""
    hits = (p * targets).sum(1)
    below = p.sum(1) + beta**2 * targets.sum(1)
    return (1 + beta**2) * hits / below.clamp(min=1e-6)


def lovasz(errors: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return (C,) the Lovász hinge of each class, of hinge errors (B, C). It is a convex surrogate of 1 -
    Jaccard index of a class over the batch."""
    errors, order = errors.sort(0, descending=True)
    true = targets.gather(0, order)
    n_true = true.sum(0, keepdim=True)
    jaccard = 1 - (n_true - true.cumsum(0)) / (n_true + (1 - true).cumsum(0)).clamp(min=1e-6)
    steps = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    return (functional.relu(errors) * steps).sum(0)


def grouped(
    logits: torch.Tensor,
    targets: torch.Tensor,
    groups: Sequence[torch.Tensor],
    rest: torch.Tensor,
    weights: torch.Tensor | None,
    smoothing: float,
) -> torch.Tensor:
    """Return costs (B, K) of K columns, where each group is one column: the cross-entropy between its softmax
    and its labels as shares, 0 for images without any of its labels. Weights and smoothing work as in torch's
    `cross_entropy` with probabilities as targets. `groups` and `rest` hold numbers of columns."""
    weights = None if weights is None else weights.to(logits)
    columns = []
    for group in groups:
        true = targets.index_select(1, group)
        total = true.sum(1)
        by_image = functional.cross_entropy(
            logits.index_select(1, group),
            true / total.clamp(min=1e-6)[:, None],
            None if weights is None else weights.index_select(0, group),
            label_smoothing=smoothing,
            reduction="none",
        )
        columns.append(by_image * (total > 0))
    if len(rest):
        smooth = targets.index_select(1, rest) * (1 - smoothing) + smoothing / 2
        by_class = bce(logits.index_select(1, rest), smooth)
        by_class = by_class if weights is None else by_class * weights.index_select(0, rest)
        columns += list(by_class.unbind(1))
    return torch.stack(columns, 1)


def emd(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return (B,) the squared earth mover's distance between the softmax over ordered classes and the targets
    as shares: the sum of squared differences of their cumulative distributions (Hou, Yu and Samaras 2016)."""
    shares = targets / targets.sum(1, keepdim=True).clamp(min=1e-6)
    return (logits.softmax(1) - shares).cumsum(1).square().sum(1)


def with_margin(logits: torch.Tensor, targets: torch.Tensor, margin: float, scale: float) -> torch.Tensor:
    """Return logits (B, C) whose true classes lie `margin` radians further away: scale × cos(angle + margin)
    in place of scale × cos(angle) (ArcFace, Deng et al. 2019). Beyond an angle of pi - margin they fall
    linearly, as in the authors' code. Soft targets move by their share."""
    cosine = (logits / scale).clamp(-1 + 1e-6, 1 - 1e-6)
    near, further = math.cos(margin), math.sin(margin)
    moved = cosine * near - (1 - cosine.square()).sqrt() * further
    moved = torch.where(cosine > -near, moved, cosine - further * margin)
    return logits - scale * (cosine - moved) * targets
