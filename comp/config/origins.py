"""A recipe with all its keys, and where each value comes from: a file, --set, or the default; and those that
differ from the defaults, or from a recipe that ships with comp."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from comp.config.answers import default_loss
from comp.config.loading import PACKAGE_DIR, _find, _toml, _toml_key, load_recipe, read_toml, shipped
from comp.config.recipe import Recipe

COMMENT_COLUMN = 60  # where the origins begin
NOT_LISTED = {"name", "competition", "members", "code", "tune", "track"}  # of the keys that differ
WIDEST_GAP = 100  # characters; longer values have their origin right behind them


def describe_recipe(name: str, overrides: Sequence[str] = ()) -> str:
    """Return the resolved recipe as TOML that `load_recipe` reads back, with the origin of each value as a
    comment. Keys without a value are comments too. Raise CompError for what `load_recipe` refuses."""
    recipe = load_recipe(name, overrides)
    layers = list(_layers(name))
    origin: dict[str, str] = {}
    for label, content in layers:
        for key, value in content.items():
            _note(key, value, label, origin)
    for override in overrides:
        dotted = override.partition("=")[0].strip()
        for key in [key for key in origin if key.startswith(f"{dotted}.")]:
            del origin[key]
        origin[dotted] = "--set"
    origin.setdefault("name", "the file's name")
    origin.setdefault("competition.name", "the file's name")
    origin["code"] = "the files that keys name"
    content = recipe.model_dump(mode="json")
    if recipe.members:  # as written: resolved, each would repeat the recipe
        content["members"] = next(c["members"] for _, c in reversed(layers) if "members" in c)
    lines = []
    for text, shown in _lines(content, ""):
        gap = COMMENT_COLUMN if len(text) < WIDEST_GAP else 0
        lines.append(text if shown is None else f"{text:<{gap}}  # {_origin_of(shown, origin)}")
    return "\n".join(lines) + "\n"


def values_set(recipe: Recipe) -> dict[str, str]:
    """Return the values, as TOML, of the keys of training and deciding that differ from their defaults."""
    content = recipe.model_dump(mode="json", exclude_defaults=True, exclude_none=True, exclude=NOT_LISTED)
    images = recipe.competition.images
    by_competition = {"loss": default_loss(recipe.competition), "channels": list(images.channel_names)}
    return {key: _toml(value) for key, value in content.items() if value != by_competition.get(key)}


def closest_shipped(recipe: Recipe) -> Recipe | None:
    """Return the recipe that ships with comp, of the same competition, from which the fewest keys differ; of
    several, the one of the same name. None where none ships."""
    ours = values_set(recipe)

    def distance(other: Recipe) -> tuple[int, bool]:
        theirs = values_set(other)
        return sum(ours.get(key) != theirs.get(key) for key in ours | theirs), other.name != recipe.name

    found = [load_recipe(str(path)) for path in shipped("recipes").values()]
    found = [other for other in found if other.competition.name == recipe.competition.name]
    return min(found, key=distance, default=None)


def _layers(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (label, content) of the files that a recipe is made of, from the one that others replace keys of
    to the recipe's own. A competition's file comes first."""
    path, layers = _find(name, "recipes", Path()), []
    competition: tuple[str, Path] | None = None
    while True:
        content = read_toml(path)
        if "labels" in content and "images" in content:
            layers.append((_label(path), {"competition": content}))
            break
        named = content.pop("competition", None)
        if isinstance(named, str):
            competition = competition or (named, path.parent)
        elif named is not None:
            content["competition"] = named
        parent = content.pop("extends", None)
        layers.append((_label(path), content))
        if parent is None:
            break
        path = _find(parent, "recipes", path.parent)
        layers[-1][1].pop("name", None) if len(layers) > 1 else None
    if competition:
        file = _find(competition[0], "competitions", competition[1])
        yield _label(file), {"competition": read_toml(file)}
    yield from reversed(layers)


def _label(path: Path) -> str:
    if path.is_relative_to(PACKAGE_DIR):
        return f"{path.parent.name.removesuffix('s')} {path.stem}"
    return str(path)


def _note(key: str, value: Any, label: str, origin: dict[str, str]) -> None:
    """Note that `label` sets a key. A table adds to its keys; anything else replaces them."""
    if isinstance(value, dict) and value:
        origin.pop(key, None)
        for name, item in value.items():
            _note(f"{key}.{name}", item, label, origin)
        return
    for old in [old for old in origin if old.startswith(f"{key}.")]:
        del origin[old]
    origin[key] = label
    if isinstance(value, list) and value and isinstance(value[0], dict):
        del origin[key]
        for number, item in enumerate(value):
            _note(f"{key}.{number}", item, label, origin)


def _origin_of(key: str, origin: dict[str, str]) -> str:
    """Return the origin of a key, or of the table that it was set with as a whole."""
    while key not in origin and "." in key:
        parent = key.rpartition(".")[0]
        if origin.get(parent) not in (None, "--set"):
            break
        key = parent
    return origin.get(key, "default")


def _lines(table: dict[str, Any], prefix: str) -> Iterator[tuple[str, str | None]]:
    """Yield (a line of TOML, its key or None): values first, then tables."""
    inner = {}
    for name, value in table.items():
        is_list = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
        if is_list or (isinstance(value, dict) and f"{prefix}{name}" != "tune"):
            inner[name] = value
        elif value is None:
            yield f"# {name} is unset", f"{prefix}{name}"
        else:
            yield f"{_toml_key(name)} = {_toml(value)}", f"{prefix}{name}"
    for name, value in inner.items():
        if isinstance(value, dict):
            yield f"\n[{prefix}{name}]", None
            yield from _lines(value, f"{prefix}{name}.")
            continue
        for number, item in enumerate(value):
            yield f"\n[[{prefix}{name}]]", None
            yield from _lines(item, f"{prefix}{name}.{number}.")
