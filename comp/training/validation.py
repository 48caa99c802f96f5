"""Held-out scores during training."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import nn

from comp.batches.loader import Batch
from comp.batches.preprocessing import Preprocess
from comp.batches.rows import RowLayout
from comp.compute.devices import MicroBatches
from comp.config.competition import Competition
from comp.decisions.metrics import FBeta, average_precisions, mean_average_precision, most_probable
from comp.decisions.scorers import Scorer, make_scorer
from comp.decisions.thresholds import global_threshold
from comp.errors import Diverged
from comp.models.inference import probabilities
from comp.models.network import ModelSpec
from comp.models.precision import autocast
from comp.training.log_columns import LogColumns
from comp.training.losses import Answers, bce, make_loss


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    prepare: Preprocess,
    dtype: torch.dtype,
    batches: Iterable[Batch],
    layout: RowLayout,
    micro: MicroBatches,
    let_go: Callable[[], bool],
) -> np.ndarray:
    """Return the logits (N, C) of all batches, without TTA. `let_go` is that of `MicroBatches.run`."""
    device = prepare.scale.device
    parts = []

    def logits(images: torch.Tensor, features: torch.Tensor | None) -> torch.Tensor:
        x = prepare(images)
        return (model(x) if features is None else model(x, features)).float()

    with autocast(device, dtype):
        for images, rows in batches:
            parts.append(micro.over(images, logits, let_go, layout.split(rows)[2]))
    return torch.cat(parts).cpu().numpy() if parts else np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class HeldOutScores:
    """The scores of held-out images after an epoch, by the competition's metric.

    Thresholds of F-beta are fitted on these images: one for all labels, so the score is optimistic; never
    select by it. Where each image has exactly one label (`single`), labels are the most probable ones, and
    nothing is fitted. A grade is the expected one, rounded."""

    competition: Competition
    classes: tuple[str, ...]
    single: bool
    code: dict[str, str] = field(default_factory=dict)

    @cached_property
    def scorer(self) -> Scorer:
        return make_scorer(self.competition, self.classes, self.code)

    @cached_property
    def columns(self) -> LogColumns:
        return LogColumns.of(self.competition.metric, single=self.single)

    def none(self) -> dict[str, float | None]:
        """Return the scores of a fold that holds nothing out: all None."""
        return dict.fromkeys(self.columns.keys)

    def of(self, logits: np.ndarray, targets: np.ndarray, spec: ModelSpec) -> dict[str, float | None]:
        """Return the scores of held-out logits (N, C); None where one is not defined."""
        given, true = torch.from_numpy(logits), torch.from_numpy(targets)
        likely = probabilities(given, spec)
        answers = Answers(unknown=bool(np.isnan(targets).any()), numbers=spec.numbers)
        if spec.numbers:
            valid_loss = make_loss("mse", answers=answers)(given, true)
        elif self.single and spec.groups:
            valid_loss = make_loss("groups", groups=spec.groups, answers=answers)(given, true)
        else:
            odds = torch.logit(likely, eps=1e-6) if spec.groups else given
            valid_loss = make_loss("bce", answers=answers)(odds, true) if answers.unknown else bce(odds, true)
        probs = likely.numpy()
        if not np.isfinite(probs).all():
            raise Diverged('the network\'s outputs are not finite; lower lr, or set precision = "fp32"')
        scores = {"valid_loss": float(valid_loss)}
        if "mAP" in self.columns.keys:
            scores["mAP"] = mean_average_precision(average_precisions(probs, targets))
        if isinstance(self.scorer, FBeta):
            scores |= self._of_fbeta(probs, targets, self.scorer)
        else:
            scores[self.columns.metric] = self.scorer.score(targets, self._answers(probs))
        return {key: value if np.isfinite(value) else None for key, value in scores.items()}

    def _answers(self, probs: np.ndarray) -> np.ndarray:
        """Return what the scorer scores."""
        if self.scorer.answer == "grades":
            grades = np.rint(probs @ np.arange(probs.shape[1])).astype(int)
            return np.eye(probs.shape[1], dtype=np.uint8)[grades]
        if self.scorer.answer == "labels":
            return most_probable(probs) if self.single else (probs > 0.5).astype(np.uint8)
        return probs

    def _of_fbeta(self, probs: np.ndarray, targets: np.ndarray, metric: FBeta) -> dict[str, float]:
        if (unknown := np.isnan(targets)).any():  # neither true nor chosen: left out of all counts
            probs, targets = np.where(unknown, 0, probs), np.where(unknown, 0, targets).astype(np.uint8)
        chosen = most_probable(probs) if self.single else probs > global_threshold(probs, targets, metric)
        accuracy = {"accuracy": float((chosen == targets).all(1).mean())} if self.single else {}
        return {"fbeta": metric.score(targets, chosen), **accuracy}
