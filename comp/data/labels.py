"""Read labels from a competition's CSV and write them: tags or 0/1 columns <-> a 0/1 matrix."""

import ast
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from comp.artifacts.csv_tables import ids_of, is_index, read_table
from comp.artifacts.stamps import digest
from comp.config.competition import LabelTable, separator_of
from comp.errors import CompError, summarize

NO_GROUP_TEXTS = ("", "nan", "none", "null", "n/a", "#n/a", "<na>")  # in lower case
UNGROUPED_PREFIX = " "  # " <id>" is the group of an image without one; no other group begins so


@dataclass(frozen=True)
class Labels:
    ids: np.ndarray  # (N,) str
    classes: tuple[str, ...]  # (C,)
    targets: np.ndarray  # (N, C) uint8
    fold_groups: np.ndarray | None = None  # (N,) str: rows with the same value stay in one fold

    @property
    def fingerprint(self) -> str:
        """Return what stamps hold of the labels."""
        return digest(self.ids, self.classes, self.targets)

    def fingerprint_of(self, fold_of: np.ndarray) -> str:
        """Return what stamps hold of the folds (N,) of these images."""
        return digest(self.ids, fold_of)


def read_labels(path: Path, table: LabelTable) -> Labels:
    """Return the training labels.

    Raise CompError for a missing column, a repeated id, a label that is not in the list of classes, and an
    image with no label or several labels where the competition does not allow it."""
    frame = read_table(path, [table.id, *columns_of(table), *filter(None, [table.group])])
    ids = ids_of(frame, table.id, path)
    classes, targets = parse_labels(frame, table, path)
    n_labels = targets.sum(1)
    if table.single and (wrong := n_labels != 1).any():
        raise CompError(
            f"{path} has images without exactly one label: {summarize(ids[wrong])}; "
            "labels.single = true expects one each"
        )
    empty = ids[n_labels == 0]
    if len(empty) and not table.empty:
        raise CompError(
            f"{path} has images without any label: {summarize(empty)}; "
            "if this is intended, set labels.empty = true"
        )
    groups = _fold_groups(frame[table.group], ids) if table.group else None
    return Labels(ids, classes, targets, groups)


def columns_of(table: LabelTable) -> list[str]:
    """Return the columns of labels that the competition names."""
    if table.column:
        return [table.column]
    return [*table.classes, *filter(None, [table.none]), *table.ignore]


