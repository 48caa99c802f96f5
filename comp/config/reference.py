"""All keys of a recipe with type, default and a line each, as the settings' own fields have them."""

import json
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from comp.config.augment import Augment
from comp.config.recipe import Recipe

TYPES = {bool: "true or false", int: "whole number", float: "number", str: "text", Any: "any value"}
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
NOT_LISTED = ("members", "tune")  # tables whose keys are those of a recipe, or names of keys


@dataclass(frozen=True)
class Key:
    """A key as --set takes it. `text` says what it is, `table` what the table is that it belongs to."""

    name: str
    type: str
    value: str  # the default as TOML has it; "" if there is none
    note: str  # the default in words, if there is no value: "required", "unset", "the file's name"
    text: str
    table: str

    @property
    def last(self) -> str:
        """The key's name in its table."""
        return self.name.rpartition(".")[2]


def list_keys() -> list[Key]:
    """Return every key of a recipe, of its competition and of its lists, whose first items have number 0."""
    return list(_keys_of(Recipe, ""))


def markdown(keys: list[Key]) -> str:
    """Return the keys as Markdown: a heading and a table for each table of keys."""
    lines = [
        "# Keys of a recipe\n",
        "`comp keys --markdown` writes this page from the code; `comp keys WORD` prints a part of it. Names "
        "are as\n`--set` takes them. In a competition's own TOML file they begin after `competition.`\n",
    ]
    for table in dict.fromkeys(key.table for key in keys):
        lines += [f"## {table}\n", "| key | type | default | what it is |", "|---|---|---|---|"]
        for key in (key for key in keys if key.table == table):
            cells = (f"`{key.name}`", key.type, f"`{key.value}`" if key.value else key.note, key.text)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _keys_of(model: type[BaseModel], prefix: str) -> Iterator[Key]:
    """Yield the keys of a table, then those of the tables in it."""
    inner = []
    for name, field in model.model_fields.items():
        found = _models_in(field.annotation) if name not in NOT_LISTED else []
        text, value, note = _text_and_default(field)
        table = " ".join((model.__doc__ or "").split()).split(". ")[0].rstrip(".")
        yield Key(f"{prefix}{name}", _type_text(field), value, note, text, table)
        is_list = typing.get_origin(field.annotation) is tuple
        inner += [(part, f"{prefix}{name}.{'0.' if is_list else ''}") for part in found]
    for part, deeper in inner:
        yield from _keys_of(part, deeper)


def _text_and_default(field: FieldInfo) -> tuple[str, str, str]:
    """Return the field's text, its default as TOML has it, and its default in words. A default that depends
    on other keys is in the field's text: "…; default: the file's name."."""
    text = " ".join((field.description or "").split())
    for mark in ("; default: ", " Default: "):
        head, found, words = text.partition(mark)
        if found:
            return head.rstrip(".") + ".", "", words.rstrip(".")
    if field.is_required():
        return text, "", "required"
    if field.default is None:
        return text, "", "unset"
    if isinstance(field.default, tuple) and field.default and isinstance(field.default[0], BaseModel):
        return text, "", f"{len(field.default)} tables"
    return text, _toml_text(field.default), ""


def _toml_text(value: Any) -> str:
    if isinstance(value, Augment):
        value = value.extends
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml_text, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value)


def _type_text(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {value:g}"
        for limit in field.metadata
        for name, sign in SIGNS.items()
        if isinstance(value := getattr(limit, name, None), int | float)
    ]
    return ", ".join([" ".join([_kind(field.annotation), *bounds[:1]]), *bounds[1:]])


def _kind(annotation: Any) -> str:
    """Return the words for a type, such as "number" or "list of texts"."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(inner[0])
    if origin is Literal:
        return ", ".join(map(str, inner[:-1])) + f" or {inner[-1]}"
    if origin in (types.UnionType, typing.Union):
        kinds = list(dict.fromkeys(_kind(part) for part in inner if part is not type(None)))
        return "number" if set(kinds) == {"whole number", "number"} else " or ".join(kinds)
    if origin is tuple and inner[-1] is not ...:
        return f"{len(inner)} {_kind(inner[0])}s"
    if origin is tuple:
        return f"list of {_plural(_kind(inner[0]))}"
    if origin is dict or isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    return TYPES.get(annotation, "table")


def _plural(kind: str) -> str:
    if kind.startswith("list of "):
        return kind.replace("list", "lists", 1)
    return f"{kind}s" if kind in {*TYPES.values(), "table"} else kind


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [found for part in typing.get_args(annotation) for found in _models_in(part)]
