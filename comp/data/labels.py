"""Read labels from a competition's CSV and write them: tags or 0/1 columns <-> a 0/1 matrix."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from comp.artifacts.csv_tables import ids_of, is_index, read_table
from comp.artifacts.stamps import digest
from comp.config.labels import LabelTable, separator_of
from comp.config.metric import Answer
from comp.config.schema import fields_of
from comp.data.columns import format_cells, match_columns, parse_columns, read_features, read_numbers
from comp.data.groups import UNGROUPED_PREFIX, fold_groups
from comp.data.long_tables import join_rows
from comp.data.tags import check_names, check_sets, split_tags
from comp.errors import CompError, summarize

MAX_GRADES = 100


@dataclass(frozen=True)
class Labels:
    ids: np.ndarray  # (N,) str
    classes: tuple[str, ...]  # (C,)
    targets: np.ndarray  # (N, C) uint8; float32 for numbers, and where some are unknown: NaN
    fold_groups: np.ndarray | None = None  # (N,) str: rows with the same value stay in one fold
    weights: np.ndarray | None = None  # (N,) float32: how much an image counts in the loss
    features: np.ndarray | None = None  # (N, F) float32 beside the image; NaN: not known
    answer_ids: np.ndarray | None = None  # (N,) str: images with the same value have one answer

    @property
    def are_numbers(self) -> bool:
        """Whether the targets are numbers to predict, not labels that are there or not."""
        return self.targets.dtype.kind == "f" and not np.isin(self.targets, (0, 1)).all(where=self.known)

    @property
    def known(self) -> np.ndarray:
        """Return (N, C) bool: which targets are known."""
        return ~np.isnan(self.targets)

    @property
    def positives(self) -> np.ndarray:
        """Return (N, C) of 0 and 1: the labels that are known to be there."""
        return self.targets if self.targets.dtype.kind != "f" else (self.targets == 1).astype(np.uint8)

    @property
    def fingerprint(self) -> str:
        """Return what stamps hold of the labels."""
        newer = {"weights": self.weights, "features": self.features, "answer_ids": self.answer_ids}
        given = [part for name, value in newer.items() if value is not None for part in (name, value)]
        return digest(self.ids, self.classes, self.targets, *given)

    def fingerprint_of(self, fold_of: np.ndarray) -> str:
        """Return what stamps hold of the folds (N,) of these images."""
        return digest(self.ids, fold_of)


def read_labels(
    path: Path,
    table: LabelTable,
    kind: Answer = "labels",
    *,
    only: np.ndarray | None = None,
    fields: Sequence[str] = (),
) -> Labels:
    """Return the training labels, of the ids `only` (M,) if given. `kind` is what the metric scores, `fields`
    are columns that other settings name.

    Raise CompError for a missing column, a repeated id, a label that is not in the list of classes, and an
    image with no label or several labels where the competition does not allow it."""
    frame, table = read_rows(path, table, fields)
    ids = ids_of(frame, table.id, path)
    if only is not None:
        if lacking := sorted(set(only.tolist()) - set(ids.tolist())):
            raise CompError(f"{path} lacks ids of labels.only: {summarize(lacking)}")
        frame = frame[np.isin(ids, only)]
        ids = frame[table.id].to_numpy(str)
    classes, targets = (
        parse_numbers(frame, table, path) if kind == "numbers" else parse_labels(frame, table, path, kind)
    )
    if kind != "numbers":
        _check_counts(ids, targets, table, path)
    features = read_features(frame, table.features, path)[1] if table.features else None
    weights = parse_weights(frame[table.weight], path) if table.weight else None
    answer_ids = format_cells(frame, table.answer_id) if table.answer_id else None
    groups = fold_groups(frame, ids, answer_ids, table, path)
    return Labels(ids, classes, targets, groups, weights, features, answer_ids)


def read_rows(path: Path, table: LabelTable, fields: Sequence[str] = ()) -> tuple[pd.DataFrame, LabelTable]:
    """Return the table of labels with one row an image, and what describes it then. Raise CompError if a
    column is missing."""
    extra = [*fields, *filter(None, [table.group, table.weight])]
    extra += fields_of(table.answer_id) if table.answer_id else []
    extra = [name for name in dict.fromkeys(extra) if name != table.id]
    frame = read_table(path, [table.id, *columns_of(table), *extra])
    if not table.row:
        return frame, table
    return join_rows(frame, table, [*extra, *match_columns(frame, table.features)], path)


def _check_counts(ids: np.ndarray, targets: np.ndarray, table: LabelTable, path: Path) -> None:
    """Raise CompError for images without exactly one label, or without any, where that is not allowed. Images
    with unknown cells may have more than is known."""
    known, n_labels = ~np.isnan(targets).any(1), np.nansum(targets, 1)
    if table.single and (wrong := (n_labels != 1) & known).any():
        raise CompError(
            f"{path} has images without exactly one label: {summarize(ids[wrong])}; "
            "labels.single = true expects one each"
        )
    empty = ids[(n_labels == 0) & known]
    if len(empty) and not table.empty:
        raise CompError(
            f"{path} has images without any label: {summarize(empty)}; "
            "if this is intended, set labels.empty = true"
        )


def count_ungrouped(labels: Labels) -> int:
    """Return the number of images without a group, by the column labels.group; 0 without this column."""
    groups = [] if labels.fold_groups is None else labels.fold_groups.tolist()
    return sum(name.startswith(UNGROUPED_PREFIX) for name in groups)


def columns_of(table: LabelTable) -> list[str]:
    """Return the columns of labels that the competition names."""
    if table.column:
        return [table.column]
    return [*table.classes, *filter(None, [table.none]), *table.ignore]


def parse_labels(
    frame: pd.DataFrame, table: LabelTable, path: Path, kind: Answer = "labels"
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return (classes, (N, C) uint8, or float32 with NaN where some are unknown) from a table with the
    columns of `columns_of`, one row an image."""
    if table.column:
        texts, separator = frame[table.column], separator_of(table)
        classes = table.classes
        if kind == "grades" and not classes and not table.indices:
            classes = _grades(texts, path)
        return parse_tags(texts, classes, separator, table.indices, path, table.none)
    classes = class_columns(frame, table)
    hint = "; labels.ignore names columns that are not labels" if not table.classes else ""
    targets = parse_columns(frame[list(classes)], path, hint, table.values, table.unknown)
    if table.none:
        is_none = parse_columns(frame[[table.none]], path)[:, 0] == 1
        if (wrong := (is_none != (np.nansum(targets, 1) == 0)) & ~np.isnan(targets).any(1)).any():
            raise CompError(
                f"{path}: {table.none} must be 1 where there is no label and 0 elsewhere; it is not for "
                f"{summarize(frame[table.id].to_numpy(str)[wrong])}"
            )
    return classes, targets


