"""The settings of a competition: labels, images, submission, metric. One TOML file per competition."""

import math
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from comp.config.labels import ANSWER, ANY, LABEL, LabelTable, separator_of
from comp.config.metric import NEEDS_ONE_LABEL, Metric
from comp.config.schema import (
    NAME_PATTERN,
    Files,
    Sparse,
    Strict,
    Templates,
    Texts,
    check_fields,
    fields_of,
    warn_of_old_name,
)

MAX_BAND = 999
OF_ANSWER = f"{{{ANSWER}}}"


def check_templates(templates: tuple[str, ...], channels: tuple[str, ...], *, columns: bool = False) -> None:
    """Raise ValueError unless all templates hold {id} (with `columns`: or another column), and {channel}
    exactly if there are channels."""
    for template in templates:
        check_fields(template)
        if not columns and (others := sorted(set(fields_of(template)) - {"id", "channel"})):
            raise ValueError(
                f"image template {template!r} holds {{{others[0]}}}; only {{id}} and {{channel}} are allowed"
            )
        if bool(channels) != ("{channel}" in template):
            raise ValueError(f"image template {template!r}: {{channel}} and `channels` go together")


def _from_zero(value: Any) -> Any:
    return [0, value] if isinstance(value, int | float) and not isinstance(value, bool) else value


def _first_bands(value: Any) -> Any:
    """Read a number of bands as the list of the first so many."""
    return list(range(1, value + 1)) if isinstance(value, int) and not isinstance(value, bool) else value


