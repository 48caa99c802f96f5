"""The CSV that Kaggle takes: its text, and the check of a text against the sample submission."""

import io
from pathlib import Path

import numpy as np
import pandas as pd

from comp.config import Competition
from comp.errors import CompError, some
from comp.labels import check_unique, format_tags, parse_tags, read_table, separator_of


def submission_text(
    decisions: np.ndarray, ids: np.ndarray, classes: tuple[str, ...], competition: Competition, sample: Path
) -> str:
    """The CSV in the sample's columns and order. `decisions` (N, C) belongs to `ids` (N,)."""
    id_column, column, separator = columns(competition)
    labels = competition.labels
    header = list(read_table(sample, [id_column]).columns)
    if column:
        texts = format_tags(decisions, classes, separator, labels.indices, labels.none)
        frame = pd.DataFrame({id_column: ids, column: texts})
    else:
        frame = pd.DataFrame(decisions, columns=list(classes))
        if labels.none:
            frame[labels.none] = (decisions.sum(1) == 0).astype(np.uint8)
        frame.insert(0, id_column, ids)
    if set(header) != set(frame.columns):
        raise CompError(
            f"{sample} has columns {', '.join(header)}; "
            f"the submission would have {', '.join(map(str, frame))}"
        )
    return frame[header].to_csv(index=False)


def check_submission(
    text: str, path: Path, competition: Competition, classes: tuple[str, ...], expected: np.ndarray
) -> np.ndarray:
    """The decisions (N, C) that a submission holds, once it was checked against the sample's ids
    `expected` (N,): the same, each once, in that order, known labels, and no row with none, or with several,
    where the competition allows none."""
    id_column, column, separator = columns(competition)
    labels = competition.labels
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    ids = frame[id_column].to_numpy(str)
    check_unique(ids, path)
    here, there = set(ids.tolist()), set(expected.tolist())
    if missing := sorted(there - here):
        raise CompError(f"{path} lacks ids of the sample submission: {some(missing)}")
    if extra := sorted(here - there):
        raise CompError(f"{path} has ids that the sample submission lacks: {some(extra)}")
    if ids.tolist() != expected.tolist():
        raise CompError(f"{path} is not in the order of the sample submission")
    if column:
        _, decisions = parse_tags(frame[column], classes, separator, labels.indices, path, labels.none)
    else:
        decisions = frame[list(classes)].to_numpy(int).astype(np.uint8)
    if labels.single and len(wrong := ids[decisions.sum(1) != 1]):
        raise CompError(f"{path} has rows without exactly one label: {some(wrong)}; run `comp decide`")
    if not labels.empty and len(empty := ids[decisions.sum(1) == 0]):
        raise CompError(
            f"{path} has rows without any label, which {competition.name} does not allow: {some(empty)}"
        )
    return decisions


def columns(competition: Competition) -> tuple[str, str | None, str | None]:
    """(id column, tag column or None, separator) of the submission; no separator where a row is one label."""
    table, labels = competition.submission, competition.labels
    separator = separator_of(labels) if labels.single or table.separator is None else table.separator
    return table.id or labels.id, table.column or labels.column, separator
