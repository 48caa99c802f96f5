"""comp: from joining a multi-label image competition on Kaggle to a scored submission.

The names below are the library. Each is imported on first use, so `import comp` is instant."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comp.api import (
        Run,
        blend,
        decide,
        download,
        duplicates,
        enter_kernel,
        folds,
        load_recipe,
        load_run,
        predict,
        run,
        runs,
        submit,
        train,
    )
    from comp.config.metric import Metric
    from comp.config.recipe import Recipe
    from comp.decision import Decision
    from comp.decisions.metrics import FBeta
    from comp.errors import CompError

__version__ = "0.1.0"
__all__ = [
    "CompError",
    "Decision",
    "FBeta",
    "Metric",
    "Recipe",
    "Run",
    "blend",
    "decide",
    "download",
    "duplicates",
    "enter_kernel",
    "folds",
    "load_recipe",
    "load_run",
    "predict",
    "run",
    "runs",
    "submit",
    "train",
]
_NOT_IN_API = {
    "CompError": "comp.errors",
    "Decision": "comp.decision",
    "FBeta": "comp.decisions.metrics",
    "Metric": "comp.config.metric",
    "Recipe": "comp.config.recipe",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'comp' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_NOT_IN_API.get(name, "comp.api")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
