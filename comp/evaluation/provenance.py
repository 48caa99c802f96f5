"""What a run was made from and with, by its own files: recipe, seed, date, machine, time, version of comp."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from comp.artifacts.files import read_json
from comp.artifacts.paths import started_path
from comp.artifacts.resumable import read_log
from comp.artifacts.schemas import TrainingStart
from comp.batches.view_names import stamped_views
from comp.config.origins import closest_shipped, values_set
from comp.config.recipe import Recipe
from comp.evaluation.comparison import cost_of
from comp.evaluation.results import RunResults
from comp.evaluation.run_metadata import RunMetadata
from comp.safe_text import visible

MAX_VALUE = 400  # characters
STORED = ("comp", "commit", "processor", "processors")  # of started.json


def provenance(results: RunResults, members: Sequence[RunMetadata]) -> dict[str, Any]:
    """Return what the report says about the making of a run. What no file holds is None."""
    cost = cost_of(results.recipe.name, results.made) if members else None
    return {
        "seed": results.recipe.seed,
        "settings": [_settings(m.recipe, m.views) for m in members if m.recipe],
        "trainings": [_training(m.name, fold) for m in members for fold in m.folds],
        "seconds": cost.seconds if cost else None,
        "memory": cost.memory if cost else None,
        "n_parameters": cost.n_parameters if cost else None,
        "rate": cost.rate if cost else None,
    }


def _settings(recipe: Recipe, views: Sequence[str]) -> dict[str, Any]:
    """Return the keys of a trained recipe that differ from the defaults or from the closest recipe that ships
    with comp, as [key, value, the shipped recipe's]. Views are those that predicted."""
    shipped = closest_shipped(recipe)
    others = stamped_views(recipe.views, recipe.code) != list(views)
    ours = values_set(recipe.model_copy(update={"views": tuple(views)} if views and others else {}))
    theirs = values_set(shipped) if shipped else {}
    return {
        "run": recipe.name,
        "shipped": shipped.name if shipped else None,
        "keys": [
            [key, *(_value(of.get(key, "the default")) for of in (ours, theirs))]
            for key in sorted(ours.keys() | theirs.keys())
        ],
    }


def _value(toml: str) -> str:
    return visible(" ".join(toml.split()), MAX_VALUE)


def _training(name: str, fold: int) -> dict[str, Any]:
    """Return when, where and for how long a network was trained."""
    path, rows = started_path(name, fold), read_log(name, fold)
    started = read_json(path, TrainingStart) if path.exists() else {}
    begun, n_folds = started.get("begun"), started.get("recipe", {}).get("n_folds")
    return {
        "run": name,
        "fold": None if n_folds is not None and fold >= n_folds else fold,
        "begun": None if begun is None else _minute(begun),
        "seconds": sum(row["seconds"] for row in rows) if rows else None,
        **{key: visible(value) if isinstance(value := started.get(key), str) else value for key in STORED},
    }


def _minute(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(" ", timespec="minutes")[:16]
