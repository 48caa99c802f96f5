"""Losses of logits (B, C) and targets (B, C) in 0 … 1. They are computed in float32, whatever the network's
precision is, to stay finite. A name is one of `LOSSES` or a sum, such as "focal+lovasz"."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch.nn import functional

from comp.batches.augmentation import to_device
from comp.errors import CompError
from comp.user_code import NO_CODE, Code, as_users_error, is_reference, load_function

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
ColumnGroups = Sequence[Sequence[int]]

LOSSES = {
    "bce": "binary cross-entropy",
    "focal": "focal loss (Lin et al. 2017), gamma 2",
    "asymmetric": "asymmetric loss (Ridnik et al. 2021), gammas 4 and 1, clip 0.05",
    "fbeta": "1 - soft F-beta per image",
    "lovasz": "Lovász hinge (Berman et al. 2018) per class",
    "groups": "softmax cross-entropy over each exclusive group, binary cross-entropy over other labels",
}


def bce(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean binary cross-entropy over images and classes."""
    return functional.binary_cross_entropy_with_logits(_wide(logits), _wide(targets))


def make_loss(
    name: str,
    *,
    beta: float = 2.0,
    groups: ColumnGroups = (),
    weights: torch.Tensor | None = None,
    smoothing: float = 0.0,
    code: Code = NO_CODE,
) -> Loss:
    """Return the loss of a name. Raise CompError for an unknown name.

    A user's own loss, whose text is in `code`, gets float32 logits and targets; its mean is taken. `weights`
    and `smoothing` don't change it.

    `weights` (C,) weigh the classes, in losses that are sums over classes. `smoothing` moves targets towards
    1/2, and those of an exclusive group of K labels towards 1/K. `groups` are the columns of the exclusive
    groups."""
    parts = name.split("+")
    own = {part: _own(part, code) for part in parts if is_reference(part)}
    if unknown := [part for part in parts if part not in LOSSES and part not in own]:
        raise CompError(f"no loss {unknown[0]!r}; there are {', '.join(LOSSES)}, and sums like bce+fbeta")
    if "groups" in parts and not groups:
        raise CompError(f'loss "{name}" needs labels.exclusive or labels.single in the competition')

    @cache  # a list as an index would be sent at each use, and the CPU would wait for the GPU
    def columns(n_classes: int, device: torch.device) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the columns of each group, and those in no group."""
        rest = sorted(set(range(n_classes)).difference(*groups))
        on_device = [to_device(np.array(part, np.int64), device) for part in (*groups, rest)]
        return on_device[:-1], on_device[-1]

    def element(part: str, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if part in own:
            return own[part](logits, targets)
        if part == "fbeta":
            return soft_fbeta(logits, targets, beta)
        if part == "lovasz":
            return lovasz(logits, targets, weights)
        if part == "groups":
            return _grouped(logits, targets, *columns(logits.shape[1], logits.device), weights, smoothing)
        by_class = {"bce": _bce, "focal": focal, "asymmetric": asymmetric}[part](logits, targets)
        return (by_class if weights is None else by_class * weights.to(by_class)).mean()

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits, targets = _wide(logits), _wide(targets)
        smooth = targets * (1 - smoothing) + smoothing / 2
        total = torch.zeros((), device=logits.device, dtype=logits.dtype)
        for part in parts:
            total = total + element(part, logits, smooth if part in ("bce", "focal") else targets)
        return total

    return loss


def _own(reference: str, code: Code) -> Loss:
    """Return the mean of a user's loss. Errors in it are left as they are: one may be for want of memory."""
    function = load_function(reference, code, "logits", "targets")

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        value = function(logits, targets)
        if not isinstance(value, torch.Tensor) or not value.dtype.is_floating_point:
            raise CompError(f"{reference} returned {value!r:.60}; a tensor of losses is expected")
        return value.mean()

    return loss


def try_loss(loss: Loss, name: str, n_classes: int) -> None:
    """Raise CompError where a loss with a user's part can't be computed, or has no gradient."""
    own = [part for part in name.split("+") if is_reference(part)]
    if not own:
        return
    logits = torch.linspace(-1, 1, 4 * n_classes).view(4, n_classes).requires_grad_()
    targets = (torch.arange(4 * n_classes) % 3 == 0).float().view(4, n_classes)
    try:
        loss(logits, targets).backward()
    except Exception as error:
        raise as_users_error(error, name) from error
    if logits.grad is None or not logits.grad.isfinite().all():
        raise CompError(f"{name} has gradients that are not finite, for logits from -1 to 1")


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _bce(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def focal(logits: torch.Tensor, targets: torch.Tensor, gamma: float = 2.0) -> torch.Tensor:
    """Return (B, C) binary cross-entropy times (1 - probability of the true value)^gamma."""
    wrong = torch.sigmoid(logits * (1 - 2 * targets))
    return wrong**gamma * _bce(logits, targets)


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


def soft_fbeta(logits: torch.Tensor, targets: torch.Tensor, beta: float) -> torch.Tensor:
    """Return 1 - the mean F-beta per image, with probabilities in place of decisions."""
    p = torch.sigmoid(logits)
    hits = (p * targets).sum(1)
    below = p.sum(1) + beta**2 * targets.sum(1)
    return 1 - ((1 + beta**2) * hits / below.clamp(min=1e-6)).mean()


def lovasz(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Return the mean Lovász hinge over classes. It is a convex surrogate of 1 - Jaccard index of a class
    over the batch."""
    errors = 1 - logits * (2 * targets - 1)
    errors, order = errors.sort(0, descending=True)
    true = targets.gather(0, order)
    n_true = true.sum(0, keepdim=True)
    jaccard = 1 - (n_true - true.cumsum(0)) / (n_true + (1 - true).cumsum(0)).clamp(min=1e-6)
    steps = torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    by_class = (functional.relu(errors) * steps).sum(0)
    return (by_class if weights is None else by_class * weights.to(by_class)).mean()


def _grouped(
    logits: torch.Tensor,
    targets: torch.Tensor,
    groups: Sequence[torch.Tensor],
    rest: torch.Tensor,
    weights: torch.Tensor | None,
    smoothing: float,
) -> torch.Tensor:
    """Return the mean over images and columns, where each group is one column: the cross-entropy between its
    softmax and its labels as shares, 0 for images without any of its labels. Weights and smoothing work as in
    torch's `cross_entropy` with probabilities as targets. `groups` and `rest` hold numbers of columns."""
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
        by_class = _bce(logits.index_select(1, rest), smooth)
        by_class = by_class if weights is None else by_class * weights.index_select(0, rest)
        columns += list(by_class.unbind(1))
    return torch.stack(columns, 1).mean()


def class_weights(kind: str, n_images: torch.Tensor) -> torch.Tensor | None:
    """Return (C,) weights of mean 1 from the number n of training images per class; None for "none".

    inverse: 1 / sqrt(n). effective: 1 / ((1 - 0.999^n) / (1 - 0.999)), the effective number (Cui et al.
    2019)."""
    n = n_images.double().clamp(min=1)
    if kind == "none":
        return None
    weights = n.rsqrt() if kind == "inverse" else (1 - 0.999) / (1 - 0.999**n)
    return (weights / weights.mean()).float()
