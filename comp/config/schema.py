"""The strict base of all settings: names, lists of texts, "did you mean"."""

import difflib
import typing
from pathlib import PurePosixPath
from string import Formatter
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # names become file names


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]


def _without_folders(value: tuple[str, ...]) -> tuple[str, ...]:
    if found := [name for name in value if "/" in name or name in ("", ".", "..")]:
        raise ValueError(
            f"{found[0]!r}: a file's name without folders is expected; it is found in any of them"
        )
    return value


Files = Annotated[Texts, AfterValidator(_without_folders)]


def _plain(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(PurePosixPath(template.replace("\\", "/"))) for template in value)


Templates = Annotated[Texts, AfterValidator(_plain)]  # a\{id}.png and ./a//{id}.png are a/{id}.png


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def check_fields(template: str) -> str:
    """The template of a file's name, once it was found to hold {id}, and no other field than {channel}."""
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"image template {template!r}: {error}") from error
    fields = [
        f"{{{name}{'!' if how else ''}{how or ''}{':' if form else ''}{form}}}"
        for _, name, form, how in parts
    ]
    if "{id}" not in fields:
        raise ValueError(f"image template {template!r} lacks {{id}}")
    if wrong := sorted(set(fields) - {"{id}", "{channel}"}):
        raise ValueError(f"image template {template!r} holds {wrong[0]}; {{id}} and {{channel}} are known")
    return template


def _one(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def _of_run(value: Any) -> Any:
    return {"run": value} if isinstance(value, str) else value


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    match = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"; did you mean {match[0]!r}?" if match else ""