def class_columns(frame: pd.DataFrame, table: LabelTable) -> tuple[str, ...]:
    """Return the columns of the classes, if each class has one: those that the competition names, or all that
    it does not use otherwise."""
    while is_index(frame) and frame.columns[0] != table.id:
        frame = frame.iloc[:, 1:]
    others = {table.id, table.group, table.none, table.weight, *table.ignore}
    others |= {
        *match_columns(frame, table.features),
        *(fields_of(table.answer_id) if table.answer_id else []),
    }
    return table.classes or tuple(c for c in frame.columns if c not in others)


def _grades(texts: pd.Series, path: Path) -> tuple[str, ...]:
    """Return the grades in order, also those that no image has. Raise CompError for grades that are not whole
    numbers."""
    seen = {text.strip() for text in texts}
    if not all(re.fullmatch(r"-?\d{1,4}", text) for text in seen):
        raise CompError(
            f"{path} has grades {summarize(sorted(seen))}; list them in labels.classes, the lowest first"
        )
    grades = sorted(map(int, seen))
    if len(names := [str(i) for i in range(grades[0], grades[-1] + 1)]) > MAX_GRADES:
        raise CompError(f"{path} has grades from {grades[0]} to {grades[-1]}; list them in labels.classes")
    return tuple(names)


