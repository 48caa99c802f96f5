"""How a submission holds answers, as the sample's header shows: a column for each class, one column of texts,
or a row for each image and class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from comp.artifacts.csv_tables import UNNAMED
from comp.config.competition import Competition, columns
from comp.data.labels import format_tags, parse_tags
from comp.data.long_tables import name_rows
from comp.decisions.scorers import first_classes
from comp.errors import CompError, summarize


@dataclass(frozen=True)
class Form:
    """The form of the submissions of one competition."""

    competition: Competition
    classes: tuple[str, ...]
    id_column: str
    columns: tuple[str, ...]  # without the ids, in order
    layout: Literal["classes", "text", "rows"]
    separator: str | None  # in texts; None if each is one label

    @property
    def kind(self) -> str:
        return self.competition.metric.kind

    @property
    def names(self) -> list[str]:
        """The classes as texts have them."""
        indices = self.competition.labels.indices
        return [str(i) for i in range(len(self.classes))] if indices else list(self.classes)

    @property
    def class_of(self) -> dict[str, int]:
        """By column the class in it; -1 is the column of no label."""
        if len(self.columns) == len(self.classes) == 1:
            return {self.columns[0]: 0}
        place = {name: c for c, name in enumerate(self.classes)}
        return {name: place.get(name, -1) for name in self.columns}

    def row_names(self, ids: Sequence[str]) -> list[str]:
        """Return the names (N * C) of rows, image by image."""
        return name_rows(self.competition.submitted_row or "{id}", ids, self.classes)

    def write(self, answers: np.ndarray, ids: np.ndarray, order: Sequence[str] = ()) -> pd.DataFrame:
        """Return the table of answers (N, C) for these ids (N,). With a row for each image and class, `order`
        are the rows as the sample has them."""
        values = answers if answers.dtype == np.uint8 else answers.astype(np.float32)
        if self.layout == "text":
            return pd.DataFrame({self.id_column: ids, self.columns[0]: self._texts(answers)})
        if self.layout == "rows":
            rows = pd.Series(values.ravel(), self.row_names(ids.tolist()))
            rows = rows if not order else rows.reindex(list(order))
            return pd.DataFrame({self.id_column: rows.index, self.columns[0]: rows.to_numpy()})
        none = (values.max(1) == 0).astype(np.uint8) if values.dtype == np.uint8 else 1 - values.max(1)
        cells = {name: none if c < 0 else values[:, c] for name, c in self.class_of.items()}
        return pd.DataFrame({self.id_column: ids, **cells})

    def read(self, frame: pd.DataFrame, ids: np.ndarray, path: Path) -> np.ndarray:
        """Return the answers (N, C) for these ids (N,) of a table of texts with their rows: of a ranking k
        for the first label, k - 1 for the next. Raise CompError for cells that are no answers."""
        labels = self.competition.labels
        if self.layout == "text" and self.kind == "ranking":
            return self._ranks(frame[self.columns[0]], path)
        if self.layout == "text":
            texts = frame[self.columns[0]]
            return parse_tags(texts, self.classes, self.separator, labels.indices, path, labels.none)[1]
        if self.layout == "rows":
            cells = frame.set_index(self.id_column)[self.columns[0]]
            return _numbers(cells.reindex(self.row_names(ids.tolist())), path).reshape(len(ids), -1)
        wanted = [name for name, c in sorted(self.class_of.items(), key=lambda item: item[1]) if c >= 0]
        return np.stack([_numbers(frame[name], path) for name in wanted], axis=1)

    def _texts(self, answers: np.ndarray) -> list[str]:
        labels = self.competition.labels
        if self.kind != "ranking":
            return format_tags(answers, self.classes, self.separator, labels.indices, labels.none)
        first = first_classes(answers, self.competition.metric.k)
        return [(self.separator or " ").join(self.names[c] for c in row) for row in first.tolist()]

    def _ranks(self, texts: pd.Series, path: Path) -> np.ndarray:
        place = {name: c for c, name in enumerate(self.names)}
        split = [text.split(self.separator or " ") for text in texts]
        if unknown := {name for row in split for name in row} - place.keys():
            raise CompError(f"{path} ranks labels that are not in the list of classes: {summarize(unknown)}")
        ranks = np.zeros((len(split), len(self.classes)), np.float32)
        for row, names in zip(ranks, split):
            row[[place[name] for name in names]] = np.arange(len(names), 0, -1)
        return ranks


def form_of(header: Sequence[str], classes: Sequence[str], competition: Competition, sample: Path) -> Form:
    """Return the form of submissions that have the sample's header. A header of ids alone leaves it to the
    answers. Raise CompError, with a cure, if answers of this kind can't have this form."""
    id_column, column, separator = columns(competition)
    labels, kind, classes = competition.labels, competition.metric.kind, tuple(classes)
    others = tuple(name for name in header if name != id_column)
    per_class = kind in ("probabilities", "numbers") or not column
    if kind == "ranking":
        per_class, separator = len(others) > 1, competition.submission.separator or " "
    if id_column in header and not others:  # a list of ids
        others = classes if per_class else (column or labels.column or "label",)
    elif (
        kind in ("labels", "grades")
        and not competition.submission.row
        and not (per_class and len(classes) == len(others) == 1)
    ):
        check_header(list(header), classes, competition, sample)
    layout: Literal["classes", "text", "rows"] = "classes" if per_class else "text"
    if competition.submitted_row:
        layout = "rows"
        fits = len(others) == 1
    elif layout == "text":
        fits = len(others) == 1
    elif len(classes) == 1:
        fits = len(others) == 1 or set(others) == {*classes, labels.none}
    else:
        fits = set(others) - {labels.none} == set(classes) and (kind == "labels" or labels.none not in others)
    if id_column in header and fits:
        return Form(competition, classes, id_column, others, layout, separator)
    raise CompError(
        f"{sample}: its columns are {summarize(header)}, but a submission would have "
        f"{summarize([id_column, *(classes if layout == 'classes' else [column or 'labels'])])}: "
        f"{competition.metric} is scored by {kind}; {_cure(header, id_column, classes, competition)}"
    )


