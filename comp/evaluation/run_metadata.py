"""The recipe, views and folds of a run's predictions, by the run's own files: its TOML may have changed, and
folds may have been trained again."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from comp.artifacts.files import read_json
from comp.artifacts.paths import predicted_paths, started_path
from comp.artifacts.schemas import PredictionStamp, TrainingStart
from comp.artifacts.stamps import digest, read_stamp
from comp.config.loading import problem
from comp.config.recipe import Recipe
from comp.errors import CompError


@dataclass(frozen=True)
class RunMetadata:
    name: str
    recipe: Recipe | None  # the trained recipe; None if no fold's files contain it
    views: tuple[str, ...]
    folds: tuple[int, ...]  # the folds whose networks made the predictions
    changed: tuple[int, ...]  # folds that were trained or predicted again since


def members_of(name: str, made: Mapping[str, Any]) -> list[str]:
    """Return the names of the runs whose networks predicted, by the stamp of oof.npz."""
    return list(made["members"]) if "how" in made else [name]


def metadata_of(name: str, made: Mapping[str, Any]) -> RunMetadata:
    """Return the metadata of a run that is not a blend; `made` is the stamp of its oof.npz."""
    recipe, views, folds, changed = None, (), [], []
    for fold in made["folds"]:
        path = started_path(name, fold)
        started = read_json(path, TrainingStart) if path.exists() else {"recipe": {"n_folds": fold + 1}}
        predicted = predicted_paths(name, fold, started["recipe"]["n_folds"])
        stamps = [read_stamp(p, PredictionStamp) or {} for p in predicted]
        trained = digest(started.get("stamp")) == stamps[0].get("train")
        if not trained or digest(stamps) != made["members"][f"fold {fold}"]:
            changed.append(fold)
            continue
        folds.append(fold)
        if recipe is None:
            try:
                recipe = Recipe.model_validate(started["recipe"])
            except ValidationError as error:
                raise CompError(f"{path}: its recipe can't be read ({problem(error)})") from error
            views = tuple(stamps[0].get("views", ()))
    return RunMetadata(name, recipe, views, tuple(folds), tuple(changed))
