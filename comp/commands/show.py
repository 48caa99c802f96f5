"""show: the resolved recipe as TOML, with where each value comes from."""

from collections.abc import Sequence

from comp.artifacts.paths import run_recipes
from comp.config.origins import describe_recipe
from comp.safe_text import without_secrets


def run(*, recipe: str, overrides: Sequence[str]) -> None:
    begun = run_recipes()
    name = str(begun[recipe]) if recipe in begun else recipe
    print(without_secrets(describe_recipe(name, overrides)), end="")