def _cure(header: Sequence[str], id_column: str, classes: tuple[str, ...], competition: Competition) -> str:
    if id_column not in header:
        return "set submission.id to its column of ids"
    column, row = competition.labels.column, competition.submission.row
    if len(header) == 2 and len(classes) == 2 and column and not row:
        old = ["labels.single"] if competition.labels.single else []
        if classes == ("0", "1"):
            named, old = f'labels.classes = ["{column}"]', ["labels.column", *old]
        else:
            named = f'labels.classes = ["{classes[1]}"] and labels.none = "{classes[0]}"'
        return f"set {named}{' in place of ' if old else ''}{' and '.join(old)}, for one probability"
    if len(header) == 2 and len(classes) > 1 and competition.metric.kind in ("probabilities", "numbers"):
        return (
            'set submission.row = "{id}_{class}" if its rows are an image and a class, or [metric] name to '
            "one that its form suits"
        )
    return "set id, classes and [metric] name to match the files"


def check_header(header: list[str], classes: Sequence[str], competition: Competition, sample: Path) -> None:
    """Raise CompError, with a cure, if a submission of labels would have other columns than the sample."""
    id_column, column, _ = columns(competition)
    none = competition.labels.none
    own = [column] if column else [*classes, *([none] if none in header else [])]
    others = [name for name in header if name != id_column]
    here, there = set(own), set(others)
    if id_column in header and here == there:
        return
    if id_column not in header:
        cure = "set submission.id to its column of ids"
    elif header[0].startswith(UNNAMED):
        cure = "its first column is an index written by pandas: remove it (to_csv(…, index=False))"
    elif column and there >= set(classes):
        more = "" if there <= {*classes, none} else " and labels.classes to its columns"
        cure = f'set submission.column = ""{more}, for one 0/1 column per label'
    elif not competition.labels.column and there and there < here:
        cure = f"set labels.ignore = {[name for name in own if name not in there]} if these are not labels"
    elif len(others) == 1:
        cure = f"set submission.column = {others[0]!r} for labels as text"
    else:
        cure = "set id, column and classes to match the files"
    raise CompError(
        f"{sample}: its columns are {summarize(header)}, but a submission "
        f"would have {summarize([id_column, *own])}; {cure}"
    )


def _numbers(cells: pd.Series, path: Path) -> np.ndarray:
    """Return (N,) numbers: uint8 if all are 0 or 1, else float64. Raise CompError for any other cell."""
    values = pd.to_numeric(cells, errors="coerce").to_numpy(np.float64)
    if len(wrong := np.flatnonzero(~np.isfinite(values))):
        raise CompError(
            f"{path}: {cells.name or cells.index[wrong[0]]} holds {cells.iloc[wrong[0]]!r}, no number"
        )
    return values
