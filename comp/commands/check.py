"""check: what this machine has, and whether training on it is right, resumable and fast.

Reads a recipe for its network and batch sizes; writes runs/check.json.
"""

from comp.benchmarks import check
from comp.config.recipe import Recipe


def run(recipe: Recipe, *, budget: float) -> None:
    check.run(recipe, budget=budget)
