"""What `comp tune` searches and how trials of different lengths are compared while they run."""

import itertools
from typing import Any

from pydantic import BaseModel

from comp.config.loading import with_values
from comp.config.recipe import Recipe
from comp.errors import CompError
from comp.training.model_stamp import READ_BY_TRAINING

TUNABLE = READ_BY_TRAINING - {"seed", "n_folds"}  # which say what the score is taken on


def distributions(recipe: Recipe) -> dict[str, Any]:
    """Optuna's distribution of each key of the recipe's [tune] table; keys that hold whole numbers get whole
    numbers. Raises CompError for an unknown key, for values that the recipe can't have, alone or in pairs,
    and where the recipe's own value is not among them."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not recipe.tune:
        raise CompError(
            f'{recipe.name} has no [tune] table; write one, such as "phases.0.lr" = '
            "{ low = 1e-4, high = 1e-2, log = true }"
        )
    found: dict[str, Any] = {}
    for key, space in recipe.tune.items():
        for end in space.choices or (space.low, space.high):
            with_values(recipe, {key: end})
        if key.split(".")[0] not in TUNABLE:
            known = ", ".join(sorted(TUNABLE))
            raise CompError(f"[tune]: {key!r} is no key of training that can be searched; those are {known}")
        own = value_at(recipe, key)
        if space.low is None or space.high is None:
            found[key] = CategoricalDistribution(space.choices)
            fits = own in space.choices
        else:
            kind: Any = IntDistribution if isinstance(own, int) else FloatDistribution
            found[key] = kind(space.low, space.high, log=space.log)
            fits = own is not None and space.low <= own <= space.high
        if not fits:
            raise CompError(
                f"[tune]: the recipe's own {key} = {own} is not among the values to try, which the search "
                f"begins with; take it in, or set another {key}"
            )
    for corner in corners(recipe, 2):
        with_values(recipe, corner)
    return found


def corners(recipe: Recipe, n_keys: int) -> list[dict[str, Any]]:
    """Each way to set `n_keys` of the tuned keys to an end of their range or to a choice."""
    ends = {key: space.choices or (space.low, space.high) for key, space in recipe.tune.items()}
    return [
        dict(zip(keys, values))
        for keys in itertools.combinations(ends, n_keys)
        for values in itertools.product(*(ends[key] for key in keys))
    ]


def value_at(recipe: Recipe, key: str) -> Any:
    """What a dotted key holds, also where a table that is written down by its name leaves it out."""
    value: Any = recipe
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, tuple) else getattr(value, part)
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def rounded(recipe: Recipe, params: dict[str, Any]) -> dict[str, Any]:
    """Values to train with, at 4 digits, so that what is printed is what was trained; the recipe's own stay
    as they are."""
    values = {}
    for key, value in params.items():
        if isinstance(value, float) and value != value_at(recipe, key):
            low, high = recipe.tune[key].low, recipe.tune[key].high
            value = float(f"{value:.4g}")
            value = value if low is None or high is None else min(max(value, low), high)
        values[key] = value
    return values


def text(values: dict[str, Any]) -> str:
    """'phases.0.lr 0.003, augment satellite'."""
    return ", ".join(f"{key} {short(value)}" for key, value in values.items())


def short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
