"""The rows of a competition's tables: which files they name, and the ids of the test images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from comp.artifacts.csv_tables import check_unique, read_ids, read_table
from comp.config.competition import Competition
from comp.config.schema import fields_of
from comp.data.columns import format_cells
from comp.data.image_files import file_name, spread_indices
from comp.data.labels import read_rows
from comp.data.long_tables import split_rows
from comp.errors import CompError, summarize


def columns_in(patterns: Sequence[str]) -> list[str]:
    """Return the columns that templates name besides the ids."""
    return sorted({name for pattern in patterns for name in fields_of(pattern)} - {"id", "channel"})


def training_rows(path: Path, competition: Competition, columns: Sequence[str]) -> pd.DataFrame:
    """Return the table of labels, one row an image, with these columns."""
    return read_rows(path, competition.labels, [c for c in columns if c != competition.labels.id])[0]


def test_rows(files: Mapping[str, Path], competition: Competition, columns: Sequence[str]) -> pd.DataFrame:
    """Return the table of the test images: images.table, or the sample submission. Raise CompError if it
    lacks one of these columns."""
    if path := files.get("table"):
        return read_table(path, [competition.labels.id, *columns])
    path, column = files["sample"], competition.submission.id or competition.labels.id
    if columns:
        hint = "; name the table of the test images in images.table, if there is one"
        try:
            return read_table(path, [column, *columns]).rename(columns={column: competition.labels.id})
        except CompError as error:
            raise CompError(f"{error}{hint}") from error
    return pd.DataFrame({competition.labels.id: test_ids_of(files, competition)}, dtype=object)


def test_ids_of(files: Mapping[str, Path], competition: Competition) -> np.ndarray:
    """Return (N,) str: the ids of the test images. They are those of the sample submission, in its order,
    unless one answer is for several images: then they are those of images.table. Raise CompError if the table
    lacks some."""
    table, labels = files.get("table"), competition.labels
    if table and (labels.answer_id or "sample" not in files):
        return read_ids(table, labels.id)
    return sample_ids_of(files["sample"], competition)


def test_answers_of(
    files: Mapping[str, Path], competition: Competition, ids: np.ndarray
) -> np.ndarray | None:
    """Return (N,) str: which answer each of these test images belongs to; None if each has its own. Raise
    CompError unless they are the ids of the sample."""
    template = competition.labels.answer_id
    if template is None:
        return None
    found = format_cells(rows_of(files, "test", competition, fields_of(template), ids), template)
    wanted = sample_ids_of(files["sample"], competition)
    if odd := sorted(set(found.tolist()) ^ set(wanted.tolist())):
        raise CompError(
            f"{files.get('table')} and {files['sample']} have other answers: {summarize(odd)}; "
            f"labels.answer_id is {template!r}"
        )
    return found


def sample_ids_of(sample: Path, competition: Competition) -> np.ndarray:
    """Return (N,) str: the ids of a sample submission, in its order: of its images, or of its answers. Raise
    CompError for a repeated id."""
    labels, column = competition.labels, competition.submission.id or competition.labels.id
    if row := competition.submitted_row:
        names = read_table(sample, [column])[column].tolist()
        return pd.unique(np.array(split_rows(names, row, labels.classes, sample)[0], object)).astype(str)
    return read_ids(sample, column)


def lists_ids(sample: Path, competition: Competition) -> bool:
    """Return whether a sample submission is only a list of ids, and so does not say how answers are
    written."""
    column = competition.submission.id or competition.labels.id
    return list(read_table(sample, []).columns) == [column]


def rows_of(
    files: Mapping[str, Path], split: str, competition: Competition, columns: Sequence[str], ids: np.ndarray
) -> pd.DataFrame:
    """Return the rows (N,) of these ids in the table of a set of images. Raise CompError if it lacks some."""
    if split == "train":
        path, rows = files["labels"], training_rows(files["labels"], competition, columns)
    else:
        path, rows = files.get("table", files["sample"]), test_rows(files, competition, columns)
    listed = rows[competition.labels.id].to_numpy(str)
    check_unique(listed, path)
    order = pd.Index(listed).get_indexer(ids)
    if len(lacking := ids[order < 0]):
        raise CompError(f"{path} lacks ids of {split} images: {summarize(lacking.tolist())}")
    return rows.iloc[order]


def cells_of(
    files: Mapping[str, Path],
    split: str,
    competition: Competition,
    folders: Sequence[tuple[Path, str]],
    ids: np.ndarray,
) -> dict[str, list[str]]:
    """Return by column the cells (N,) of these ids that the templates of a set of images need."""
    columns = columns_in([pattern for _, pattern in folders])
    if not columns:
        return {}
    rows = rows_of(files, split, competition, columns, ids)
    return {column: rows[column].str.strip().tolist() for column in columns}


def some_names(files: Mapping[str, Path], split: str, pattern: str, competition: Competition) -> list[str]:
    """Return the names of some files that a pattern gives the rows of a table; none if the table is missing
    or can't be read, which another check says."""
    try:
        columns = columns_in([pattern])
        if split == "train":
            frame = training_rows(files["labels"], competition, columns)
        else:
            frame = test_rows(files, competition, columns)
        frame = frame.iloc[spread_indices(len(frame), 20)]
        channel = competition.images.channels[0] if competition.images.channels else ""
        rows = [dict(zip(frame.columns, row)) for row in frame.to_numpy(object).tolist()]
        return [file_name(pattern, row[competition.labels.id], channel, row) for row in rows]
    except (CompError, KeyError):
        return []
