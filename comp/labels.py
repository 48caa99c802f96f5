"""Labels(ids, classes, targets), read from a competition's CSV: tag strings or 0/1 columns <-> a 0/1
matrix."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from comp.config import LabelTable
from comp.errors import CompError, some

NO_GROUP = ("", "nan", "none", "null", "n/a", "#n/a", "<na>")  # texts, in lower case
ALONE = " "  # before the id, the group of an image without one; other groups have no blank in front


@dataclass(frozen=True)
class Labels:
    ids: np.ndarray  # (N,) str
    classes: tuple[str, ...]  # (C,)
    targets: np.ndarray  # (N, C) uint8
    groups: np.ndarray | None = None  # (N,) str: rows that must stay in one fold


def read_table(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """A CSV with every cell as text (an empty cell is ''), checked to have `columns`. Files may be zipped."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except (ValueError, OSError) as error:
        raise CompError(f"{path} cannot be read as CSV: {str(error).strip().splitlines()[0]}") from error
    for column in columns:
        if column not in table:
            raise CompError(
                f"{path} has no column {column!r}; it has {', '.join(map(str, table.columns[:20]))}"
            )
    return table


def check_unique(ids: np.ndarray, path: Path) -> None:
    twice = [name for name, count in Counter(ids.tolist()).items() if count > 1]
    if twice:
        raise CompError(
            f"{path} has ids that stand there more than once: {some(twice)}; every id once is expected"
        )


def read_labels(path: Path, table: LabelTable) -> Labels:
    """The training labels.

    Raises CompError for a missing column, an id that stands there twice, a label that is not in the list of
    classes, and images without any label, or with several, where the competition allows none."""
    needed = [
        table.id,
        *([table.column] if table.column else [*table.classes, *filter(None, [table.none])]),
        *([table.group] if table.group else []),
    ]
    frame = read_table(path, needed)
    ids = frame[table.id].to_numpy(str)
    check_unique(ids, path)
    if table.column:
        classes, targets = parse_tags(
            frame[table.column], table.classes, separator_of(table), table.indices, path, table.none
        )
    else:
        others = (table.id, table.group, table.none)
        classes = table.classes or tuple(c for c in frame.columns if c not in others)
        targets = _parse_columns(frame[list(classes)], path)
    n_labels = targets.sum(1)
    if table.none and not table.column:
        said = _parse_columns(frame[[table.none]], path)[:, 0] == 1
        if (wrong := said != (n_labels == 0)).any():
            raise CompError(
                f"{path}: {table.none} is not 1 where there is no label, and 0 elsewhere: {some(ids[wrong])}"
            )
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


def separator_of(table: LabelTable) -> str | None:
    """What stands between the labels of a text; None where each text is one label."""
    return None if table.single else table.separator


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
    texts = ["" if (text := given.strip()) == none else text for given in texts]
    parts = [[text] if separator is None else text.split(separator) for text in texts]
    split = [[tag for tag in (t.strip() for t in row) if tag] for row in parts]
    seen = {tag for tags in split for tag in tags}
    if none in seen:
        raise CompError(f"{path} has {none!r}, which stands for no label, beside others")
    if indices and (wrong := sorted(tag for tag in seen if not tag.isdigit())):
        raise CompError(
            f"{path} has labels that are not indices: {some(wrong)}; labels.indices = true expects 0, 1, …"
        )
    if indices:
        known = {str(i): i for i in range(len(classes) or 1 + max(map(int, seen), default=0))}
        split = [[str(int(tag)) for tag in tags] for tags in split]
        seen = {tag for tags in split for tag in tags}
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


def _parse_columns(frame: pd.DataFrame, path: Path) -> np.ndarray:
    values = frame.apply(pd.to_numeric, errors="coerce").to_numpy(float)
    if wrong := [c for c, column in zip(frame.columns, values.T) if not np.isin(column, (0, 1)).all()]:
        raise CompError(f"{path}: columns hold something else than 0 and 1: {some(wrong)}")
    return values.astype(np.uint8)
