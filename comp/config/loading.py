"""Read recipes and competitions from TOML files and --set: `extends`, members, checks, "did you mean"."""

import json
import re
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ValidationError,
)

from comp.config.competition import Competition
from comp.config.recipe import Recipe
from comp.config.schema import did_you_mean
from comp.errors import CompError, summarize
from comp.user_code import beside, collect, is_reference, keep_used, merge_code

PACKAGE_DIR = Path(__file__).parents[1]
MAX_SHOWN = 200  # characters of a wrong value in a message


# --- reading ------------------------------------------------------------------------------------------------


def shipped(kind: Literal["recipes", "competitions"]) -> dict[str, Path]:
    """Return the TOML files that come with comp, by name."""
    return {path.stem: path for path in sorted((PACKAGE_DIR / kind).glob("*.toml"))}


def load_competition(name: str, relative_to: Path = Path()) -> Competition:
    """Return a competition by name, or by the path of its TOML file. Raise CompError if it is unknown or
    wrong."""
    path = _find(name, "competitions", relative_to)
    content = {"name": path.stem, **read_toml(path)}
    metric = content.get("metric")
    if isinstance(metric, dict) and isinstance(metric.get("name"), str) and is_reference(metric["name"]):
        content["metric"] = {**metric, "name": beside(metric["name"], path.parent)}
    return validated(Competition, _with_corrections(content, path.parent), path)


def load_recipe(
    name: str, overrides: typing.Sequence[str] = (), runs: typing.Mapping[str, Path] | None = None
) -> Recipe:
    """Return a recipe by name or path, with `key.path=value` overrides applied. The path of a competition's
    TOML file, or its name, means the default recipe for that competition. `runs` holds the recipes of runs by
    name; they come before shipped ones.

    Raise CompError for an unknown name, key or value."""
    path = _find(name, "recipes", Path(), runs)
    content = _read_extended(path, seen=())
    if "competition" not in content:
        raise CompError(
            f"{path}: no competition; add competition = NAME or FILE.toml, or extend another recipe"
        )
    content = {"name": path.stem, **content}
    for override in overrides:
        _apply(override, content)
    if isinstance(content["competition"], str):
        content["competition"] = load_competition(content["competition"]).model_dump(mode="json")
    # what --set and the competition name; other files' own references are read already
    content = collect(content, Path())
    content["competition"] = _with_corrections(content["competition"], Path())
    if content.get("members"):
        content["members"] = _members(content, path)
    for part in (content, *content.get("members", ())):
        keep_used(part)
    return validated(Recipe, content, f"{path} with --set" if overrides else path)


def _members(content: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """Return the content of each member's recipe: the main recipe's keys, replaced by the member's. Its name
    is the main recipe's name, followed by the member's name or backbone."""
    listed = content["members"]
    if not isinstance(listed, list) or len(listed) < 2 or not all(isinstance(m, dict) for m in listed):
        raise CompError(f"{path}: members is {listed!r}; at least two tables [[members]] are expected")
    base = {key: value for key, value in content.items() if key != "members"}
    answer = []
    for number, member in enumerate(listed):
        for key in ("competition", "n_folds", "seed", "full", "members"):
            if member.get(key, base.get(key)) != base.get(key):
                raise CompError(f"{path}: members.{number}.{key} differs; all members need the same {key}")
        both = _merged(base, member)
        own = member.get("name") or both.get("backbone", Recipe.model_fields["backbone"].default)
        both["name"] = own if own.startswith(f"{base['name']}-") else f"{base['name']}-{own}"
        answer.append(both)
    names = [member["name"] for member in answer]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise CompError(f"{path}: two members are named {twice}; give each its own name")
    return answer


def with_values(recipe: Recipe, values: typing.Mapping[str, Any]) -> Recipe:
    """Return the recipe with dotted keys set, as by --set. Raise CompError for an unknown key or value."""
    content = recipe.model_dump(mode="json")
    for key, value in values.items():
        _apply(f"{key}={_toml(value)}", content, "[tune]")
    content["competition"] = _with_corrections(content["competition"], Path())
    return validated(Recipe, content, "[tune]")


def as_overrides(values: typing.Mapping[str, Any]) -> list[str]:
    """Return values by dotted keys as --set takes them."""
    return [f"{key}={_toml(value)}" for key, value in values.items()]


def toml_text(recipe: Recipe) -> str:
    """Return the recipe as TOML that `load_recipe` reads back. It extends nothing and holds its
    competition."""
    content = recipe.model_dump(mode="json", exclude_none=True)
    for member in content["members"]:
        del member["members"]
    return "".join(f"{key} = {_toml(value)}\n" for key, value in content.items())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml_key(key)} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        rows = [_toml(item) for item in value]
        tables = any(isinstance(item, dict) for item in value)
        return "[\n" + "".join(f"  {row},\n" for row in rows) + "]" if tables else f"[{', '.join(rows)}]"
    if isinstance(value, str) and "\n" in value:
        text = value.replace("\\", "\\\\").replace('"""', '""\\"')
        text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", lambda found: f"\\u{ord(found[0]):04x}", text)
        return '"""\n' + (f'{text[:-1]}\\"' if text.endswith('"') else text) + '"""'
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else _toml(name)


