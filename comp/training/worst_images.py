"""The held-out images with the highest loss after an epoch, which log.jsonl keeps for `comp watch`."""

from typing import Any

import numpy as np
import torch

from comp.models.inference import probabilities
from comp.models.network import ModelSpec
from comp.safe_text import visible

N_IMAGES, N_ANSWERS = 12, 3
EPSILON = 1e-6  # distance of probabilities from 0 and 1
CLEARLY_WRONG = 0.1  # the least distance of a probability from its label


def worst_images(
    ids: np.ndarray, logits: np.ndarray, targets: np.ndarray, spec: ModelSpec, *, single: bool
) -> list[dict[str, Any]]:
    """Return the images (N,) with the highest loss, the worst first: id, loss, and as [name, true, predicted]
    the answers that cost most.

    logits and targets are (N, C); unknown targets are NaN and cost nothing. The loss is that of valid_loss,
    of one image: of numbers the squared error in standard deviations; with one label per image (`single`) the
    cross-entropy of the label; else the mean binary cross-entropy."""
    predicted = probabilities(torch.from_numpy(logits), spec).numpy()
    known = ~np.isnan(targets)
    true = np.where(known, targets, 0).astype(np.float32)
    if spec.numbers:
        costs = ((predicted - true) / np.array(spec.numbers.std, np.float32)) ** 2
    else:
        p = predicted.clip(EPSILON, 1 - EPSILON)
        costs = -(true * np.log(p) + (1 - true) * np.log(1 - p))
    costs = np.where(known, costs, 0)
    if single and not spec.numbers:
        losses = -(true * np.log(p)).sum(1) / true.sum(1).clip(1)
    else:
        losses = costs.sum(1) / known.sum(1).clip(1)
    found = []
    for row in np.argsort(-losses, kind="stable")[:N_IMAGES].tolist():
        columns = [c for c in np.argsort(-costs[row], kind="stable").tolist() if known[row, c]][:N_ANSWERS]
        answers = [(spec.classes[c], float(true[row, c]), float(predicted[row, c])) for c in columns]
        if not spec.numbers:  # the first one is shown, however little it costs
            answers = [a for i, a in enumerate(answers) if i == 0 or abs(a[1] - a[2]) >= CLEARLY_WRONG]
        found.append(
            {
                "id": visible(ids[row]),
                "loss": _short(losses[row]),
                "answers": [[visible(name), _short(t), _short(p)] for name, t, p in answers],
            }
        )
    return found


def _short(value: float) -> float:
    return float(f"{value:.4g}")
