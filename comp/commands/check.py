"""check: what this machine has, and whether training on it is right, resumable and fast.

Reads a recipe for its network and batch sizes; writes runs/check.json.
"""

from comp.config.recipe import Recipe
from comp.console import announce_if_slow


def run(recipe: Recipe, *, budget: float) -> None:
    with announce_if_slow("check: loading its libraries"):
        from comp.benchmarks import check
    check.run(recipe, budget=budget)
