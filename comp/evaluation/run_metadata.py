"""What a run's predictions were made with, by the run's own files: a TOML may have changed since, and a fold
may have been trained again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from comp.artifacts.files import read_json
from comp.artifacts.paths import predicted_paths, started_path
from comp.artifacts.schemas import Predicted, Started
from comp.artifacts.stamps import digest, read_stamp
from comp.config.loading import problem
from comp.config.recipe import Recipe
from comp.errors import CompError


@dataclass(frozen=True)
class Origin:
    name: str
    recipe: Recipe | None  # that was trained; None where no fold's files say so
    views: tuple[str, ...]
    folds: tuple[int, ...]  # whose log and model are those of the predictions
    changed: tuple[int, ...]  # and those that were trained or predicted again


def members_of(name: str, made: Mapping[str, Any]) -> list[str]:
    """The runs whose networks a run is made of, by the stamp of its oof.npz."""
    return list(made["members"]) if "how" in made else [name]


def origin_of(name: str, made: Mapping[str, Any]) -> Origin:
    """Of a run of networks; `made` is the stamp of its oof.npz."""
    recipe, views, folds, changed = None, (), [], []
    for fold in made["folds"]:
        path = started_path(name, fold)
        started = read_json(path, Started) if path.exists() else {"recipe": {"n_folds": fold + 1}}
        predicted = predicted_paths(name, fold, started["recipe"]["n_folds"])
        stamps = [read_stamp(p, Predicted) or {} for p in predicted]
        trained = digest(started.get("stamp")) == stamps[0].get("train")
        if not trained or digest(stamps) != made["members"][f"fold {fold}"]:
            changed.append(fold)
            continue
        folds.append(fold)
        if recipe is None:
            try:
                recipe = Recipe.model_validate(started["recipe"])
            except ValidationError as error:
                raise CompError(f"{path} is of another version ({problem(error)})") from error
            views = tuple(stamps[0].get("views", ()))
    return Origin(name, recipe, views, tuple(folds), tuple(changed))
