"""The search space of `comp tune`: which keys and values a recipe's [tune] table searches."""

import itertools
from typing import Any

from pydantic import BaseModel

from comp.config.loading import with_values
from comp.config.recipe import Recipe
from comp.errors import CompError
from comp.training.model_stamp import IN_STAMP

TUNABLE = IN_STAMP - {"seed", "n_folds"}  # those two change the rows that are scored


def distributions(recipe: Recipe) -> dict[str, Any]:
    """Return Optuna's distribution for each key of the recipe's [tune] table; integer keys get integers.
    Raise CompError for an unknown key, for values that are invalid alone or in pairs, and if the recipe's own
    value is outside of the range or choices."""
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
            raise CompError(f"[tune]: {key!r} can't be searched; keys that can are {known}")
        own = read_value(recipe, key)
        if space.low is None or space.high is None:
            found[key] = CategoricalDistribution(space.choices)
            fits = own in space.choices
        else:
            kind: Any = IntDistribution if isinstance(own, int) else FloatDistribution
            found[key] = kind(space.low, space.high, log=space.log)
            fits = own is not None and space.low <= own <= space.high
        if not fits:
            raise CompError(
                f"[tune]: the recipe's own {key} = {own} is not among the values; the search begins with it, "
                f"so add it or set another {key}"
            )
    for corner in corner_values(recipe, 2):
        with_values(recipe, corner)
    return found


def corner_values(recipe: Recipe, n_keys: int) -> list[dict[str, Any]]:
    """Return each way to set `n_keys` of the tuned keys to an end of their range or to a choice."""
    ends = {key: space.choices or (space.low, space.high) for key, space in recipe.tune.items()}
    return [
        dict(zip(keys, values))
        for keys in itertools.combinations(ends, n_keys)
        for values in itertools.product(*(ends[key] for key in keys))
    ]


def read_value(recipe: Recipe, key: str) -> Any:
    """Return the value of a dotted key. Keys of tables that are written by name, such as `augment`, work
    too."""
    value: Any = recipe
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, tuple) else getattr(value, part)
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def round_values(recipe: Recipe, params: dict[str, Any]) -> dict[str, Any]:
    """Return the values to train with, rounded to 4 digits, so that the printed values are the trained ones.
    The recipe's own values are not rounded."""
    values = {}
    for key, value in params.items():
        if isinstance(value, float) and value != read_value(recipe, key):
            low, high = recipe.tune[key].low, recipe.tune[key].high
            value = float(f"{value:.4g}")
            value = value if low is None or high is None else min(max(value, low), high)
        values[key] = value
    return values


def text(values: dict[str, Any]) -> str:
    """Return values as text, such as 'phases.0.lr 0.003, augment satellite'."""
    return ", ".join(f"{key} {short(value)}" for key, value in values.items())


def short(value: Any) -> str:
    """Return a value as text, floats with 4 digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
