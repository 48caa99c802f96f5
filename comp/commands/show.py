"""show: the resolved recipe as TOML, with where each value comes from."""

from collections.abc import Sequence

from comp.config.origins import describe_recipe
from comp.safe_text import without_secrets


def run(name: str, overrides: Sequence[str]) -> None:
    print(without_secrets(describe_recipe(name, overrides)), end="")