def _find(
    name: str,
    kind: Literal["recipes", "competitions"],
    relative_to: Path,
    runs: typing.Mapping[str, Path] | None = None,
) -> Path:
    if name.endswith(".toml"):
        path = relative_to / name
        if not path.is_file():
            raise CompError(f"{path}: no such file")
        return path
    ours = shipped("competitions") | shipped(kind)  # a competition without a recipe of its own is one
    names = {**ours, **(runs or {})}
    if name not in names:
        hint = did_you_mean(name, names)
        known = f"; there are {', '.join(ours)}"
        if own := [run for run in runs or () if run not in ours]:
            known += f", the runs {summarize(own, 8)}"
        raise CompError(f"no {kind[:-1]} {name!r}{hint}{known}, or give a TOML file by path")
    return names[name]


def read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CompError(f"{path} is not TOML: {error}") from error


def _read_extended(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """Return a recipe's keys merged over those of the recipe it extends: tables are merged, lists
    replaced."""
    if path.resolve() in seen:
        raise CompError(f"{path} extends itself")
    content = read_toml(path)
    if "labels" in content and "images" in content:  # a competition: the default recipe for it
        return {"name": content.get("name", path.stem), "competition": str(path)}
    if isinstance(content.get("competition"), str) and content["competition"].endswith(".toml"):
        content["competition"] = str(path.parent / content["competition"])
    if isinstance(content.get("weights"), str) and not Path(content["weights"]).is_absolute():
        content["weights"] = str(path.parent / content["weights"])
    content = collect(content, path.parent)
    if "competition" in content:
        content["competition"] = _with_corrections(content["competition"], path.parent)
    parent = content.pop("extends", None)
    if parent is None:
        return content
    if not isinstance(parent, str):
        raise CompError(f"{path}: extends is {parent!r}; one recipe's name or file is expected")
    base = _read_extended(_find(parent, "recipes", path.parent), (*seen, path.resolve()))
    base.pop("name", None)
    merge_code(base, content, path)
    own = content.get("competition")
    if isinstance(own, dict) and "name" not in own and isinstance(base.get("competition"), str):
        base["competition"] = _written(base["competition"])
    return _merged(base, content)


def _written(competition: str) -> dict[str, Any]:
    """Return a competition's keys as its file has them, without defaults: these may depend on keys that are
    overridden."""
    return load_competition(competition).model_dump(mode="json", exclude_unset=True)


def _with_corrections(competition: Any, folder: Path) -> Any:
    """Return a competition's keys with the text of the CSV that labels.corrections names, relative to
    `folder`: a run keeps the corrections that it is trained with, and a kernel has them. A path has no line
    ends, so a text stays as it is."""
    labels = competition.get("labels") if isinstance(competition, dict) else None
    if not isinstance(labels, dict):
        return competition
    name = labels.get("corrections")
    if not isinstance(name, str) or not name or "\n" in name:
        return competition
    path = folder / name
    if path.suffix.lower() != ".csv":
        raise CompError(f"labels.corrections = {name!r}: the name of a .csv file is expected")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8; save it as UTF-8"
        raise CompError(f"{path}: {reason}; labels.corrections names this file") from error
    return {**competition, "labels": {**labels, "corrections": text.rstrip("\n") + "\n"}}


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in over.items():
        under = _as_table(base.get(key)) if key == "augment" else base.get(key)
        both[key] = _merged(under, value) if isinstance(value, dict) and isinstance(under, dict) else value
    return both


def _as_table(augment: Any) -> Any:
    """Return the augmentation as a table, so that keys can be added to it."""
    return {"extends": augment} if isinstance(augment, str) else augment


def _apply(override: str, content: dict[str, Any], option: str = "--set") -> None:
    """Set `a.0.b=value` in `content`; a value that is not TOML is text. Messages name `option`."""
    dotted, equals, text = override.partition("=")
    if not equals:
        raise CompError(f"{option} {override}: expected KEY=VALUE, for example phases.0.epochs=2")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = dotted.strip().split(".")
    place: Any = content
    if parents and parents[0] == "competition" and isinstance(content["competition"], str):
        content["competition"] = _written(content["competition"])
    if parents and parents[0] == "augment":
        content["augment"] = _as_table(content.get("augment", {}))
    if parents and parents[0] == "phases" and "phases" not in content:
        content["phases"] = [phase.model_dump() for phase in Recipe.model_fields["phases"].default]
    for key in parents:
        if isinstance(place, list | tuple):
            if not key.isdigit() or int(key) >= len(place):
                raise CompError(
                    f"{option} {override}: there is no {dotted!r} (a list of {len(place)}, counted from 0)"
                )
            place = place[int(key)]
        else:
            place = place.setdefault(key, {})
        if not isinstance(place, dict | list | tuple):
            raise CompError(f"{option} {override}: {key!r} is a value and has no keys")
    if isinstance(place, list):
        if not last.isdigit() or int(last) >= len(place):
            raise CompError(
                f"{option} {override}: there is no {dotted!r} (a list of {len(place)}, counted from 0)"
            )
        place[int(last)] = value
    else:
        place[last] = value


def validated(model: type[BaseModel], content: dict[str, Any], path: Path | str) -> Any:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _keys_at(model, first["loc"][:-1])
            hint = did_you_mean(str(first["loc"][-1]), known) or f"; known are {', '.join(known)}"
            raise CompError(f"{path}: unknown key {where!r}{hint}") from error
        raise CompError(f"{path}: {problem(error)}") from error


def problem(error: ValidationError) -> str:
    """Return the first problem in one line: which key, what was expected, what was found."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"{where!r} is missing"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    found = (
        ""
        if first["type"] in ("value_error", "json_invalid")
        else f", found {shortened(repr(first['input']))}"
    )
    return f"{f'{where!r}: ' if where else ''}{message}{found}"


def shortened(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _keys_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """Return the keys that the table at `location` may have."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for arg in typing.get_args(annotation) if (found := _model_in(arg))), None)
