"""The CSV that Kaggle takes: its text, and the checks of a text and of the labels against the sample."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from comp.artifacts.csv_tables import NAMELESS, check_unique, ids_of, read_table
from comp.config.loading import Competition
from comp.data.labels import format_tags, parse_tags, separator_of
from comp.errors import CompError, some


def submission_text(
    decisions: np.ndarray, ids: np.ndarray, classes: tuple[str, ...], competition: Competition, sample: Path
) -> str:
    """The CSV in the sample's columns and order. `decisions` (N, C) belongs to `ids` (N,)."""
    id_column, column, separator = columns(competition)
    labels = competition.labels
    header = list(read_table(sample, []).columns)
    _check_header(header, classes, competition, sample)
    if column:
        texts = format_tags(decisions, classes, separator, labels.indices, labels.none)
        frame = pd.DataFrame({id_column: ids, column: texts})
    else:
        frame = pd.DataFrame(decisions, columns=list(classes))
        if labels.none in header:
            frame[labels.none] = (decisions.sum(1) == 0).astype(np.uint8)
        frame.insert(0, id_column, ids)
    return frame[header].to_csv(index=False)


def check_sample(sample: Path, competition: Competition, classes: Sequence[str]) -> str | None:
    """A line on what the user should know of the sample, if anything. Raises CompError where a submission of
    these classes could not have its form."""
    id_column, column, separator = columns(competition)
    labels, frame = competition.labels, read_table(sample, [])
    _check_header(list(frame.columns), classes, competition, sample)
    ids_of(frame, id_column, sample)
    names = {str(i) for i in range(len(classes))} if labels.indices else set(classes)
    cells = frame.drop(columns=id_column).head(1000).to_numpy(object).ravel().tolist()
    texts = {text.strip() for text in set(cells)} - {"", labels.none}
    if any(_is_between(text) for text in texts - names):
        return (
            f"{sample} holds probabilities: this competition seems to want them (for AUC or log loss), and "
            "comp writes labels, which are 0 or 1"
        )
    if not column:
        return None
    if separator and (wrong := [name for name in sorted(names) if separator in name]):
        raise CompError(
            f"labels hold {separator!r}, which stands between the labels of a submission: {some(wrong)}; set "
            f"submission.separator to what {sample} has between labels"
        )
    tags = {tag.strip() for text in texts for tag in (text.split(separator) if separator else [text])} - {""}
    decorated = any(tag[0] in "[{('\"" for tag in tags)
    if tags and tags.isdisjoint(names) and (decorated or not labels.classes):
        raise CompError(
            f"{sample} holds labels that no image has: {some(sorted(tags))}; the labels are "
            f"{some(sorted(names))}: set labels.column, separator and submission.separator to those of the "
            "files, or list the labels in labels.classes if the sample's are just an example"
        )
    return None


def _is_between(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


def _check_header(header: list[str], classes: Sequence[str], competition: Competition, sample: Path) -> None:
    """Raises CompError, with what to do, where a submission would have other columns than the sample."""
    id_column, column, _ = columns(competition)
    none = competition.labels.none
    own = [column] if column else [*classes, *([none] if none in header else [])]
    others = [name for name in header if name != id_column]
    here, there = set(own), set(others)
    if id_column in header and here == there:
        return
    if id_column not in header:
        cure = "set submission.id to the column of its ids"
    elif header[0].startswith(NAMELESS):
        cure = "its first column is an index, as pandas writes it: remove it (to_csv(…, index=False))"
    elif column and there >= set(classes):
        more = "" if there <= {*classes, none} else " and labels.classes to its columns"
        cure = f'set submission.column = ""{more}, for one 0/1 column a label'
    elif not competition.labels.column and there and there < here:
        cure = f"set labels.ignore = {[name for name in own if name not in there]} if these are no labels"
    elif len(others) == 1:
        cure = f"set submission.column = {others[0]!r} for labels as texts"
    else:
        cure = "set id, column and classes to those of the files"
    raise CompError(
        f"{sample}: its columns are {some(header)}, those of a submission "
        f"would be {some([id_column, *own])}; {cure}"
    )


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
    column = labels.column if table.column is None else table.column
    return table.id or labels.id, column or None, separator
