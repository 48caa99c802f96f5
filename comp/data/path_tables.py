"""Tables of what only the paths of images say: the labels, where they are names of folders or parts of names,
the ids of the test images, where no table lists them, and the files of each id, where it has several."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comp.artifacts.csv_tables import ids_of, read_ids, read_table
from comp.artifacts.files import write_text
from comp.config.competition import Competition
from comp.config.labels import ANSWER, LABEL
from comp.config.schema import fields_of
from comp.data.columns import format_cells
from comp.data.folder_files import files_in
from comp.data.image_files import template_to_regex, to_nfc
from comp.data.table_rows import sample_ids_of, test_rows
from comp.errors import CompError, summarize

LABELS_FILE, TEST_FILE = "labels-of-paths.csv", "test-ids.csv"
SEVERAL_FILES = {"train": "labels-of-files.csv", "test": "test-files.csv"}


def write_tables(
    found: dict[str, Any], folder: Path, competition: Competition, parts: Collection[str]
) -> dict[str, str]:
    """Write the tables of `parts` (labels, sample) that the competition does not have, or as a text file
    only, to `folder`, the data folder, and return their names by part. `found` are files and images as a
    manifest has them. Raise CompError for images without an id of their own."""
    written = {}
    places = {
        split: [(folder / row["folder"], row["pattern"]) for row in rows]
        for split, rows in found["images"].items()
    }
    if "labels" in parts and not competition.labels.csv:
        frame = labels_in_paths(places["train"], competition.labels.id, places["test"])
        written["labels"] = LABELS_FILE
        _write(folder / LABELS_FILE, frame, "images.train")
    if competition.images.several:
        return written | _write_tables_of_files(found["files"], places, folder, competition, parts)
    column, listed = competition.submission.id or competition.labels.id, found["files"].get("sample", "")
    if "sample" in parts and (not listed or listed.endswith(".txt")):
        if listed:  # a list without a header
            ids = read_ids(folder / listed, column).tolist()
        elif "table" in found["files"]:
            files = {name: folder / file for name, file in found["files"].items()}
            template = competition.labels.answer_id or f"{{{competition.labels.id}}}"
            rows = test_rows(files, competition, fields_of(template))
            ids = list(dict.fromkeys(format_cells(rows, template).tolist()))
        else:
            ids = ids_in_paths(places["test"])
        written["sample"] = TEST_FILE
        _write(folder / TEST_FILE, pd.DataFrame({column: ids}), "images.test")
    return written


def _write_tables_of_files(
    files: dict[str, str],
    places: dict[str, list[tuple[Path, str]]],
    folder: Path,
    competition: Competition,
    parts: Collection[str],
) -> dict[str, str]:
    """Write tables with a row for each file: of the training images with the cells of their id, and of the
    test images. Raise CompError for an id in the table of labels without a file."""
    written, column = {}, competition.labels.id
    if "labels" in parts:
        path = folder / files["labels"]
        table = read_table(path, [column])
        if ANSWER in table:
            raise CompError(f"{path}: rename the column {ANSWER!r}; comp writes a column of this name itself")
        ids, rows = ids_of(table, column, path), files_of_ids(places["train"], column)
        if len(lacking := ids[~np.isin(ids, rows[ANSWER])]):
            raise CompError(f"{path} has ids without a file in images.train: {summarize(lacking.tolist())}")
        joined = rows.merge(table.assign(**{ANSWER: ids}).drop(columns=column), on=ANSWER)
        written["labels"] = SEVERAL_FILES["train"]
        _write(folder / written["labels"], joined, "images.train")
    if "sample" in parts:
        written["table"] = SEVERAL_FILES["test"]
        rows = files_of_ids(places["test"], column)
        if "sample" in files:
            rows = rows[rows[ANSWER].isin(sample_ids_of(folder / files["sample"], competition))]
        else:
            written["sample"] = TEST_FILE
            answers = {competition.submission.id or column: rows[ANSWER].drop_duplicates()}
            _write(folder / TEST_FILE, pd.DataFrame(answers), "images.test")
        _write(folder / written["table"], rows, "images.test")
    return written


def files_of_ids(folders: Sequence[tuple[Path, str]], id_column: str) -> pd.DataFrame:
    """Return a table of the files that fit patterns with {id} and {any}: the path below the folder without
    the ending, which is the id of the image, and the id in it, in natural order."""
    rows: dict[str, str] = {}
    for folder, pattern in folders:
        fits, ending = template_to_regex(pattern).fullmatch, ending_of(pattern)
        for name, _ in files_in(folder, pattern):
            if match := fits(name):
                rows[name.removesuffix(ending)] = match["id"]
    names = sorted(rows, key=natural)
    return pd.DataFrame({id_column: names, ANSWER: [rows[name] for name in names]}, dtype=object)


def _write(path: Path, frame: pd.DataFrame, key: str) -> None:
    if frame.empty:
        raise CompError(f"{path.name} can't be written: no file fits {key}")
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def labels_in_paths(
    folders: Sequence[tuple[Path, str]], id_column: str, others: Sequence[tuple[Path, str]] = ()
) -> pd.DataFrame:
    """Return a table of the ids and labels that the paths of images hold, but for those in folders of
    `others`, as Test is for {label}. An id is the path below the folder, without the ending: cat/1 for
    {label}/{id}.jpg."""
    rows: list[tuple[str, str]] = []
    for folder, pattern in folders:
        fits, ending = template_to_regex(pattern).fullmatch, ending_of(pattern)
        left_out = tuple(f"{to_nfc(str(o.relative_to(folder)))}/" for o, _ in others if folder in o.parents)
        rows += [
            (name.removesuffix(ending), match[LABEL])
            for name, _ in files_in(folder, pattern)
            if (match := fits(name)) and not name.startswith(left_out)
        ]
    return pd.DataFrame(sorted(rows), columns=[id_column, LABEL])


def ids_in_paths(folders: Sequence[tuple[Path, str]]) -> list[str]:
    """Return the ids of the images that fit the patterns, in natural order: 2 before 10. Raise CompError for
    a pattern without {id}."""
    found: dict[str, None] = {}
    for folder, pattern in folders:
        fits = template_to_regex(pattern, identifier=".+").fullmatch
        if "{id}" not in pattern:
            raise CompError(f"images.test holds no {{id}} ({pattern}): set submission.sample or images.table")
        found |= {match["id"]: None for name, _ in files_in(folder, pattern) if (match := fits(name))}
    return sorted(found, key=natural)


def with_paths_as_ids(
    folders: Sequence[tuple[Path, str]], split: str, competition: Competition
) -> list[tuple[Path, str]]:
    """Return the folders of a set of images, with {id} for the whole path where that is an image's id."""
    if competition.images.several or (split == "train" and not competition.labels.csv):
        return [(folder, f"{{id}}{ending_of(pattern)}") for folder, pattern in folders]
    return list(folders)


def ending_of(pattern: str) -> str:
    """Return what follows the last field of a pattern, such as .jpg."""
    return pattern.rpartition("}")[2]


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts numbers in texts by their size."""
    return [(1, int(p), p) if p.isdecimal() else (0, 0, p) for p in re.split(r"(\d+)", text)]
