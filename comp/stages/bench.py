"""bench: what this machine makes of it: `decide` of threshold searches and rules, `speed` of a recipe's
images, training and prediction, `tricks` of a recipe with and without each of them."""

import importlib
from pathlib import Path

from comp.config import load_recipe


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
    if subject == "decide":
        importlib.import_module("comp.bench_decisions").run(probs=probs, labels=labels, large=large)
    elif subject == "tricks":
        path = Path(tricks) if tricks else None
        importlib.import_module("comp.bench_tricks").run(recipe, overrides, path, images, seeds)
    else:
        importlib.import_module("comp.bench_speed").run(load_recipe(recipe, overrides), fastai=fastai)