class Images(Sparse):
    """Where the images are. A template holds {id} or other columns of its table, {channel} if each channel is
    a separate file, {any} if an id has several files, and * in names of folders before them."""

    left_out: ClassVar = ("range", "bands", "table")

    train: Templates
    """Templates of the training images, such as train/{id}.jpg; without labels.csv with {label}."""
    test: Templates
    """Templates of the test images; each id is searched for in all of them."""
    table: Files = ()
    """The table of the test images, if labels.features, labels.answer_id or a template names columns of
    it."""
    channels: Texts = ()
    """The values of {channel}; empty: one file per image."""
    bands: Annotated[tuple[int, ...], BeforeValidator(_first_bands)] = ()
    """Which bands of each TIFF or .npy file become channels, counted from 1, such as [4, 3, 2]; 13 means the
    first 13; empty: files are grey or RGB."""
    range: Annotated[
        tuple[float, float] | tuple[tuple[float, float], ...] | None, BeforeValidator(_from_zero)
    ] = None
    """For more than 8 bits per channel: the values shown as black and white, such as [-1000, 3000]; 4095
    means [0, 4095]; or a pair for each band or channel; unset: the range of the training images."""

    @field_validator("bands")
    @classmethod
    def _counts_from_1(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if value and (min(value) < 1 or max(value) > MAX_BAND or len(set(value)) < len(value)):
            raise ValueError(f"different numbers from 1 to {MAX_BAND} are expected, found {list(value)}")
        return value

    @field_validator("range")
    @classmethod
    def _ascends(cls, value: Any) -> Any:
        for pair in (value if isinstance(value[0], tuple) else [value]) if value else ():
            if not (pair[0] < pair[1] and all(map(math.isfinite, pair))):
                raise ValueError(f"black below white is expected, found {list(pair)}")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> "Images":
        if self.bands and self.channels:
            raise ValueError(
                "images.bands are in one file, images.channels in a file each; remove one of the two keys"
            )
        n_channels = len(self.channel_names)
        if self.range and isinstance(self.range[0], tuple) and len(self.range) != n_channels:
            raise ValueError(
                f"images.range has {len(self.range)} pairs for {n_channels} bands or channels; give one "
                "pair for all, or one for each"
            )
        return self

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The channels by name, or else the numbers of the bands; empty: grey or RGB files."""
        return self.channels or tuple(map(str, self.bands))

    @property
    def several(self) -> bool:
        """Whether an id has several files, as {any} in the templates says."""
        return any(ANY in fields_of(template) for template in (*self.train, *self.test))

    @model_validator(mode="after")
    def _check_several(self) -> "Images":
        if not self.several:
            return self
        for template in (*self.train, *self.test):
            if sorted(fields_of(template)) != [ANY, "id"] or "[" in template:
                raise ValueError(
                    f"image template {template!r}: with {{{ANY}}}, all templates hold {{id}} and {{{ANY}}}, "
                    "once each, and nothing else"
                )
        if self.table:
            raise ValueError(f"images.table does not go with {{{ANY}}}: the files themselves are the table")
        return self

    @model_validator(mode="after")
    def _check_paths(self) -> "Images":
        templates = (*self.train, *self.test)
        check_templates(templates, self.channels, columns=True)
        for text in (*templates, *self.channels):
            if text.startswith("/") or ".." in text.split("/"):
                raise ValueError(
                    f"images: {text!r} points outside the data folder; remove .. and a leading /"
                )
        return self


class SubmissionTable(Sparse):
    """The submission CSV, in the order and format of the sample submission."""

    left_out: ClassVar = ("aggregate", "row")

    sample: Files = ()
    """File names of the sample submission, or of a list of the test ids; the first that exists is used.
    Unset: the ids of images.table, or the files of images.test."""
    id: str | None = None
    """The column of image ids; unset: labels.id."""
    column: str | None = None
    """The column of labels; "": one 0/1 column per class; unset: labels.column."""
    separator: str | None = Field(None, min_length=1)
    """What separates labels; unset: labels.separator."""
    row: str | None = None
    """How the cells of ids name an image and a class, if each row is for both, such as "{id}_{class}"; unset:
    labels.row, if that holds {class}."""
    aggregate: Literal["mean", "max"] = "mean"
    """With labels.answer_id: how the predictions of its images become one."""
    solution: str | None = None
    """A file with the test labels and a column Usage (Public, Private)."""

    @field_validator("row")
    @classmethod
    def _check_row(cls, value: str | None) -> str | None:
        if value is not None and sorted(fields_of(value, "submission.row")) != ["class", "id"]:
            raise ValueError(f"submission.row = {value!r}: a text with {{id}} and {{class}} is expected")
        return value


class Drawn(Strict):
    """Synthetic data, generated from a seed instead of downloaded."""

    kind: Literal["scenes", "cells", "clouds", "lakes", "flags"] = "scenes"
    """What is drawn: scenes and cells have several labels; clouds a grade from 0 to 4; lakes a number, the
    share of water in percent; flags one label of up to 120, the colours from the top."""
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
    submission: SubmissionTable = Field(default_factory=SubmissionTable)
    """The submission CSV. Default: the ids, and columns as the metric needs them."""
    metric: Metric = Field(
        default_factory=lambda data: Metric(name="accuracy" if data["labels"].single else "fbeta")
    )
    """The score of the leaderboard. Default: F2 of samples; with labels.single, accuracy."""
    drawn: Drawn | None = None
    """Synthetic data instead of a download."""
    listed: Listed | None = None
    """The number and size of its images."""

    @field_validator("images", mode="after")
    @classmethod
    def _answer_for_several(cls, value: Images, info: ValidationInfo) -> Images:
        labels = info.data.get("labels")
        if labels is None or not value.several:
            return value
        if not labels.csv:
            raise ValueError(f"{{{ANY}}} needs a table with a row for each id, labels.csv")
        others = {**labels.model_dump(include={"row", "only", "features"}), "answer_id": labels.answer_id}
        if clash := next((key for key, given in others.items() if given and given != OF_ANSWER), None):
            raise ValueError(f"labels.{clash} does not go with {{{ANY}}}: each id has one row and one answer")
        info.data["labels"] = labels.model_copy(update={"answer_id": OF_ANSWER})
        return value

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

    @property
    def submitted_row(self) -> str | None:
        """What a row of submissions is, if each is for an image and a class."""
        return self.submission.row or (self.labels.row if self.labels.is_long else None)

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
    def _check_where_labels_are(self) -> "Competition":
        labels, images = self.labels, self.images
        if any("label" in fields_of(template) for template in images.test) and not images.table:
            raise ValueError("images.test holds {label}, but the labels of test images are not known")
        if labels.csv:
            return self
        for template in images.train:
            fields = fields_of(template)
            if LABEL not in fields or self.images.channels:
                raise ValueError(
                    f"labels.csv is not set; set it, or write {{{LABEL}}} in images.train where its paths "
                    f"hold the label (it is {template!r})"
                )
            if others := [name for name in fields if name not in ("id", LABEL)]:
                raise ValueError(
                    f"images.train holds {{{others[0]}}}, but there is no labels.csv with columns"
                )
        needs_table = ("row", "only", "weight", "features", "answer_id")
        if given := next((key for key in needs_table if getattr(labels, key)), None):
            raise ValueError(f"labels.{given} needs a table, labels.csv")
        if labels.column != LABEL and not labels.values:
            raise ValueError(
                f"labels.column = {labels.column!r} needs a table, labels.csv; leave it out where the labels "
                "are in paths, and name the column of the sample as submission.column"
            )
        return self

    @model_validator(mode="after")
    def _check_cells(self) -> "Competition":
        labels, numbers = self.labels, self.metric.kind == "numbers"
        for key in ("values", "unknown"):
            if (
                getattr(labels, key)
                and labels.column
                and not labels.is_long
                and not (numbers and key == "unknown")
            ):
                raise ValueError(f"labels.{key} is for columns of 0 and 1; labels.column holds texts")
        if not numbers:
            return self
        wrong = ("single", "exclusive", "indices", "none", "values")
        if given := next((key for key in wrong if getattr(labels, key)), None):
            raise ValueError(
                f'labels.{given} is for labels, but metric.name = "{self.metric.name}" scores numbers'
            )
        return self

    @model_validator(mode="after")
    def _check_metric(self) -> "Competition":
        if self.metric.name in NEEDS_ONE_LABEL and not self.labels.single:
            raise ValueError(
                f'metric.name = "{self.metric.name}" needs labels.single = true (exactly one label per image)'
            )
        if self.metric.zero_division and not self.labels.empty:
            raise ValueError("metric.zero_division needs labels.empty = true (images without labels)")
        return self


def columns(competition: Competition) -> tuple[str, str | None, str | None]:
    """Return the submission's id column, its label column or None, and its separator (None if each row has
    one label)."""
    table, labels = competition.submission, competition.labels
    separator = separator_of(labels) if labels.single or table.separator is None else table.separator
    column = labels.column if table.column is None else table.column
    return table.id or labels.id, column or None, separator
