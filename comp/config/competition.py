"""What a competition is: labels, images, submission, metric. One TOML file each."""

import math
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from comp.config.schema import NAME_PATTERN, Files, Strict, Templates, Texts, check_fields


class LabelTable(Strict):
    """The CSV with the training labels."""

    csv: Files  # file names; the first that is there is taken
    id: str
    column: str | None = None  # of label names or indices; None: one 0/1 column a class
    separator: str = Field(" ", min_length=1)
    classes: Texts = ()  # empty: the labels that occur in the CSV, sorted
    indices: bool = False  # the column holds positions in `classes` and not names
    exclusive: tuple[tuple[str, ...], ...] = ()  # groups in which exactly one label holds
    single: bool = False  # exactly one label an image: all are one group, and `column` holds one, not split
    group: str | None = None  # a column: rows with the same value stay in one fold; an empty cell is no group
    none: str | None = Field(None, min_length=1)  # the text of no label, or without `column` its 0/1 column
    ignore: Texts = ()  # columns that are no labels, where each label has a column
    empty: bool = Field(  # whether an image may have no label at all; that is then an answer of its own
        default_factory=lambda data: data.get("none") is not None
    )

    def groups(self, classes: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        """Those of the classes of which exactly one holds."""
        return (classes,) if self.single else self.exclusive

    @model_validator(mode="after")
    def _agrees(self) -> "LabelTable":
        if self.single and (self.exclusive or self.empty):
            raise ValueError("labels.single is one group of all classes; leave out exclusive, empty and none")
        if self.none is not None and not self.empty:
            raise ValueError("labels.none stands for no label; set labels.empty = true")
        if self.ignore and self.column:
            raise ValueError("labels.ignore is for 0/1 columns; with labels.column all others are ignored")
        named = {self.id, self.group, self.none, *self.classes}
        if both := next((name for name in self.ignore if name in named), None):
            raise ValueError(f"labels.ignore holds {both!r}, which another key of labels names")
        if self.none in self.classes:
            raise ValueError(f"labels.none is {self.none!r}, which is in labels.classes; leave it out there")
        return self


def _check_templates(templates: tuple[str, ...], channels: tuple[str, ...]) -> None:
    for template in templates:
        check_fields(template)
        if bool(channels) != ("{channel}" in template):
            raise ValueError(f"image template {template!r}: {{channel}} and `channels` go together")


def _from_zero(value: Any) -> Any:
    return [0, value] if isinstance(value, int | float) and not isinstance(value, bool) else value


class Images(Strict):
    """Where the images are. A template holds {id}, and {channel} where every channel is a file of its own."""

    train: Templates
    test: Templates  # several: an id is looked for in each
    channels: Texts = ()  # empty: one RGB file an image
    # of files with more than 8 bits a channel, the values that become black and white: [-1000, 3000], or 4095
    # for [0, 4095]; None: what the training images use
    range: Annotated[tuple[float, float] | None, BeforeValidator(_from_zero)] = None

    @field_validator("range")
    @classmethod
    def _ascends(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value and not (value[0] < value[1] and all(map(math.isfinite, value))):
            raise ValueError(f"black below white is expected, found {list(value)}")
        return value

    @model_serializer(mode="wrap")
    def _without_unset_range(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content = handler(self)
        if content.get("range") is None:  # as stamps have it from before there was one
            content.pop("range", None)
        return content

    @model_validator(mode="after")
    def _templates_hold_what_they_must(self) -> "Images":
        templates = (*self.train, *self.test)
        _check_templates(templates, self.channels)
        for text in (*templates, *self.channels):
            if text.startswith("/") or ".." in text.split("/"):
                raise ValueError(f"images: {text!r} leads out of the data folder; leave out .. and a first /")
        return self


class SubmissionTable(Strict):
    """The CSV that Kaggle takes, in the order and form of its sample. Unset fields are those of the
    labels."""

    sample: Files
    id: str | None = None
    column: str | None = None  # "": one 0/1 column a class, though the labels are texts
    separator: str | None = Field(None, min_length=1)
    solution: str | None = None  # a file with the test labels and a column Usage (Public, Private)


class Metric(Strict):
    """Mean F-beta as scikit-learn defines it (`fbeta_score`), or accuracy, where labels.single is true."""

    beta: float = Field(2.0, gt=0)
    average: Literal["samples", "macro", "micro", "accuracy"] = "samples"
    # what an image of no label scores where none is answered (scikit-learn's zero_division), for samples
    empty: float = Field(0.0, ge=0, le=1)

    def __str__(self) -> str:
        return "accuracy" if self.average == "accuracy" else f"{self.average} F{self.beta:g}"

    @property
    def settings(self) -> dict[str, Any]:
        """What functions of F-beta are called with. With one label and one answer an image, F-beta of any
        beta is 1 where they are the same and 0 where not: its mean over images is the accuracy."""
        if self.average == "accuracy":
            return {"beta": 1.0, "average": "samples"}
        return {"beta": self.beta, "average": self.average} | ({"empty": self.empty} if self.empty else {})

    @model_validator(mode="after")
    def _counts_images(self) -> "Metric":
        if self.empty and self.average != "samples":
            raise ValueError(
                f'metric.empty is of images: average = "samples" goes with it, not {self.average}'
            )
        return self


class Drawn(Strict):
    """A competition that is drawn from a seed instead of downloaded."""

    kind: Literal["scenes", "cells"] = "scenes"  # comp/demo.py, comp/cells.py
    n_train: int = Field(2000, ge=50)
    n_test: int = Field(1200, ge=50)
    size: int = Field(64, ge=32)
    seed: int = Field(0, ge=0)
    in_yellow: Texts = ()  # labels of cells that show in the yellow channel and not in the green one


class Competition(Strict):
    name: str = Field(pattern=NAME_PATTERN)
    title: str = ""
    slug: str | None = None  # on Kaggle
    sources: Texts = ()  # where files are looked for, in this order; empty: competitions/<slug>
    labels: LabelTable
    images: Images
    submission: SubmissionTable
    metric: Metric = Field(  # of one label an image: accuracy
        default_factory=lambda data: Metric(average="accuracy" if data["labels"].single else "samples")
    )
    drawn: Drawn | None = None

    @property
    def all_sources(self) -> tuple[str, ...]:
        return self.sources or ((f"competitions/{self.slug}",) if self.slug else ())

    @model_validator(mode="after")
    def _sources_are_addresses(self) -> "Competition":
        for source in self.all_sources:
            if not re.fullmatch(r"competitions/[\w-]+|datasets/[\w-]+/[\w-]+", source):
                raise ValueError(
                    f"source {source!r} is neither competitions/<slug> nor datasets/<owner>/<slug>, "
                    "the end of its address on Kaggle"
                )
        return self

    @model_validator(mode="after")
    def _groups_name_classes(self) -> "Competition":
        if self.labels.classes:
            for label in (label for group in self.labels.exclusive for label in group):
                if label not in self.labels.classes:
                    raise ValueError(f"labels.exclusive names {label!r}, which is not in labels.classes")
        if len(set(self.labels.classes)) < len(self.labels.classes):
            raise ValueError("labels.classes names a label twice")
        return self

    @model_validator(mode="after")
    def _metric_fits(self) -> "Competition":
        if self.metric.average == "accuracy" and not self.labels.single:
            raise ValueError(
                'metric.average = "accuracy" needs exactly one label an image: labels.single = true'
            )
        if self.metric.empty and not self.labels.empty:
            raise ValueError("metric.empty scores images without any label: set labels.empty = true")
        return self


def separator_of(table: LabelTable) -> str | None:
    """What stands between the labels of a text; None where each text is one label."""
    return None if table.single else table.separator


def columns(competition: Competition) -> tuple[str, str | None, str | None]:
    """(id column, tag column or None, separator) of the submission; no separator where a row is one label."""
    table, labels = competition.submission, competition.labels
    separator = separator_of(labels) if labels.single or table.separator is None else table.separator
    column = labels.column if table.column is None else table.column
    return table.id or labels.id, column or None, separator
