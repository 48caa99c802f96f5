"""The stamp of a fold's model: `train` writes it, and `predict` compares it before it uses the model."""

from typing import Any

import numpy as np

from comp.artifacts import digest
from comp.config import Recipe
from comp.labels import Labels
from comp.weights import weights_digest

READ_BY_TRAINING = {
    *("seed", "n_folds", "backbone", "pretrained", "drop_rate", "phases", "augment"),
    *("weight_decay", "clip_norm", "ema_decay", "precision"),
}


def train_stamp(
    recipe: Recipe, labels: Labels, fold_of: np.ndarray, images: str, fold: int
) -> dict[str, Any]:
    """What the model of `fold` is made from; `fold_of` (N,) are the folds of the labels' ids, `images` the
    data's stamp."""
    return {
        **recipe.model_dump(mode="json", include=READ_BY_TRAINING),
        "weights": weights_digest(recipe.backbone, recipe.weights) if recipe.pretrained else None,
        "fold": fold,
        "channels": recipe.competition.images.channels,
        "labels": digest(labels.ids, labels.classes, labels.targets),
        "folds": digest(labels.ids, fold_of),
        "images": images,
    }
