"""Tables whose rows are images: the sample submission, the table of labels, and labels in paths."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from comp.data.inspection.contents import Contents
from comp.data.inspection.images import ImageFiles

SAMPLE_NAME = re.compile(r"sample|submi", re.IGNORECASE)
TRAIN_NAME = re.compile(r"train|label|annot|target", re.IGNORECASE)
TEST_NAME = re.compile(r"test|valid|\bval\b|mapping|extra|external", re.IGNORECASE)
ID_NAME = re.compile(r"^(id|ids|image|images|img|file|name)$|image|file|id$|id_code|^id", re.IGNORECASE)
SPLITS = re.compile(r"(.*[\W_])?(train|test|val|valid|validation|images?)(ing)?([\W_\d].*)?", re.IGNORECASE)
MIN_SHARE = 0.5  # of a column's values that name image files, for a column of ids


@dataclass(frozen=True)
class IdTable:
    """A table with the column of ids that name image files."""

    name: str
    frame: pd.DataFrame
    column: str
    share: float  # of the ids that name an image file

    @property
    def ids(self) -> list[str]:
        return self.frame[self.column].str.strip().tolist()

    @property
    def file(self) -> str:
        return self.name.rpartition("/")[2]


def sample_of(contents: Contents, files: ImageFiles) -> IdTable | None:
    """Return the sample submission: a table that is named so."""
    named = [name for name in contents.tables if SAMPLE_NAME.search(name.rpartition("/")[2])]
    for name in sorted(named, key=lambda name: ("sample" not in name.lower(), name)):
        frame = contents.tables[name]
        if len(frame) and frame.shape[1] > 1:
            return _id_table(name, frame, files) or IdTable(name, frame, str(frame.columns[0]), 0.0)
    return None


def _id_table(name: str, frame: pd.DataFrame, files: ImageFiles, wanted: str = "") -> IdTable | None:
    """Return the table with the column whose values name image files, preferably `wanted`; None if there is
    none."""
    best: tuple[Any, ...] | None = None
    for position, column in enumerate(frame.columns):
        values = frame[column].str.strip()
        if not len(values) or values.nunique() < 0.5 * len(values) or (values == "").any():
            continue
        share = files.share(values.tolist())
        if share >= MIN_SHARE:
            rank = (
                round(share, 1),
                column.lower() == wanted.lower(),
                bool(ID_NAME.search(column)),
                -position,
            )
            if best is None or rank > best[0]:
                best = (rank, column, share)
    return IdTable(name, frame, best[1], best[2]) if best else None


def training_table(contents: Contents, files: ImageFiles, sample: IdTable | None) -> IdTable | None:
    """Return the table with the labels: its ids name images and are not those of the sample."""
    test_ids = set(sample.ids) if sample else set()
    wanted = sample.column if sample else ""
    ranked = []
    for name, frame in contents.tables.items():
        file = name.rpartition("/")[2]
        if (
            (sample and name == sample.name)
            or SAMPLE_NAME.search(file)
            or frame.shape[1] < 2
            or not len(frame)
        ):
            continue
        table = _id_table(name, frame, files, wanted)
        if table is None and contents.may_hold_more and TRAIN_NAME.search(file):
            column = wanted if wanted in frame else str(frame.columns[0])
            table = IdTable(name, frame, column, 0.0)
        says = 2 * bool(TRAIN_NAME.search(file)) - 2 * bool(TEST_NAME.search(file))
        if table and (says > 0 or len(test_ids & set(table.ids)) <= 0.5 * len(set(table.ids))):
            ranked.append((says, table.share > 0, len(frame), table))
    return max(ranked, key=lambda row: row[:3])[3] if ranked else None


def find_test_table(contents: Contents, files: ImageFiles, train: IdTable) -> IdTable | None:
    """Return a table of test images: one that is named so and whose ids, which name images, are not those of
    the training table."""
    for word in ("test", "val"):
        for name, frame in contents.tables.items():
            if word in name.rpartition("/")[2].lower() and name != train.name:
                table = _id_table(name, frame, files, train.column)
                if table and not set(table.ids) & set(train.ids):
                    return table
    return None


def labels_in_paths(images: Sequence[str]) -> tuple[str, dict[str, str], str] | None:
    """Return (the folder of the training images, the label of each path below it, what holds the label): of
    folders that are named by class, or of names such as cat.0.jpg. None if there are no such images."""
    by_root: dict[str, dict[str, str]] = defaultdict(dict)
    for path in images:
        parts = path.split("/")
        if len(parts) > 1:
            by_root["/".join(parts[:-2])]["/".join(parts[-2:])] = parts[-2]
    ranked = []
    for root, labels in by_root.items():
        counts = Counter(labels.values())
        is_test = bool(re.search(TEST_NAME, root.rpartition("/")[2]))
        if len(counts) > 1 and not any(map(SPLITS.fullmatch, counts)) and not is_test:
            ranked.append(
                (bool(TRAIN_NAME.search(root)), len(labels), root, labels, "the name of each folder")
            )
    by_folder: dict[str, dict[str, str]] = defaultdict(dict)
    for path in images:
        folder, _, name = path.rpartition("/")
        if (match := re.fullmatch(r"([A-Za-z][A-Za-z ]*?)[._ -]?\d+\.\w+", name)) and not TEST_NAME.search(
            folder
        ):
            by_folder[folder][name] = match[1]
    for folder, labels in by_folder.items():
        counts = Counter(labels.values())
        if 1 < len(counts) < 0.2 * len(labels):
            start = "the start of each name"
            ranked.append((bool(TRAIN_NAME.search(folder)), len(labels), folder, labels, start))
    if not ranked:
        return None
    _, _, root, labels, how = max(ranked, key=lambda row: row[:2])
    return root, dict(sorted(labels.items())), how
