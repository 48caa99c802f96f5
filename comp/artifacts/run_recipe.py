"""runs/<name>/recipe.toml: the settings of a run, frozen by its first stage and read by all later ones."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comp.artifacts.files import write_text
from comp.artifacts.paths import has_results, run_recipe_path, run_recipes
from comp.artifacts.stamps import difference, digest
from comp.config.loading import load_recipe, toml_text
from comp.config.recipe import Recipe
from comp.errors import CompError

# Keys that change no result, or only its rounding: a run takes new values of them at any time.
FREE_KEYS = frozenset({"track", "tune", "compile", "gradient_checkpointing", "predict_batch_size"})


def read_recipe(name: str, overrides: Sequence[str] = (), run: str | None = None) -> Recipe:
    """Return the recipe that a command line names: that of a run, a shipped one, or a TOML file by its path.

    A run's name comes before a shipped recipe's: the run keeps the settings that it began with. `overrides`
    are KEY=VALUE; `run` names the run instead of the recipe, and alone it means the run of this name if it
    has begun. Raise CompError for an unknown name, key or value."""
    begun = run_recipes()
    if run in begun and not overrides:
        return load_recipe(run, runs=begun)
    return load_recipe(name, [*overrides, *([f"name={run}"] if run else [])], runs=begun)


def freeze(recipe: Recipe, *, force: bool) -> None:
    """Write the recipe as the settings of the run of its name, and of its members' runs.

    A run without results takes any settings; one with results keeps its own, except for FREE_KEYS. Raise
    CompError where settings differ, unless `force`."""
    for one in (*recipe.members, recipe):
        path = run_recipe_path(one.name)
        text = recipe_text(one)
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        if path.is_file() and has_results(one.name) and not force:
            _check_same(one, load_recipe(str(path)))
        write_text(path, text)


def recipe_text(recipe: Recipe) -> str:
    """Return the content of a run's recipe.toml. A path of weights is relative to the run's folder."""
    if recipe.weights and not Path(recipe.weights).is_absolute():
        weights = os.path.relpath(recipe.weights, run_recipe_path(recipe.name).parent)
        recipe = recipe.model_copy(update={"weights": weights})
    return toml_text(recipe)


def _check_same(now: Recipe, before: Recipe) -> None:
    """Raise CompError where two recipes of one run differ in other keys than FREE_KEYS."""
    found, wanted = _settings(before), _settings(now)
    if found != wanted:
        raise CompError(
            f"the run {now.name} has {difference(found, wanted)}; --as NAME keeps both, --force replaces it, "
            f"and {now.name!r} instead of the TOML file means the run as it is"
        )


def _settings(recipe: Recipe) -> dict[str, Any]:
    content = recipe.model_dump(mode="json", exclude=set(FREE_KEYS))
    content["members"] = [_settings(member) for member in recipe.members]
    if recipe.weights:
        content["weights"] = str(Path(recipe.weights).resolve())
    content["code"] = {name: digest(text) for name, text in recipe.code.items()}
    return content