def parse_numbers(frame: pd.DataFrame, table: LabelTable, path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Return (columns, (N, C) float32): the numbers to predict, NaN in cells that mean unknown."""
    classes = (table.column,) if table.column else class_columns(frame, table)
    targets = read_numbers(frame[list(classes)], path, table.unknown)
    if len(wrong := np.argwhere(np.isnan(targets).all(1))):
        raise CompError(f"{path}, line {frame.index[wrong[0, 0]]}: no number is known; remove the row")
    return classes, targets


def parse_weights(cells: pd.Series, path: Path) -> np.ndarray:
    """Return (N,) float32: how much each image counts in the loss. Raise CompError for other cells than
    numbers of 0 or more, of which one is above 0."""
    weights = read_numbers(cells.to_frame(), path)[:, 0]
    if (weights < 0).any() or not weights.any():
        raise CompError(
            f"{path}: {cells.name} holds weights below 0, or only 0; numbers above 0 are expected"
        )
    return weights


def exclusive_groups(table: LabelTable, classes: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """Return the columns of each group of mutually exclusive labels. Raise CompError for a label that is not
    among the classes."""
    groups = table.exclusive_names(classes)
    if unknown := sorted({name for group in groups for name in group} - set(classes)):
        raise CompError(f"labels.exclusive names {summarize(unknown)}; the labels are {summarize(classes)}")
    return tuple(tuple(classes.index(name) for name in group) for group in groups)


def parse_tags(
    texts: Sequence[str] | pd.Series,
    classes: Sequence[str],
    separator: str | None,
    indices: bool,
    path: Path,
    none: str | None = None,
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return (classes, (N, C) uint8) from texts such as 'clear primary' or, with `indices`, '0 12'.

    The text `none` and an empty text mean no label. Without `separator` a text is one label. Without
    `classes` the classes are the labels that occur, sorted. Raise CompError for anything that is hardly the
    name of one label."""
    given, texts = texts, ["" if (text := given.strip()) == none else text for given in texts]
    split = split_tags(texts, classes, separator)
    split = [[] if tags == [none] else tags for tags in split]
    seen = {tag for tags in split for tag in tags}
    if none in seen:
        raise CompError(f"{path} has {none!r}, which means no label, together with other labels")

    def line_of(tag: str) -> str:
        row = next(row for row, tags in enumerate(split) if tag in tags)
        return f"{path}, line {given.index[row] if isinstance(given, pd.Series) else row + 1}"

    if strange := seen - set(classes):
        check_names(strange, separator, line_of)
        if not classes and not indices:
            check_sets(split, separator, path)
    if indices and (wrong := sorted(tag for tag in seen if not re.fullmatch(r"[0-9]{1,5}(\.0+)?", tag))):
        raise CompError(
            f"{path} has labels that are not indices: {summarize(wrong)}; "
            "labels.indices = true expects 0, 1, …"
        )
    if indices:
        split = [[str(int(float(tag))) for tag in tags] for tags in split]
        seen = {tag for tags in split for tag in tags}
        known = {str(i): i for i in range(len(classes) or 1 + max(map(int, seen), default=0))}
        classes = classes or tuple(known)
    else:
        classes = classes or tuple(sorted(seen))
        known = {name: i for i, name in enumerate(classes)}
    if unknown := sorted(seen - known.keys()):
        raise CompError(f"{path} has labels that are not in the list of classes: {summarize(unknown)}")
    targets = np.zeros((len(split), len(classes)), np.uint8)
    rows = np.repeat(np.arange(len(split)), [len(tags) for tags in split])
    targets[rows, [known[tag] for tags in split for tag in tags]] = 1
    return tuple(classes), targets


def format_tags(
    decisions: np.ndarray,
    classes: Sequence[str],
    separator: str | None,
    indices: bool,
    none: str | None = None,
) -> list[str]:
    """Return the texts of a 0/1 matrix (N, C): the inverse of `parse_tags`."""
    names = [str(i) for i in range(len(classes))] if indices else list(classes)
    texts = [(separator or " ").join(names[c] for c in np.flatnonzero(row)) for row in decisions]
    return [text or none or "" for text in texts]
