"""bench: what this machine makes of it: `decide` of threshold searches and rules, `speed` of a recipe's
images, training and prediction, `tricks` of a recipe with and without each of them."""

import importlib
from pathlib import Path

from comp.config.loading import load_recipe
from comp.console import said_if_slow


def run(
    *,
    subject: str,
    recipe: str,
    overrides: list[str],
    probs: str | None,
    labels: str | None,
    large: bool,
    fastai: str | None,
    tricks: str | None,
    images: int,
    seeds: int,
) -> None:
    with said_if_slow("bench: loading its libraries"):
        bench = importlib.import_module(f"comp.bench_{'decisions' if subject == 'decide' else subject}")
    if subject == "decide":
        bench.run(probs=probs, labels=labels, large=large)
    elif subject == "tricks":
        bench.run(recipe, overrides, Path(tricks) if tricks else None, images, seeds)
    else:
        bench.run(load_recipe(recipe, overrides), fastai=fastai)
