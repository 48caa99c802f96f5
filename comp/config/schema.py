"""What all settings share: a strict base model, types, "did you mean", and old names."""

import difflib
import functools
import re
import typing
from pathlib import PurePosixPath
from string import Formatter
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from comp.console import info

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # names become file names


def as_list(value: Any) -> Any:
    """Read a single text as a list of one."""
    return [value] if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(as_list)]


def _plain(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(PurePosixPath(template.replace("\\", "/"))) for template in value)


def _below_a_folder(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if name in ("", ".") or name.startswith("/") or ".." in name.split("/"):
            raise ValueError(
                f"{name!r}: a file name is expected, such as train.csv or train/labels.csv; all folders are "
                "searched for it"
            )
    return _plain(value)


Files = Annotated[Texts, AfterValidator(_below_a_folder)]


Templates = Annotated[Texts, AfterValidator(_plain)]  # a\{id}.png and ./a//{id}.png become a/{id}.png


class Strict(BaseModel):
    """Settings that refuse unknown keys, and numbers that are not finite. The text below a field is what
    `comp keys` prints of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class Sparse(Strict):
    """Settings whose newer keys are in stamps only where they are set, so that stamps of finished runs stay
    as they are."""

    left_out: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_unset_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unset = {key for key in self.left_out if getattr(self, key) == fields[key].default}
        return {key: value for key, value in handler(self).items() if key not in unset}


FIELD = re.compile(r"(?P<name>[^\W\d][^{}!:.\[\]]*)(\[\d+\])?")  # {patient}, and {id[0]}: its first character


def fields_of(template: str, what: str = "image template") -> list[str]:
    """Return the names of the fields of a template. Raise ValueError for anything else in braces than a name,
    or a name with a position."""
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"{what} {template!r}: {error}") from error
    found = []
    for _, name, form, how in parts:
        field = FIELD.fullmatch(name or "")
        if field is None or form or how:
            shown = f"{{{name}{'!' if how else ''}{how or ''}{':' if form else ''}{form}}}"
            raise ValueError(f"{what} {template!r} holds {shown}; a column's name in braces is expected")
        found.append(field["name"])
    return found


def check_fields(template: str) -> str:
    """Return the template of a file's name. Raise ValueError unless it holds {id} or a column's name, and of
    `*` only some before these, in names of folders."""
    if not set(fields_of(template)) - {"channel"}:
        raise ValueError(f"image template {template!r} lacks {{id}}")
    if "*" in template[template.index("{") :] or "*" in template[: template.index("{")].rpartition("/")[2]:
        raise ValueError(f"image template {template!r}: * stands in folders before the first {{…}} only")
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
