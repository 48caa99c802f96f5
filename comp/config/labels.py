"""The settings of a table of labels: [labels] of a competition."""

import re
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from comp.config.schema import Files, Sparse, Texts, fields_of

LABEL = "label"  # the field of a template, and the column of the table that `comp download` writes of paths
ANY = "any"  # the field of a template that is any text: an id has several files
ANSWER = "answer"  # the column of the tables that `comp download` writes then: the id of each file


class LabelTable(Sparse):
    """The table with the training labels."""

    left_out: ClassVar = (
        "values",
        "unknown",
        "weight",
        "weight_csv",
        "features",
        "row",
        "answer_id",
        "group_pattern",
        "only",
        "corrections",
    )

    csv: Files = ()
    """File names; the first that exists is used: CSV, TSV, parquet, or JSON of records or as COCO has it.
    Unset: the labels are {label} in images.train."""
    id: str
    """The column of image ids."""
    column: str | None = None
    """The column of label names or indices; unset: one 0/1 column per class."""
    separator: str = Field(" ", min_length=1)
    """What separates the labels in `column`."""
    classes: Texts = ()
    """The classes in order; empty: the labels in the CSV, sorted."""
    indices: bool = False
    """`column` holds positions in `classes` instead of names."""
    exclusive: tuple[tuple[str, ...], ...] = ()
    """Groups of mutually exclusive classes; an image has exactly one class of each group."""
    single: bool = False
    """Exactly one label per image; `column` is then not split."""
    group: str | None = None
    """A column; equal values stay in one fold, an empty cell is not a group."""
    group_pattern: str | None = None
    """A regular expression such as "(.+)_"; what it finds in `group`, or in the ids, is the group."""
    none: str | None = Field(None, min_length=1)
    """The text that means no label; without `column`, its 0/1 column."""
    ignore: Texts = ()
    """Columns that are not labels, if each class has a column."""
    empty: bool = Field(default_factory=lambda data: _may_be_empty(data))
    """Whether an image may have no label. Default: whether `none` is set, or there is one class."""
    values: dict[str, Literal[0, 1]] = {}
    """Cells of 0/1 columns that mean 0 or 1, such as { "" = 0 }."""
    unknown: tuple[str, ...] = ()
    """Cells that mean unknown, such as ["-1", ""]; they are left out of the loss and of scores."""
    weight: str | None = None
    """A column: how much an image counts in the loss."""
    weight_csv: str | None = Field(None, min_length=1)
    """The same from a table of id and weight, such as runs/<name>/adversarial.csv; a path from the working
    directory."""
    features: Texts = ()
    """Columns of numbers that the network sees beside the image; "margin*" means all that begin so."""
    row: str | None = None
    """What a row is, if an image has several: "{id}" joins the rows of an id; "{id}_{class}" is how the cell
    of the column `id` names an image and a class, and `column` holds 0 or 1."""
    answer_id: str | None = None
    """What one answer is for, if not an image, from columns: "{patient}_{side}"."""
    only: Files = ()
    """A file with the ids of the training images; unset: all rows."""
    corrections: str = ""
    """A CSV of id, label and value, as the report writes it, to train with; 1: the label holds, 0: it does
    not, empty: unsure, no change; for numbers the right one. Scores stay those of the given labels."""

    @property
    def is_long(self) -> bool:
        """Whether each row is an image and a class."""
        return self.row is not None and "{class}" in self.row

    def exclusive_names(self, classes: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        """Return the groups of mutually exclusive classes; an image has exactly one class of each group."""
        return (classes,) if self.single else self.exclusive

    @field_validator("group_pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            groups = re.compile(value or "").groups
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from error
        if groups > 1:
            raise ValueError(f"{value!r} has {groups} groups in parentheses; at most one is expected")
        return value

    @model_validator(mode="after")
    def _agrees(self) -> "LabelTable":
        if self.single and (self.exclusive or self.empty):
            raise ValueError(
                "labels.single allows no labels.exclusive, labels.empty or labels.none; remove them"
            )
        if self.none is not None and not self.empty:
            raise ValueError("labels.none needs labels.empty = true")
        if self.ignore and self.column:
            raise ValueError(
                "labels.ignore needs 0/1 columns; with labels.column, other columns are ignored already"
            )
        if self.weight and self.weight_csv:
            raise ValueError(
                "labels.weight and labels.weight_csv both say how much an image counts; keep one"
            )
        named = {self.id, self.group, self.none, self.weight, *self.classes} - {None}
        if both := next((name for name in self.ignore if name in named), None):
            raise ValueError(f"labels.ignore has {both!r}, which another key of [labels] uses")
        if self.none in self.classes:
            raise ValueError(f"labels.none = {self.none!r} is also in labels.classes; remove it there")
        return self

    @model_validator(mode="after")
    def _rows_agree(self) -> "LabelTable":
        if self.row is not None and sorted(fields_of(self.row, "labels.row")) not in (
            ["id"],
            ["class", "id"],
        ):
            raise ValueError(
                f'labels.row = {self.row!r}: "{{id}}" or a text with {{id}} and {{class}} is expected'
            )
        if self.row not in (None, "{id}") and not self.is_long:
            raise ValueError(f'labels.row = {self.row!r}: to join the rows of an id, write "{{id}}"')
        if self.is_long and not self.column:
            raise ValueError("labels.row with {class} needs labels.column, the column of 0 and 1")
        if self.answer_id is not None and not fields_of(self.answer_id, "labels.answer_id"):
            raise ValueError(f"labels.answer_id = {self.answer_id!r} names no column, as {{patient_id}} does")
        if both := [text for text in self.unknown if text in self.values]:
            raise ValueError(f"{both[0]!r} is in labels.values and in labels.unknown")
        if self.corrections and self.answer_id:
            raise ValueError(
                "labels.corrections are of images, but with labels.answer_id several have one answer; "
                "correct the table itself"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _name_labels_in_paths(cls, value: Any) -> Any:
        unset = isinstance(value, dict) and not value.get("csv") and value.get("column") is None
        return {**value, "column": LABEL} if unset and not _is_zero_or_one(value) else value


def _is_zero_or_one(data: dict[str, Any]) -> bool:
    """Return whether what paths say is 0 or 1, as labels.values gives it."""
    return bool(data.get("values")) and list(data.get("classes") or ()) == [LABEL]


def _may_be_empty(data: dict[str, Any]) -> bool:
    one_column = not data.get("column") and len(data.get("classes") or ()) == 1
    return data.get("none") is not None or (one_column and not data.get("single"))


def separator_of(table: LabelTable) -> str | None:
    """Return the separator between the labels of a text; None if each text is one label."""
    return None if table.single else table.separator
