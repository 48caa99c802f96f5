"""bench: what this machine makes of it: `decide` of threshold searches and rules, `speed` of a recipe's
images, training and prediction."""

import importlib

from comp.config import Recipe


def run(
    *, subject: str, recipe: Recipe, probs: str | None, labels: str | None, large: bool, fastai: str | None
) -> None:
    if subject == "decide":
        importlib.import_module("comp.bench_decisions").run(probs=probs, labels=labels, large=large)
    else:
        importlib.import_module("comp.bench_speed").run(recipe, fastai=fastai)
