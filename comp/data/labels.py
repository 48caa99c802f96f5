"""Labels(ids, classes, targets), read from a competition's CSV: tag strings or 0/1 columns <-> a 0/1
matrix."""

import ast
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from comp.artifacts.csv_tables import ids_of, is_index, read_table
from comp.config.competition import LabelTable, separator_of
from comp.errors import CompError, some

NO_GROUP = ("", "nan", "none", "null", "n/a", "#n/a", "<na>")  # texts, in lower case
ALONE = " "  # before the id, the group of an image without one; other groups have no blank in front


@dataclass(frozen=True)
class Labels:
    ids: np.ndarray  # (N,) str
    classes: tuple[str, ...]  # (C,)
    targets: np.ndarray  # (N, C) uint8
    groups: np.ndarray | None = None  # (N,) str: rows that must stay in one fold


def read_labels(path: Path, table: LabelTable) -> Labels:
    """The training labels.

    Raises CompError for a missing column, an id that stands there twice, a label that is not in the list of
    classes, and images without any label, or with several, where the competition allows none."""
    frame = read_table(path, [table.id, *columns_of(table), *filter(None, [table.group])])
    ids = ids_of(frame, table.id, path)
    classes, targets = parse_labels(frame, table, path)
    n_labels = targets.sum(1)
    if table.single and (wrong := n_labels != 1).any():
        raise CompError(
            f"{path} has images without exactly one label: {some(ids[wrong])}; "
            "labels.single = true expects one each"
        )
    empty = ids[n_labels == 0]
    if len(empty) and not table.empty:
        raise CompError(
            f"{path} has images without any label: {some(empty)}; if that is meant, set labels.empty = true"
        )
    groups = _groups(frame[table.group], ids) if table.group else None
    return Labels(ids, classes, targets, groups)


def columns_of(table: LabelTable) -> list[str]:
    """The columns that the labels are read from, as far as they are named."""
    if table.column:
        return [table.column]
    return [*table.classes, *filter(None, [table.none]), *table.ignore]


