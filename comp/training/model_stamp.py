"""The stamp of a fold's model. `comp train` writes it; `comp predict` checks it before it uses the model.
Without training data, models and decision.json are checked against the recipe and each other."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.decision_schema import Decision, classes_of
from comp.artifacts.files import read_json
from comp.artifacts.paths import decision_path, model_path
from comp.artifacts.stamps import difference, read_spec, read_stamp, to_json
from comp.config.recipe import Recipe
from comp.data.corrections import corrections_stamp
from comp.data.labels import Labels
from comp.data.scaling import Limits
from comp.decisions.decision_stamp import decision_settings
from comp.errors import CompError, summarize
from comp.models.weights import weights_digest
from comp.user_code import digests

# Keys of Recipe that don't change a fold's weights. All other keys are in the model's stamp, so a new key
# can't be forgotten.
NOT_IN_STAMP = frozenset(
    {
        *("name", "competition", "members", "tune", "track"),  # their effects are in stamps under other keys
        "code",  # stamps have digests of what training uses
        *("weights", "external", "pseudo", "full"),  # the content of what they name is in stamps
        *("compile", "gradient_checkpointing"),  # the same weights except for rounding
        *("views", "predict_batch_size", "rule", "n_trials"),  # read after training
    }
)
# Keys that are in every stamp. Other keys are in a stamp only if they are not at their default, so a new key
# leaves the stamps of existing models unchanged.
ALWAYS_IN_STAMP = frozenset(
    {
        *("seed", "n_folds", "backbone", "pretrained", "drop_rate", "channels", "phases"),
        *("augment", "augment_on", "mixup", "cutmix", "loss", "class_weights", "oversample"),
        *("label_smoothing", "weight_decay", "clip_norm", "ema_decay", "precision"),
    }
)
IN_STAMP = frozenset(Recipe.model_fields) - NOT_IN_STAMP


def train_stamp(
    recipe: Recipe,
    labels: Labels,
    fold_of: np.ndarray,
    images: str,
    fold: int,
    extras: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """Return what the model of `fold` is made from.

    `fold_of` (N,) holds the folds of the labels' ids, `images` is the data's stamp, `extras` holds the stamps
    of the fold's extra images by name, `limits` are the data's."""
    return {
        **stamped_settings(recipe),
        "weights": weights_digest(recipe.backbone, recipe.weights) if recipe.pretrained else None,
        "fold": fold,
        "labels": labels.fingerprint,
        "folds": labels.fingerprint_of(fold_of),
        "images": images,
        **({"range": limits[:2]} if limits else {}),
        **({"extras": extras} if extras else {}),
    }


def stamped_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of a recipe that its models depend on."""
    fields = type(recipe).model_fields
    usual = {key for key in IN_STAMP - ALWAYS_IN_STAMP if getattr(recipe, key) == fields[key].get_default()}
    content = recipe.model_dump(mode="json", include=set(IN_STAMP - usual))
    for phase in content["phases"]:
        if phase["warm_up"] is None:
            del phase["warm_up"]
    if own := digests(_trained_with(recipe), recipe.code):
        content["code"] = own
    return content | corrections_stamp(recipe.competition)


def _trained_with(recipe: Recipe) -> list[str]:
    """Return the values of the keys that may name code that training runs."""
    losses = [recipe.loss, *(phase.loss for phase in recipe.phases if phase.loss)]
    schedules = [phase.schedule for phase in recipe.phases]
    parts = [part for loss in losses for part in loss.split("+")]
    return [recipe.backbone, recipe.filter, recipe.augment.extends, *parts, *schedules]


def limits_of_model(path: Path) -> Limits | None:
    """Return the values that were black and white in a model's training, for files with more than 8 bits per
    channel."""
    found = (read_stamp(path) or {}).get("range")
    return Limits(*found) if found else None


def read_decision(recipe: Recipe, folds: Sequence[int]) -> dict[str, Any]:
    """Return decision.json. Raise CompError unless it and the folds' models belong to this recipe."""
    path = decision_path(recipe.name)
    models = {fold: model_path(recipe.name, fold) for fold in folds}
    if absent := [place for place in (path, *models.values()) if not place.exists()]:
        raise CompError(
            f"missing: {summarize(absent)}; run `comp train`, `predict`, `blend` and `decide` first, "
            "or name the finished folds with --folds"
        )
    decision = read_json(path, Decision)
    check_models(recipe, models, decision, path)
    return decision


def check_models(
    recipe: Recipe, models: Mapping[int, Path], decision: Mapping[str, Any], decision_file: Path
) -> None:
    """Raise CompError unless the models (by fold) and the decision are this recipe's and were made from the
    same labels and folds."""
    made, classes = decision["stamp"], classes_of(decision)
    settings = decision_settings(recipe, classes)
    if (wanted := to_json(settings)) != (found := {key: made.get(key) for key in settings}):
        raise CompError(f"{decision_file} was made with {difference(found, wanted)}; run `comp decide`")
    shared: dict[str, Any] = {}
    for fold, path in models.items():
        stamp = read_stamp(path)
        if stamp is None:
            raise CompError(f"{path} is not a comp model; run `comp train`")
        wanted = to_json(
            {
                **dict.fromkeys((*IN_STAMP, "corrections")),
                **stamped_settings(recipe),
                "fold": fold,
                "labels": made.get("labels"),
                "folds": made.get("folds"),
                **shared,
            }
        )
        found = {key: stamp.get(key) for key in wanted}
        if found != wanted:
            raise CompError(
                f"{path} was trained with {difference(found, wanted)}, as in {recipe.name} and "
                f"{decision_file.name}; give the same --set as in training, or run all stages from "
                "`comp train` on"
            )
        if read_spec(path)["classes"] != list(classes):
            raise CompError(f"{path} has other classes than {decision_file}; run `comp decide`")
        shared = {key: stamp.get(key) for key in ("images", "range", "weights")}