def parse_labels(frame: pd.DataFrame, table: LabelTable, path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Return (classes, (N, C) uint8) from a table with the columns of `columns_of`."""
    if table.column:
        texts, separator = frame[table.column], separator_of(table)
        return parse_tags(texts, table.classes, separator, table.indices, path, table.none)
    while is_index(frame) and frame.columns[0] != table.id:
        frame = frame.iloc[:, 1:]
    others = (table.id, table.group, table.none, *table.ignore)
    classes = table.classes or tuple(c for c in frame.columns if c not in others)
    hint = "; labels.ignore names columns that are not labels" if not table.classes else ""
    targets = parse_columns(frame[list(classes)], path, hint)
    if table.none:
        is_none = parse_columns(frame[[table.none]], path)[:, 0] == 1
        if (wrong := is_none != (targets.sum(1) == 0)).any():
            raise CompError(
                f"{path}: {table.none} must be 1 where there is no label and 0 elsewhere; it is not for "
                f"{summarize(frame[table.id].to_numpy(str)[wrong])}"
            )
    return classes, targets


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
        _check_names(strange, separator, line_of)
        if not classes and not indices:
            _check_sets(split, separator, path)
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


def _fold_groups(cells: Iterable[str], ids: np.ndarray) -> np.ndarray:
    """Return (N,) str: the group of each image. An image without a group is a group of its own."""
    texts = [cell.strip() for cell in cells]
    return np.array(
        [f"{UNGROUPED_PREFIX}{i}" if t.lower() in NO_GROUP_TEXTS else t for t, i in zip(texts, ids.tolist())],
        str,
    )


def count_ungrouped(labels: Labels) -> int:
    """Return the number of images without a group, by the column labels.group; 0 without this column."""
    groups = [] if labels.fold_groups is None else labels.fold_groups.tolist()
    return sum(name.startswith(UNGROUPED_PREFIX) for name in groups)


def parse_columns(frame: pd.DataFrame, path: Path, hint: str = "") -> np.ndarray:
    """Return (N, C) uint8 from columns of 0 and 1, 0.0 and 1.0, true and false, or yes and no.

    Raise CompError for other values; `hint` ends its message."""
    values = np.zeros(frame.shape, np.int8)
    for c in range(frame.shape[1]):
        codes, texts = pd.factorize(frame.iloc[:, c].to_numpy(object))
        values[:, c] = np.array([_zero_or_one(str(text)) for text in texts], np.int8)[codes]
    wrong = np.argwhere(values < 0)
    if len(wrong):
        names = frame.columns[np.unique(wrong[:, 1])]
        row, c = wrong[0]
        raise CompError(
            f"{path}: columns hold values other than 0 and 1: {summarize(names)}; "
            f"in line {frame.index[row]}, {frame.columns[c]} is {str(frame.iat[row, c])!r}{hint}"
        )
    return values.astype(np.uint8)


ZERO_OR_ONE = {"0": 0, "false": 0, "no": 0, "1": 1, "true": 1, "yes": 1}


def _zero_or_one(text: str) -> int:
    """Return 0 or 1, or -1 for any other text."""
    text = text.strip().lower()
    return ZERO_OR_ONE.get(re.sub(r"^([01])\.0*$", r"\1", text), -1)


# --- tags ---------------------------------------------------------------------------------------------------

SEPARATORS = (" ", ",", "/", "+", "&", "-", "_")  # may separate labels or be part of a name


def split_tags(texts: Sequence[str], classes: Sequence[str], separator: str | None) -> list[list[str]]:
    """Return the tags of each text. If all texts are lists, as Python and JSON write them, these are their
    items. If all texts are in quotation marks, these are removed first."""
    unknown = set(texts) - {"", *classes}
    lists: dict[str, list[str]] = {}
    if all(text[0] in "[({" and text[-1] in "])}" for text in unknown):
        lists = {text: tags for text in unknown if (tags := _listed(text)) is not None}
        lists = lists if len(lists) == len(unknown) else {}
    elif all(text[0] in "'\"" and text.count(text[0]) == 2 and text[-1] == text[0] for text in unknown):
        texts = [text[1:-1] if text in unknown else text for text in texts]
    parts = (
        lists[text] if text in lists else [text] if separator is None else text.split(separator)
        for text in texts
    )  # fmt: skip
    return [[tag for tag in (t.strip() for t in row) if tag] for row in parts]


def _listed(text: str) -> list[str] | None:
    """Return ['red', 'blue'] for "['red', 'blue']", or None for a text that is not a list of texts or
    integers."""
    if re.search(r"""['"]\s+['"]""", text):  # numpy writes lists without commas
        return None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(value, list | tuple | set) or any(type(tag) not in (str, int) for tag in value):
        return None
    return [str(tag) for tag in value]


def _check_names(tags: Collection[str], separator: str | None, line_of: Callable[[str], str]) -> None:
    """Raise CompError for a tag that is hardly the name of one label."""
    joints = [] if separator is None else ["|", ";", "\t", "\n", *([","] if separator == " " else [])]
    for tag in sorted(tags):
        where, shown = line_of(tag), repr(tag[:60])
        if tag.lower() in ("nan", "<na>", "null"):
            raise CompError(
                f"{where}: the label {shown} looks like an empty cell; leave the cell "
                "empty, set labels.none if it means no label, or list it in labels.classes"
            )
        if tag[0] in "[{'\"" or tag[-1] in "]}'\"" or tag.count("(") != tag.count(")"):
            raise CompError(
                f"{where}: the label {shown} has brackets or quotation marks around it; write labels "
                f"as a{separator or ' '}b, or list it in labels.classes if that is its name"
            )
        if joint := next((joint for joint in joints if joint != separator and joint in tag), None):
            raise CompError(
                f"{where}: the label {shown} looks like several; set separator = {joint!r} if that "
                f"separates them (now it is {separator!r}), or list it in labels.classes if it is one label"
            )


def _check_sets(split: list[list[str]], separator: str | None, path: Path) -> None:
    """Raise CompError if sets of labels seem to be read as single labels, because the separator is wrong."""
    seen = {tag for tags in split for tag in tags}
    for joint in SEPARATORS if separator is not None else ():
        parts = {tag: {part.strip() for part in tag.split(joint)} - {""} for tag in seen if joint in tag}
        sets = sorted(tag for tag, names in parts.items() if len(names) > 1 and names <= seen)
        if not sets and joint not in "-_" and max(map(len, split)) == 1:
            names = set().union(seen - parts.keys(), *parts.values())
            sets = sorted(parts) if len(names) < len(seen) else []
        if sets and joint != separator:
            raise CompError(
                f"{path} has labels that look like several others: {summarize(sets)}; set separator = "
                f"{joint!r} if that separates them (now it is {separator!r}), labels.single = true if "
                "each text is one label, or list the labels in labels.classes"
            )
    if len(seen) == sum(map(len, split)) >= 10:
        raise CompError(
            f"{path}: each of its {len(seen)} labels is in one row only: {summarize(sorted(seen))}; set "
            "labels.column and separator to those of the file, or list the labels in labels.classes"
        )
