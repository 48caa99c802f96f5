"""Held-out scores during training."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import nn

from comp.batches.loader import Batch
from comp.batches.preprocessing import Preprocess
from comp.compute.devices import MicroBatches
from comp.decisions.metrics import FBeta, average_precisions, mean_average_precision, most_probable
from comp.decisions.thresholds import global_threshold
from comp.errors import Diverged
from comp.models.inference import probabilities
from comp.models.network import ModelSpec
from comp.models.precision import autocast
from comp.training.losses import bce, make_loss


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    prepare: Preprocess,
    dtype: torch.dtype,
    batches: Iterable[Batch],
    micro: MicroBatches,
    let_go: Callable[[], bool],
) -> np.ndarray:
    """Return the logits (N, C) of all batches, without TTA. `let_go` is that of `MicroBatches.run`."""
    device = prepare.scale.device
    parts = []
    with autocast(device, dtype):
        for images, _ in batches:
            parts.append(micro.over(images, lambda part: model(prepare(part)).float(), let_go))
    return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, 0), np.float32)


def held_out_scores(
    logits: np.ndarray, targets: np.ndarray, spec: ModelSpec, metric: FBeta, single: bool
) -> dict[str, float | None]:
    """Return the scores of held-out logits (N, C).

    F-beta uses one threshold that is fitted on these rows, so it is optimistic: never select by it. Where
    each image has exactly one label (`single`), it uses the most probable label, and nothing is fitted."""
    given, true = torch.from_numpy(logits), torch.from_numpy(targets)
    likely = probabilities(given, spec.groups)
    odds = torch.logit(likely, eps=1e-6) if spec.groups else given
    if single and spec.groups:
        valid_loss = float(make_loss("groups", groups=spec.groups)(given, true))
    else:
        valid_loss = float(bce(odds, true))
    probs = likely.numpy()
    if not np.isfinite(probs).all():
        raise Diverged('the network\'s outputs are not finite; lower lr, or set precision = "fp32"')
    chosen = most_probable(probs) if single else probs > global_threshold(probs, targets, metric)
    return {
        "valid_loss": valid_loss,
        "mAP": mean_average_precision(average_precisions(probs, targets)),
        "fbeta": metric.score(targets, chosen),
        **({"accuracy": float((chosen == targets).all(1).mean())} if single else {}),
    }


def no_scores(single: bool) -> dict[str, float | None]:
    """Return the scores of a fold that holds nothing out: all None."""
    return dict.fromkeys(("valid_loss", "mAP", "fbeta", *(["accuracy"] if single else [])))
