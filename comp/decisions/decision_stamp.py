"""What a decision was made with: the stamp of decision.json."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from comp.config.recipe import Recipe
from comp.user_code import digests


def decision_settings(recipe: Recipe, classes: Sequence[str]) -> dict[str, Any]:
    """Return the settings that a decision depends on, as stamps hold them."""
    competition = recipe.competition
    return {
        "metric": competition.metric.stamp,
        "empty": competition.labels.empty,
        "exclusive": competition.labels.exclusive_names(tuple(classes)),
        "rule": recipe.rule,
        "n_trials": recipe.n_trials,
        "seed": recipe.seed,
        **({"aggregate": competition.submission.aggregate} if competition.labels.answer_id else {}),
        **({"code": code} if (code := digests([competition.metric.name], recipe.code)) else {}),
    }


def decision_stamp(
    recipe: Recipe, classes: Sequence[str], *, oof: str, labels: str, folds: str
) -> dict[str, Any]:
    """Return what a decision is made with: the settings, and the fingerprints of the out-of-fold
    probabilities' stamp, of the labels and of the folds."""
    return {"oof": oof, "labels": labels, "folds": folds, **decision_settings(recipe, classes)}


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Return the keys whose values differ between the stamp of a decision.json and the wanted one."""
    return [key for key in keys if found.get(key) != wanted.get(key)]
