"""What all settings share: a strict base model, types, "did you mean", and old names."""

import difflib
import functools
import typing
from pathlib import PurePosixPath
from string import Formatter
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from comp.console import info

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # names become file names


def as_list(value: Any) -> Any:
    """Read a single text as a list of one."""
    return [value] if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(as_list)]


def _without_folders(value: tuple[str, ...]) -> tuple[str, ...]:
    if found := [name for name in value if "/" in name or name in ("", ".", "..")]:
        raise ValueError(
            f"{found[0]!r}: a file name without folders is expected; all folders are searched for it"
        )
    return value


Files = Annotated[Texts, AfterValidator(_without_folders)]


def _plain(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(PurePosixPath(template.replace("\\", "/"))) for template in value)


Templates = Annotated[Texts, AfterValidator(_plain)]  # a\{id}.png and ./a//{id}.png become a/{id}.png


class Strict(BaseModel):
    """Settings that refuse unknown keys, and numbers that are not finite. The text below a field is what
    `comp keys` prints of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


def check_fields(template: str) -> str:
    """Return the template of a file's name. Raise ValueError unless it holds {id}, and of other fields only
    {channel}."""
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
        raise ValueError(
            f"image template {template!r} holds {wrong[0]}; only {{id}} and {{channel}} are allowed"
        )
    return template


def table_as_list(value: Any) -> Any:
    """Read a single table as a list of one."""
    return [value] if isinstance(value, dict) else value


def run_as_table(value: Any) -> Any:
    """Read a run's name as a table of pseudo-label settings."""
    return {"run": value} if isinstance(value, str) else value


def did_you_mean(name: str, known: typing.Iterable[str]) -> str:
    """Return '; did you mean ...?' with the most similar known name; '' if none is similar."""
    match = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"; did you mean {match[0]!r}?" if match else ""


def current_rule(name: str, *, warn: bool = True) -> str:
    """Return the rule's name, with `shrunk` for its old name `drawn`; say so once unless `warn` is False."""
    base, *extras = name.split("+")
    if base != "drawn":
        return name
    if warn:
        warn_of_old_name("rule drawn", "shrunk")
    return "+".join(["shrunk", *extras])


@functools.cache
def warn_of_old_name(old: str, new: str) -> None:
    """Print, once per process, that `old` is read as `new`."""
    info(f"warning: {old} is now called {new}; the old name is still read")
