"""Tables of what only the paths of images say: the labels, where they are names of folders or parts of names,
and the ids of the test images, where no table lists them."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from comp.artifacts.csv_tables import read_ids
from comp.artifacts.files import write_text
from comp.config.competition import Competition
from comp.config.labels import LABEL
from comp.config.schema import fields_of
from comp.data.columns import format_cells
from comp.data.folder_files import files_in
from comp.data.image_files import template_to_regex
from comp.data.table_rows import test_rows
from comp.errors import CompError

LABELS_FILE, TEST_FILE = "labels-of-paths.csv", "test-ids.csv"


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
        frame = labels_in_paths(places["train"], competition.labels.id)
        written["labels"] = LABELS_FILE
        _write(folder / LABELS_FILE, frame, "images.train")
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


def _write(path: Path, frame: pd.DataFrame, key: str) -> None:
    if frame.empty:
        raise CompError(f"{path.name} can't be written: no file fits {key}")
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def labels_in_paths(folders: Sequence[tuple[Path, str]], id_column: str) -> pd.DataFrame:
    """Return a table of the ids and labels that the paths of images hold. An id is the path below the folder,
    without the ending: cat/1 for {label}/{id}.jpg."""
    rows: list[tuple[str, str]] = []
    for folder, pattern in folders:
        fits, ending = template_to_regex(pattern).fullmatch, ending_of(pattern)
        rows += [
            (name.removesuffix(ending), match[LABEL])
            for name, _ in files_in(folder, pattern)
            if (match := fits(name))
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


def ending_of(pattern: str) -> str:
    """Return what follows the last field of a pattern, such as .jpg."""
    return pattern.rpartition("}")[2]


def natural(text: str) -> list[tuple[int, int, str]]:
    """Return a key that sorts numbers in texts by their size."""
    return [(1, int(p), p) if p.isdecimal() else (0, 0, p) for p in re.split(r"(\d+)", text)]
