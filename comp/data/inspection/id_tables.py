"""Tables whose rows are images: the sample submission, the table of labels, and labels in paths."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import pandas as pd

from comp.data.inspection.contents import Contents
from comp.data.inspection.images import ImageFiles

SAMPLE_NAME = re.compile(r"sample|submi", re.IGNORECASE)
TRAIN_NAME = re.compile(r"train|label|annot|target", re.IGNORECASE)
TEST_NAME = re.compile(r"test|valid|\bval\b|mapping|extra|external", re.IGNORECASE)
ID_NAME = re.compile(r"^(id|ids|image|images|img|file|name)$|image|file|id$|id_code|^id", re.IGNORECASE)
SPLITS = re.compile(r"(.*[\W_])?(train|test|val|valid|validation|images?)(ing)?([\W_\d].*)?", re.IGNORECASE)
MAX_COLUMNS = 12  # of which two are joined to the name of an answer
MIN_SHARE = 0.5  # of a column's values that name image files, for a column of ids


@dataclass(frozen=True)
class LongForm:
    """How rows of a table name an image and a class."""

    row: str  # the template
    classes: tuple[str, ...]
    column: str  # of 0 and 1; "" in a sample


@dataclass(frozen=True)
class IdTable:
    """A table with the column of ids that name image files, or of rows that do."""

    name: str
    frame: pd.DataFrame
    column: str
    share: float  # of the ids that name an image file
    long: "LongForm | None" = None
    files: str = ""  # the column that names the files, if the ids don't
    answer: str = ""  # the template of what an answer is for, if it is for several images

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
        if not len(values) or values.nunique() < 0.2 * len(values) or (values == "").any():
            continue
        share = files.share(values.tolist())
        if share >= MIN_SHARE:
            rank = (
                values.nunique() >= 0.5 * len(values),  # or a row has several images
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
        table = _id_table(name, frame, files, wanted) or find_long_form(name, frame, files)
        if table is None and contents.may_hold_more and TRAIN_NAME.search(file):
            column = wanted if wanted in frame else str(frame.columns[0])
            table = IdTable(name, frame, column, 0.0)
        says = 2 * bool(TRAIN_NAME.search(file)) - 2 * bool(TEST_NAME.search(file))
        if table and (says > 0 or len(test_ids & set(table.ids)) <= 0.5 * len(set(table.ids))):
            ranked.append((says, table.share > 0, len(frame), table))
    return max(ranked, key=lambda row: row[:3])[3] if ranked else None


def find_long_form(name: str, frame: pd.DataFrame, files: ImageFiles) -> IdTable | None:
    """Return a table with a row for each image and class, named as ID_1_any, with the ids of the images; None
    for any other table."""
    for column in frame.columns:
        names = frame[column].str.strip()
        if not names.str.contains("_").all():
            continue
        parts = names.str.rpartition("_")
        classes = tuple(parts[2].unique().tolist())
        if not 1 < len(classes) <= 0.5 * len(names) or names.nunique() < 0.9 * len(names):
            continue
        if files.share(parts[0].tolist()) > MIN_SHARE:
            values = [c for c in frame.columns if c != column]
            form = LongForm("{id}_{class}", classes, values[0] if values else "")
            return IdTable(
                name, frame.assign(**{column: parts[0]}).drop_duplicates(column), column, 1.0, form
            )
    return None


def with_files(
    sample: IdTable, train: IdTable, contents: Contents, files: ImageFiles
) -> tuple[IdTable, IdTable, IdTable] | None:
    """Return (sample, train, table of the test images) where the sample's ids name no images, but those of a
    test table that has a row for each: by another column of files, or as one answer for several images. None
    if there is no such table."""
    wanted = set(sample.ids)
    for name, frame in contents.tables.items():
        if name in (sample.name, train.name) or not len(frame):
            continue
        table = _id_table(name, frame, files, train.column)
        if table is None:
            continue
        for column in frame.columns:
            is_id = set(frame[column].str.strip()) == wanted and frame[column].nunique() == len(frame)
            if is_id and column in train.frame:
                listed = replace(table, column=column, files=table.column)
                return sample, replace(train, column=column, files=train.column), listed
        for template in _templates_of(frame):
            fields = re.findall(r"\{(.+?)\}", template)
            rows = frame[fields].apply(lambda column: column.str.strip()).to_numpy(object).tolist()
            if wanted == {template.format(**dict(zip(fields, row))) for row in rows} and set(fields) <= set(
                train.frame
            ):
                return sample, train, replace(table, answer=template)
    return None


def _templates_of(frame: pd.DataFrame) -> Iterator[str]:
    """Yield what one answer may be for: a column, or two of them with _ or - between."""
    yield from (f"{{{name}}}" for name in frame.columns)
    for first, second in permutations(frame.columns[:MAX_COLUMNS], 2):
        yield from (f"{{{first}}}{joint}{{{second}}}" for joint in "_-")


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
    """Return (the folder of the training images, the label of each path below it, the template of these
    paths): of folders that are named by class, or of names such as cat.0.jpg. None if there are no such
    images."""
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
            ranked.append((bool(TRAIN_NAME.search(root)), len(labels), root, labels, "{label}/{id}"))
    by_folder: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for path in images:
        folder, _, name = path.rpartition("/")
        match = re.fullmatch(r"([A-Za-z][A-Za-z _]*?)([._ -])\d+\.\w+", name)
        if match and not TEST_NAME.search(folder):
            by_folder[folder, match[2]][name] = match[1]
    for (folder, joint), labels in by_folder.items():
        counts = Counter(labels.values())
        if 1 < len(counts) < 0.2 * len(labels):
            template = f"{{label}}{joint}{{id}}"
            ranked.append((bool(TRAIN_NAME.search(folder)), len(labels), folder, labels, template))
    if not ranked:
        return None
    _, _, root, labels, template = max(ranked, key=lambda row: row[:2])
    return root, dict(sorted(labels.items())), template