def parse_labels(frame: pd.DataFrame, table: LabelTable, path: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """(classes, (N, C) uint8) of a table that has the columns of `columns_of`."""
    if table.column:
        texts, separator = frame[table.column], separator_of(table)
        return parse_tags(texts, table.classes, separator, table.indices, path, table.none)
    while is_index(frame) and frame.columns[0] != table.id:
        frame = frame.iloc[:, 1:]
    others = (table.id, table.group, table.none, *table.ignore)
    classes = table.classes or tuple(c for c in frame.columns if c not in others)
    hint = "; labels.ignore names columns that are no labels" if not table.classes else ""
    targets = parse_columns(frame[list(classes)], path, hint)
    if table.none:
        said = parse_columns(frame[[table.none]], path)[:, 0] == 1
        if (wrong := said != (targets.sum(1) == 0)).any():
            raise CompError(
                f"{path}: {table.none} is not 1 where there is no label, and 0 elsewhere: "
                f"{some(frame[table.id].to_numpy(str)[wrong])}"
            )
    return classes, targets


def groups_of(table: LabelTable, classes: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    """The columns of each group of labels of which exactly one holds. Raises CompError for a label that is
    not among the classes."""
    groups = table.groups(classes)
    if unknown := sorted({name for group in groups for name in group} - set(classes)):
        raise CompError(f"labels.exclusive names {some(unknown)}; the labels are {some(classes)}")
    return tuple(tuple(classes.index(name) for name in group) for group in groups)


def parse_tags(
    texts: Sequence[str] | pd.Series,
    classes: Sequence[str],
    separator: str | None,
    indices: bool,
    path: Path,
    none: str | None = None,
) -> tuple[tuple[str, ...], np.ndarray]:
    """(classes, (N, C) uint8) of texts such as 'clear primary' or, with `indices`, '0 12'; the text `none`
    and an empty one are no label. Without `separator` a text is one label. Without `classes`, those that
    occur, sorted."""
    given, texts = texts, ["" if (text := given.strip()) == none else text for given in texts]
    split = split_tags(texts, classes, separator)
    split = [[] if tags == [none] else tags for tags in split]
    seen = {tag for tags in split for tag in tags}
    if none in seen:
        raise CompError(f"{path} has {none!r}, which stands for no label, beside others")

    def line_of(tag: str) -> str:
        row = next(row for row, tags in enumerate(split) if tag in tags)
        return f"{path}, line {given.index[row] if isinstance(given, pd.Series) else row + 1}"

    if strange := seen - set(classes):
        _check_names(strange, separator, line_of)
        if not classes and not indices:
            _check_sets(split, separator, path)
    if indices and (wrong := sorted(tag for tag in seen if not re.fullmatch(r"[0-9]{1,5}(\.0+)?", tag))):
        raise CompError(
            f"{path} has labels that are not indices: {some(wrong)}; labels.indices = true expects 0, 1, …"
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
        raise CompError(f"{path} has labels that are not in the list of classes: {some(unknown)}")
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
    """The inverse of `parse_tags` for a 0/1 matrix (N, C)."""
    names = [str(i) for i in range(len(classes))] if indices else list(classes)
    texts = [(separator or " ").join(names[c] for c in np.flatnonzero(row)) for row in decisions]
    return [text or none or "" for text in texts]


def _groups(cells: Iterable[str], ids: np.ndarray) -> np.ndarray:
    """(N,) str: the group of each image; one without a group is a group of its own."""
    texts = [cell.strip() for cell in cells]
    return np.array([f"{ALONE}{i}" if t.lower() in NO_GROUP else t for t, i in zip(texts, ids.tolist())], str)


def parse_columns(frame: pd.DataFrame, path: Path, hint: str = "") -> np.ndarray:
    """(N, C) uint8 of columns of 0 and 1, also as numbers with a point, true and false, or yes and no."""
    values = np.zeros(frame.shape, np.int8)
    for c in range(frame.shape[1]):
        codes, texts = pd.factorize(frame.iloc[:, c].to_numpy(object))
        values[:, c] = np.array([_zero_or_one(str(text)) for text in texts], np.int8)[codes]
    wrong = np.argwhere(values < 0)
    if len(wrong):
        names = frame.columns[np.unique(wrong[:, 1])]
        row, c = wrong[0]
        raise CompError(
            f"{path}: columns hold something else than 0 and 1: {some(names)}; in line {frame.index[row]}, "
            f"{frame.columns[c]} is {str(frame.iat[row, c])!r}{hint}"
        )
    return values.astype(np.uint8)


ZERO_OR_ONE = {"0": 0, "false": 0, "no": 0, "1": 1, "true": 1, "yes": 1}


def _zero_or_one(text: str) -> int:
    """-1 for anything else."""
    text = text.strip().lower()
    return ZERO_OR_ONE.get(re.sub(r"^([01])\.0*$", r"\1", text), -1)


# --- tags ---------------------------------------------------------------------------------------------------

JOINTS = (" ", ",", "/", "+", "&", "-", "_")  # characters that join labels, and that names of labels hold too


def split_tags(texts: Sequence[str], classes: Sequence[str], separator: str | None) -> list[list[str]]:
    """The tags of each text: those of lists, as Python and JSON write them, where all texts are lists, and
    those between quotation marks where all stand in them."""
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
    """['red', 'blue'] of "['red', 'blue']"; None for a text that is no list of texts or whole numbers."""
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
    """Raises CompError for a tag that is hardly the name of one label."""
    joints = [] if separator is None else ["|", ";", "\t", "\n", *([","] if separator == " " else [])]
    for tag in sorted(tags):
        where, shown = line_of(tag), repr(tag[:60])
        if tag.lower() in ("nan", "<na>", "null"):
            raise CompError(
                f"{where}: the label {shown} is how programs write an empty cell; leave the cell "
                "empty, set labels.none if it stands for no label, or list it in labels.classes"
            )
        if tag[0] in "[{'\"" or tag[-1] in "]}'\"" or tag.count("(") != tag.count(")"):
            raise CompError(
                f"{where}: the label {shown} has brackets or quotation marks about it; write labels "
                f"as a{separator or ' '}b, or list it in labels.classes if that is its name"
            )
        if joint := next((joint for joint in joints if joint != separator and joint in tag), None):
            raise CompError(
                f"{where}: the label {shown} looks like several; set separator = {joint!r} if that "
                f"stands between them (now it is {separator!r}), or list it in labels.classes if it is one"
            )


def _check_sets(split: list[list[str]], separator: str | None, path: Path) -> None:
    """Raises CompError where each set of labels seems to be taken for a label of its own."""
    seen = {tag for tags in split for tag in tags}
    for joint in JOINTS if separator is not None else ():
        parts = {tag: {part.strip() for part in tag.split(joint)} - {""} for tag in seen if joint in tag}
        sets = sorted(tag for tag, names in parts.items() if len(names) > 1 and names <= seen)
        if not sets and joint not in "-_" and max(map(len, split)) == 1:
            names = set().union(seen - parts.keys(), *parts.values())
            sets = sorted(parts) if len(names) < len(seen) else []
        if sets and joint != separator:
            raise CompError(
                f"{path} has labels that look like several of its others: {some(sets)}; set separator = "
                f"{joint!r} if that stands between them (now it is {separator!r}), labels.single = true if "
                "each text is one label, or list the labels in labels.classes"
            )
    if len(seen) == sum(map(len, split)) >= 10:
        raise CompError(
            f"{path}: each of its {len(seen)} labels stands in one row alone: {some(sorted(seen))}; set "
            "labels.column and separator to those of the file, or list the labels in labels.classes"
        )
