"""bench: benchmark this machine. `decide`: threshold searches and rules; `speed`: images, training and
prediction; `tricks`: an ablation of a recipe's settings."""

from pathlib import Path
from typing import Any

from comp.artifacts.run_recipe import read_recipe
from comp.console import announce_if_slow


def run(*, subject: str, recipe: str, overrides: list[str], **options: Any) -> None:
    """Run the benchmark `subject`; each reads its own of the command-line `options`."""
    with announce_if_slow("bench: loading its libraries"):
        from comp.benchmarks import ablation, decisions, speed
    if subject == "decide":
        decisions.run(**{name: options[name] for name in ("probs", "labels", "large")})
    elif subject == "tricks":
        tricks = Path(options["tricks"]) if options["tricks"] else None
        ablation.run(recipe, overrides, tricks, options["images"], options["seeds"])
    else:
        speed.run(read_recipe(recipe, overrides), fastai=options["fastai"])
