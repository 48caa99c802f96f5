"""The settings of a competition: labels, images, submission, metric. One TOML file per competition."""

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

from comp.config.schema import (
    NAME_PATTERN,
    Files,
    Strict,
    Templates,
    Texts,
    check_fields,
    warn_of_old_name,
)


class LabelTable(Strict):
    """The CSV with the training labels."""

    csv: Files
    """File names; the first that exists is used."""
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
    none: str | None = Field(None, min_length=1)
    """The text that means no label; without `column`, its 0/1 column."""
    ignore: Texts = ()
    """Columns that are not labels, if each class has a column."""
    empty: bool = Field(default_factory=lambda data: data.get("none") is not None)
    """Whether an image may have no label. Default: whether `none` is set."""

    def exclusive_names(self, classes: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        """Return the groups of mutually exclusive classes; an image has exactly one class of each group."""
        return (classes,) if self.single else self.exclusive

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
        named = {self.id, self.group, self.none, *self.classes}
        if both := next((name for name in self.ignore if name in named), None):
            raise ValueError(f"labels.ignore has {both!r}, which another key of [labels] uses")
        if self.none in self.classes:
            raise ValueError(f"labels.none = {self.none!r} is also in labels.classes; remove it there")
        return self


def check_templates(templates: tuple[str, ...], channels: tuple[str, ...]) -> None:
    """Raise ValueError unless all templates hold {id}, and {channel} exactly if there are channels."""
    for template in templates:
        check_fields(template)
        if bool(channels) != ("{channel}" in template):
            raise ValueError(f"image template {template!r}: {{channel}} and `channels` go together")


def _from_zero(value: Any) -> Any:
    return [0, value] if isinstance(value, int | float) and not isinstance(value, bool) else value


class Images(Strict):
    """Where the images are. A template holds {id}, and {channel} if each channel is a separate file."""

    train: Templates
    """Templates of the training images, such as train/{id}.jpg."""
    test: Templates
    """Templates of the test images; each id is searched for in all of them."""
    channels: Texts = ()
    """The values of {channel}; empty: one RGB file per image."""
    range: Annotated[tuple[float, float] | None, BeforeValidator(_from_zero)] = None
    """For more than 8 bits per channel: the values shown as black and white, such as [-1000, 3000]; 4095
    means [0, 4095]; unset: the range of the training images."""

    @field_validator("range")
    @classmethod
    def _ascends(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value and not (value[0] < value[1] and all(map(math.isfinite, value))):
            raise ValueError(f"black below white is expected, found {list(value)}")
        return value

    @model_serializer(mode="wrap")
    def _without_unset_range(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content = handler(self)
        if content.get("range") is None:  # stamps hold only a range that is set
            content.pop("range", None)
        return content

    @model_validator(mode="after")
    def _check_paths(self) -> "Images":
        templates = (*self.train, *self.test)
        check_templates(templates, self.channels)
        for text in (*templates, *self.channels):
            if text.startswith("/") or ".." in text.split("/"):
                raise ValueError(
                    f"images: {text!r} points outside the data folder; remove .. and a leading /"
                )
        return self


class SubmissionTable(Strict):
    """The submission CSV, in the order and format of the sample submission."""

    sample: Files
    """File names of the sample submission; the first that exists is used."""
    id: str | None = None
    """The column of image ids; unset: labels.id."""
    column: str | None = None
    """The column of labels; "": one 0/1 column per class; unset: labels.column."""
    separator: str | None = Field(None, min_length=1)
    """What separates labels; unset: labels.separator."""
    solution: str | None = None
    """A file with the test labels and a column Usage (Public, Private)."""


class Metric(Strict):
    """Mean F-beta as in scikit-learn's `fbeta_score`; or accuracy, if labels.single is true."""

    beta: float = Field(2.0, gt=0)
    """The weight of recall against precision."""
    average: Literal["samples", "macro", "micro", "accuracy"] = "samples"
    """How F-beta is averaged."""
    zero_division: float = Field(0.0, ge=0, le=1)
    """With samples: the score of an image with no true and no predicted label."""

    def __str__(self) -> str:
        return "accuracy" if self.average == "accuracy" else f"{self.average} F{self.beta:g}"

    @property
    def stamp(self) -> dict[str, Any]:
        """Return the metric as stamps hold it."""
        if self.average == "accuracy":
            return {"beta": 1.0, "average": "samples"}
        empty = {"empty": self.zero_division} if self.zero_division else {}
        return {"beta": self.beta, "average": self.average, **empty}

    @model_validator(mode="before")
    @classmethod
    def _read_old_key(cls, value: Any) -> Any:
        """Read `empty`, the name that zero_division has in stamps and had in files."""
        if isinstance(value, dict) and "empty" in value and "zero_division" not in value:
            value = {**value, "zero_division": value["empty"]}
            del value["empty"]
        return value

    @model_validator(mode="after")
    def _check_average(self) -> "Metric":
        if self.zero_division and self.average != "samples":
            raise ValueError(f'metric.zero_division needs average = "samples"; average is "{self.average}"')
        return self


class Drawn(Strict):
    """Synthetic data, generated from a seed instead of downloaded."""

    kind: Literal["scenes", "cells"] = "scenes"
    """The generator: comp/data/synthetic/<kind>.py."""
    n_train: int = Field(2000, ge=50)
    """Training images."""
    n_test: int = Field(1200, ge=50)
    """Test images."""
    size: int = Field(64, ge=32)
    """Image size in pixels, square."""
    seed: int = Field(0, ge=0)
    """Seed of the random generator."""
    in_yellow: Texts = ()
    """With cells: labels that show in the yellow channel instead of the green one."""


class Listed(Strict):
    """What the competition's pages list, for `comp plan` before the download."""

    n_train: int = Field(ge=1)
    """Training images."""
    n_test: int = Field(ge=1)
    """Test images."""
    size: int = Field(ge=1)
    """The longer side of an image, in pixels."""
    gigabytes: float = Field(0.0, ge=0)
    """Size of the archives to download."""


class Competition(Strict):
    """One competition: where its files are, and how submissions are scored."""

    name: str = Field(pattern=NAME_PATTERN)
    """Names data/<name>/ and folds/<name>-….csv; default: the file's."""
    title: str = ""
    """Title, for people."""
    slug: str | None = None
    """The competition's name in Kaggle's addresses."""
    sources: Texts = ()
    """Kaggle sources of its files, first to last; empty: competitions/<slug>."""
    labels: LabelTable
    """The training labels."""
    images: Images
    """The image files."""
    submission: SubmissionTable
    """The submission CSV."""
    metric: Metric = Field(
        default_factory=lambda data: Metric(average="accuracy" if data["labels"].single else "samples")
    )
    """The score of the leaderboard. Default: F2 of samples; with labels.single, accuracy."""
    drawn: Drawn | None = None
    """Synthetic data instead of a download."""
    listed: Listed | None = None
    """The number and size of its images."""

    @field_validator("metric", mode="before")
    @classmethod
    def _warn_of_old_key(cls, value: Any) -> Any:
        if isinstance(value, dict) and "empty" in value:
            warn_of_old_name("metric.empty", "metric.zero_division")
        return value

    @property
    def all_sources(self) -> tuple[str, ...]:
        """The Kaggle sources of its files, first to last."""
        return self.sources or ((f"competitions/{self.slug}",) if self.slug else ())

    @model_validator(mode="after")
    def _check_sources(self) -> "Competition":
        for source in self.all_sources:
            if not re.fullmatch(r"competitions/[\w-]+|datasets/[\w-]+/[\w-]+", source):
                raise ValueError(
                    f"source {source!r}: competitions/<slug> or datasets/<owner>/<slug> is expected, as in "
                    "its address on Kaggle"
                )
        return self

    @model_validator(mode="after")
    def _check_classes(self) -> "Competition":
        if self.labels.classes:
            for label in (label for group in self.labels.exclusive for label in group):
                if label not in self.labels.classes:
                    raise ValueError(f"labels.exclusive names {label!r}, which is not in labels.classes")
        if len(set(self.labels.classes)) < len(self.labels.classes):
            raise ValueError("labels.classes names a label twice")
        return self

    @model_validator(mode="after")
    def _check_metric(self) -> "Competition":
        if self.metric.average == "accuracy" and not self.labels.single:
            raise ValueError(
                'metric.average = "accuracy" needs labels.single = true (exactly one label per image)'
            )
        if self.metric.zero_division and not self.labels.empty:
            raise ValueError("metric.zero_division needs labels.empty = true (images without labels)")
        return self


def separator_of(table: LabelTable) -> str | None:
    """Return the separator between the labels of a text; None if each text is one label."""
    return None if table.single else table.separator


def columns(competition: Competition) -> tuple[str, str | None, str | None]:
    """Return the submission's id column, its label column or None, and its separator (None if each row has
    one label)."""
    table, labels = competition.submission, competition.labels
    separator = separator_of(labels) if labels.single or table.separator is None else table.separator
    column = labels.column if table.column is None else table.column
    return table.id or labels.id, column or None, separator
