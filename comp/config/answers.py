"""Keys of a recipe that depend on the kind of answer that its competition's metric scores."""

from typing import Any

from comp.config.competition import Competition

OF_LABELS = {"class_weights": "none", "oversample": 0.0, "balanced": False, "label_smoothing": 0.0}


def default_loss(competition: Competition) -> str:
    """Return the loss that suits a competition's answers."""
    kind = competition.metric.kind
    of_kind = {"numbers": "mse", "grades": "emd"}
    return of_kind.get(kind, "groups" if competition.labels.single else "bce")


def check_keys_of_answers(recipe: Any) -> None:
    """Raise ValueError where keys of a recipe don't suit the kind of answer."""
    labels, metric = recipe.competition.labels, recipe.competition.metric
    if recipe.y_range and metric.kind != "numbers":
        raise ValueError(f"y_range is for numbers; {metric} scores {metric.kind}")
    if recipe.y_range and not recipe.y_range[0] < recipe.y_range[1]:
        raise ValueError(f"y_range: low below high is expected, found {list(recipe.y_range)}")
    if recipe.balanced and recipe.oversample:
        raise ValueError("balanced and oversample exclude each other; remove one")
    if recipe.balanced and not labels.single and len(labels.classes) != 1:
        raise ValueError("balanced needs exactly one label per image; use oversample")
    for key, default in OF_LABELS.items() if metric.kind == "numbers" else ():
        if getattr(recipe, key) != default:
            raise ValueError(f"{key} is for labels; {metric} scores numbers")
