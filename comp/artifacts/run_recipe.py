"""runs/<name>/recipe.toml: the settings of a run, kept by its first stage and read by all later ones."""

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from comp.artifacts.files import write_text
from comp.artifacts.paths import has_results, run_recipe_path, run_recipes
from comp.artifacts.stamps import difference
from comp.config.loading import load_recipe, toml_text
from comp.config.recipe import Recipe
from comp.errors import CompError


def read_recipe(name: str, overrides: Sequence[str] = (), run: str | None = None) -> Recipe:
    """Return the recipe that a command line names: that of a run, a shipped one, or a TOML file by its path.

    A run's name comes before a shipped recipe's: the run keeps the settings that it began with. `overrides`
    are KEY=VALUE; `run` names the run instead of the recipe, and alone it means the run of this name if it
    has begun. Raise CompError for an unknown name, key or value."""
    begun = run_recipes()
    if run in begun and not overrides:
        return load_recipe(run, runs=begun)
    return load_recipe(name, [*overrides, *([f"name={run}"] if run else [])], runs=begun)


@contextlib.contextmanager
def frozen(recipe: Recipe, *, force: bool, fixed: Collection[str] = ()) -> Iterator[None]:
    """Keep the recipe as the settings of the run of its name, and of its members' runs, while a stage runs
    inside the `with` block. Raise CompError, unless `force`, if a run with results has another value of one
    of the keys `fixed`, which are those that the stage does not compare with its files.

    A run without results, or `force`, takes the settings at once, so that a killed stage resumes with them.
    Else they are taken once the stage has ended well: it refuses those that do not fit its files. A refused
    stage leaves no settings behind."""
    if os.environ.get("RANK", "0") != "0":  # of torchrun's processes the first one writes
        yield
        return
    everyone = (*recipe.members, recipe)
    before = {one.name: _read(run_recipe_path(one.name)) for one in everyone}
    for one in everyone if fixed and not force else ():
        if before[one.name] and has_results(one.name):
            _check_same(one, load_recipe(str(run_recipe_path(one.name))), fixed)
    for one in everyone:
        if force or not has_results(one.name):
            _write(one)
    try:
        yield
    except CompError:
        for name, text in before.items():
            if not has_results(name):
                _restore(run_recipe_path(name), text)
        raise
    for one in everyone:
        _write(one)


def recipe_text(recipe: Recipe) -> str:
    """Return the content of a run's recipe.toml. A path of weights is relative to the run's folder."""
    if recipe.weights and not Path(recipe.weights).is_absolute():
        weights = os.path.relpath(recipe.weights, run_recipe_path(recipe.name).parent)
        recipe = recipe.model_copy(update={"weights": weights})
    return toml_text(recipe)


def _check_same(now: Recipe, before: Recipe, keys: Collection[str]) -> None:
    found, wanted = (one.model_dump(mode="json", include=set(keys)) for one in (before, now))
    if found != wanted:
        raise CompError(
            f"the run {now.name} has {difference(found, wanted)}; --as NAME keeps both, --force replaces it"
        )


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _write(recipe: Recipe) -> None:
    path, text = run_recipe_path(recipe.name), recipe_text(recipe)
    if _read(path) != text:
        write_text(path, text)


def _restore(path: Path, text: str | None) -> None:
    if text is not None:
        write_text(path, text)
        return
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a folder with other files stays
        path.parent.rmdir()
        path.parent.parent.rmdir()
