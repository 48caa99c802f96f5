"""The stamp of a fold's model: `train` writes it, and `predict` compares it before it uses the model. Where
there is no training data, models and a decision are compared with the recipe and with each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.files import read_json
from comp.artifacts.paths import decision_path, model_path
from comp.artifacts.schemas import Decision
from comp.artifacts.stamps import difference, digest, plain, read_spec, read_stamp
from comp.config.recipe import Recipe
from comp.data.decoding import Limits
from comp.data.labels import Labels
from comp.errors import CompError, some
from comp.models.weights import weights_digest
from comp.training.extra_images import Extra

READ_BY_TRAINING = {
    *("seed", "n_folds", "backbone", "pretrained", "drop_rate", "phases", "augment", "augment_on"),
    *("channels", "normalize"),
    *("mixup", "cutmix", "loss", "class_weights", "oversample", "label_smoothing"),
    *("layer_decay", "weight_decay", "clip_norm", "ema_decay", "swa_epochs", "precision"),
    "filter",
}
LATER = {
    "filter",
    "layer_decay",
    "normalize",
    "swa_epochs",
}  # keys that older runs lack: in stamps only where they are not at their default


def train_stamp(
    recipe: Recipe,
    labels: Labels,
    fold_of: np.ndarray,
    images: str,
    fold: int,
    extras: Sequence[Extra] = (),
    limits: Limits | None = None,
) -> dict[str, Any]:
    """What the model of `fold` is made from; `fold_of` (N,) are the folds of the labels' ids, `images` the
    data's stamp, `extras` what this fold learns besides, `limits` those of the data."""
    more = {extra.images.name: extra.stamp for extra in extras}
    return {
        **read_by_training(recipe),
        "weights": weights_digest(recipe.backbone, recipe.weights) if recipe.pretrained else None,
        "fold": fold,
        "labels": digest(labels.ids, labels.classes, labels.targets),
        "folds": digest(labels.ids, fold_of),
        "images": images,
        **({"range": limits[:2]} if limits else {}),
        **({"extras": more} if more else {}),
    }


def read_by_training(recipe: Recipe) -> dict[str, Any]:
    fields = type(recipe).model_fields
    usual = {key for key in LATER if getattr(recipe, key) == fields[key].default}
    content = recipe.model_dump(mode="json", include=READ_BY_TRAINING - usual)
    for phase in content["phases"]:
        if phase["warm_up"] is None:
            del phase["warm_up"]
    return content


def limits_of_model(path: Path) -> Limits | None:
    """The values that were black and white to a model, of files with more than 8 bits a channel."""
    found = (read_stamp(path) or {}).get("range")
    return Limits(*found) if found else None


def read_decision(recipe: Recipe, folds: Sequence[int]) -> dict[str, Any]:
    """decision.json, once it and the folds' models were found to be of this recipe and of each other."""
    path = decision_path(recipe.name)
    models = {fold: model_path(recipe.name, fold) for fold in folds}
    if absent := [place for place in (path, *models.values()) if not place.exists()]:
        raise CompError(
            f"not there: {some(absent)}; run `comp train`, `predict`, `blend` and `decide` first, "
            "or name the folds that are there with --folds"
        )
    decision = read_json(path, Decision)
    check_models(recipe, models, decision, path)
    return decision


def check_models(
    recipe: Recipe, models: Mapping[int, Path], decision: Mapping[str, Any], decision_file: Path
) -> None:
    """Raise CompError unless the models (by fold) and the decision are this recipe's and were made from the
    same labels and folds."""
    competition, made, classes = recipe.competition, decision["stamp"], tuple(decision["thresholds"])
    settings = {
        "metric": competition.metric.settings,
        "empty": competition.labels.empty,
        "rule": recipe.rule,
        "exclusive": competition.labels.groups(classes),
        "n_trials": recipe.n_trials,
        "seed": recipe.seed,
    }
    if (wanted := plain(settings)) != (found := {key: made.get(key) for key in settings}):
        raise CompError(f"{decision_file} was made with {difference(found, wanted)}; run `comp decide`")
    shared: dict[str, Any] = {}
    for fold, path in models.items():
        stamp = read_stamp(path)
        if stamp is None:
            raise CompError(f"{path} is not a model of this toolkit; run `comp train`")
        wanted = plain(
            {
                **dict.fromkeys(READ_BY_TRAINING),
                **read_by_training(recipe),
                "fold": fold,
                "labels": made.get("labels"),
                "folds": made.get("folds"),
                **shared,
            }
        )
        found = {key: stamp.get(key) for key in wanted}
        if found != wanted:
            raise CompError(
                f"{path} was trained with {difference(found, wanted)}, as {recipe.name} and "
                f"{decision_file.name} have it; give the same --set as then, or run the stages from "
                "`comp train` on"
            )
        if read_spec(path)["classes"] != list(classes):
            raise CompError(f"{path} knows other classes than {decision_file}; run `comp decide`")
        shared = {key: stamp.get(key) for key in ("images", "range", "weights")}
