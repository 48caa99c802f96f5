"""Losses of logits (B, C) and targets (B, C). They are computed in float32, whatever the network's precision
is, to stay finite. A name is one of `LOSSES` or a sum, such as "focal+lovasz"."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch.nn import functional

from comp.batches.augmentation import to_device
from comp.errors import CompError
from comp.models.numbers import NumberScale
from comp.training import loss_terms as terms
from comp.user_code import NO_CODE, Code, as_users_error, is_reference, load_function

Loss = Callable[..., torch.Tensor]  # of logits (B, C), targets (B, C) and optionally weights (B,)
ColumnGroups = Sequence[Sequence[int]]

LOSSES = {
    "bce": "binary cross-entropy",
    "focal": "focal loss (Lin et al. 2017), gamma 2",
    "asymmetric": "asymmetric loss (Ridnik et al. 2021), gammas 4 and 1, clip 0.05",
    "fbeta": "1 - soft F-beta per image",
    "lovasz": "Lovász hinge (Berman et al. 2018) per class",
    "groups": "softmax cross-entropy over each exclusive group, binary cross-entropy over other labels",
    "emd": "squared earth mover's distance between softmax and grade (Hou, Yu and Samaras 2016)",
    "arcface": "softmax cross-entropy of angles, with a margin (ArcFace, Deng et al. 2019)",
    "mse": "mean squared error, in standard deviations of the targets",
    "mae": "mean absolute error, in standard deviations of the targets",
    "huber": "squared up to 1 standard deviation of the targets, linear beyond (Huber 1964)",
}
OF_NUMBERS = ("mse", "mae", "huber")
OF_ONE_LABEL = ("emd", "arcface")
OF_LABELS = tuple(name for name in LOSSES if name not in OF_NUMBERS)
IN_SOFTMAX = ("groups", *OF_ONE_LABEL)


@dataclass(frozen=True)
class Answers:
    """What a loss knows of targets and outputs besides their groups."""

    unknown: bool = False  # targets may be NaN: these cells are left out
    numbers: NumberScale | None = None  # of targets that are numbers
    margin: float = 0.3  # of arcface, in radians
    scale: float = 30.0  # of arcface: logits are cosines times it
    weighted: bool = False  # images have weights


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
    answers: Answers = Answers(),  # noqa: B008  (frozen)
) -> Loss:
    """Return the loss of a name. Raise CompError for an unknown name, and for one of another kind of answer.

    A user's own loss, whose text is in `code`, gets float32 logits and targets, or numbers and targets in the
    targets' unit; its mean is taken. `weights` and `smoothing` don't change it. Unknown targets are 0 there,
    and a loss of each cell (B, C) is expected.

    `weights` (C,) weigh the classes, in losses that are sums over classes. `smoothing` moves targets towards
    1/2, and those of an exclusive group of K labels towards 1/K. `groups` are the columns of the exclusive
    groups. The loss itself takes weights (B,) of the images, of mean 1 over all images."""
    parts = name.split("+")
    own = {part: _own(part, code) for part in parts if is_reference(part)}
    _check_parts(name, parts, own, groups, answers)
    alone = [part for part in parts if part in OF_ONE_LABEL]

    @cache  # a list as an index would be sent at each use, and the CPU would wait for the GPU
    def columns(n_classes: int, device: torch.device) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the columns of each group, and those in no group."""
        rest = sorted(set(range(n_classes)).difference(*groups))
        on_device = [to_device(np.array(part, np.int64), device) for part in (*groups, rest)]
        return on_device[:-1], on_device[-1]

    def element(
        part: str,
        logits: torch.Tensor,
        targets: torch.Tensor,
        known: torch.Tensor | None,
        of_image: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return one part's mean; `targets` are 0 where they are not `known` (B, C)."""
        if part in own:
            given = logits if answers.numbers is None else answers.numbers.numbers(logits)
            costs = own[part](given, targets)
            if known is None and of_image is None:
                return costs.mean()
            _check_shape(part, costs, logits, known)
            return _mean(costs, known, of_image)
        if part in OF_NUMBERS:
            assert answers.numbers
            errors = answers.numbers.errors(logits, targets)
            if part == "huber":
                costs = functional.huber_loss(errors, torch.zeros_like(errors), reduction="none")
            else:
                costs = errors.square() if part == "mse" else errors.abs()
            return _mean(costs, known, of_image)
        if part == "fbeta":
            p = torch.sigmoid(logits)
            p = p if known is None else p * known
            found = terms.fbeta_of(p, targets, beta)
            if known is None and of_image is None:
                return 1 - found.mean()
            return _mean(1 - found, _rows(known), of_image)
        if part == "lovasz":
            errors = 1 - logits * (2 * targets - 1)
            errors = errors if known is None else errors * known
            by_class = terms.lovasz(errors, targets)
            return (by_class if weights is None else by_class * weights.to(by_class)).mean()
        if part == "groups":
            places = columns(logits.shape[1], logits.device)
            costs = terms.grouped(logits, targets, *places, weights, smoothing)
            known = None if known is None else _of_columns(known, targets, *places)
            return _mean(costs, known, of_image)
        if part in OF_ONE_LABEL:
            if part == "emd":
                costs = terms.emd(logits, targets)
            else:
                moved = terms.with_margin(logits, targets, answers.margin, answers.scale)
                places = columns(logits.shape[1], logits.device)
                costs = terms.grouped(moved, targets, *places, weights, smoothing)[:, 0]
            return _mean(costs, _rows(known), of_image)
        by_cell = {"bce": terms.bce, "focal": terms.focal, "asymmetric": terms.asymmetric}[part]
        costs = by_cell(logits, targets)
        costs = costs if weights is None else costs * weights.to(costs)
        return _mean(costs, known, of_image)

    def loss(
        logits: torch.Tensor, targets: torch.Tensor, of_image: torch.Tensor | None = None
    ) -> torch.Tensor:
        logits, targets, known = _wide(logits), _wide(targets), None
        if alone and len(groups[0]) != logits.shape[1]:
            raise CompError(f'loss "{alone[0]}" needs labels.single = true in the competition')
        if answers.unknown:
            known = (~targets.isnan()).to(targets)
            targets = targets.nan_to_num(0.0)
        smooth = targets * (1 - smoothing) + smoothing / 2
        total = torch.zeros((), device=logits.device, dtype=logits.dtype)
        for part in parts:
            true = smooth if part in ("bce", "focal") else targets
            total = total + element(part, logits, true, known, of_image)
        return total

    return loss


def _check_parts(
    name: str, parts: Sequence[str], own: dict[str, Loss], groups: ColumnGroups, answers: Answers
) -> None:
    """Raise CompError unless all parts of a loss exist and suit the answers."""
    if unknown := [part for part in parts if part not in LOSSES and part not in own]:
        raise CompError(f"no loss {unknown[0]!r}; there are {', '.join(LOSSES)}, and sums like bce+fbeta")
    is_numbers = answers.numbers is not None
    for part in parts:
        if part not in own and (part in OF_NUMBERS) != is_numbers:
            what, others = ("numbers", OF_NUMBERS) if is_numbers else ("labels", OF_LABELS)
            raise CompError(f'loss "{name}" is not for {what}, which {", ".join(others)} suit')
    if "groups" in parts and not groups:
        raise CompError(f'loss "{name}" needs labels.exclusive or labels.single in the competition')
    alone = [part for part in parts if part in OF_ONE_LABEL]
    if alone and len(groups) != 1:
        raise CompError(f'loss "{alone[0]}" needs labels.single = true in the competition')
    if "lovasz" in parts and answers.weighted:
        raise CompError(f'loss "{name}": lovasz is of a whole batch, and can\'t use labels.weight')
    if "arcface" in parts and len(parts) > 1:
        raise CompError(f'loss "{name}": arcface stands alone, since its logits are cosines')


def _mean(costs: torch.Tensor, known: torch.Tensor | None, of_image: torch.Tensor | None) -> torch.Tensor:
    """Return the mean of costs (B,) or (B, K) over known cells, each times its image's weight."""
    if of_image is not None:
        costs = costs * of_image.to(costs).view(-1, *[1] * (costs.ndim - 1))
    return costs.mean() if known is None else (costs * known).sum() / known.sum().clamp(min=1)


def _rows(known: torch.Tensor | None) -> torch.Tensor | None:
    """Return (B,) 1 for images with a known target, else 0."""
    return None if known is None else known.amax(1)


def _of_columns(
    known: torch.Tensor, targets: torch.Tensor, groups: Sequence[torch.Tensor], rest: torch.Tensor
) -> torch.Tensor:
    """Return (B, K) 1 where a column of `grouped` is known: one of the group's labels holds, or all of them
    are known."""
    columns = [
        torch.maximum(known.index_select(1, group).amin(1), targets.index_select(1, group).amax(1).ceil())
        for group in groups
    ]
    return torch.stack([*columns, *known.index_select(1, rest).unbind(1)], 1)


def _own(reference: str, code: Code) -> Loss:
    """Return a user's loss. Errors in it are left as they are: one may be for want of memory."""
    function = load_function(reference, code, "logits", "targets")

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        value = function(logits, targets)
        if not isinstance(value, torch.Tensor) or not value.dtype.is_floating_point:
            raise CompError(f"{reference} returned {value!r:.60}; a tensor of losses is expected")
        return value

    return loss


def _check_shape(
    reference: str, costs: torch.Tensor, logits: torch.Tensor, known: torch.Tensor | None
) -> None:
    """Raise CompError unless a user's loss can be weighed by image, and by cell where some are unknown."""
    n, n_classes = logits.shape
    shapes = [(n, n_classes)] if known is not None else [(n, n_classes), (n,)]
    if tuple(costs.shape) not in shapes:
        why = "unknown labels" if known is not None else "labels.weight"
        raise CompError(
            f"{reference} returned {tuple(costs.shape)} for {n} images and {n_classes} columns; with {why} "
            f"{' or '.join(map(str, shapes))} is expected"
        )


def try_loss(loss: Loss, name: str, n_classes: int, *, weighted: bool = False) -> None:
    """Raise CompError where a loss can't be computed, or has no gradient."""
    logits = torch.linspace(-1, 1, 4 * n_classes).view(4, n_classes).requires_grad_()
    targets = (torch.arange(4 * n_classes) % 3 == 0).float().view(4, n_classes)
    try:
        loss(logits, targets, torch.ones(4) if weighted else None).backward()
    except Exception as error:
        raise as_users_error(error, name) from error
    if logits.grad is None or not logits.grad.isfinite().all():
        raise CompError(f"{name} has gradients that are not finite, for logits from -1 to 1")


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values if values.dtype == torch.float64 else values.float()


def class_weights(kind: str, n_images: torch.Tensor) -> torch.Tensor | None:
    """Return (C,) weights of mean 1 from the number n of training images per class; None for "none".

    inverse: 1 / sqrt(n). effective: 1 / ((1 - 0.999^n) / (1 - 0.999)), the effective number (Cui et al.
    2019)."""
    n = n_images.double().clamp(min=1)
    if kind == "none":
        return None
    weights = n.rsqrt() if kind == "inverse" else (1 - 0.999) / (1 - 0.999**n)
    return (weights / weights.mean()).float()
