"""Corrections of labels: a CSV of id, label and value, as the report writes it. Training uses the corrected
labels; folds, rules and scores stay those of the given ones, which a leaderboard has."""

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from comp.artifacts.csv_tables import parse_csv
from comp.artifacts.stamps import digest
from comp.config.competition import Competition
from comp.config.schema import did_you_mean
from comp.data.labels import Labels, exclusive_groups
from comp.errors import CompError, summarize
from comp.safe_text import unescape_cell

COLUMNS = ("id", "label", "value", "who", "when")
FILE = "labels.corrections"  # what messages call it; its text is in the recipe


@dataclass(frozen=True)
class Correction:
    line: int
    id: str
    label: str
    value: float | None  # of a label 1: it holds, 0: it does not; the right number; None: unsure
    who: str
    when: str


def read_corrections(competition: Competition) -> list[Correction]:
    """Return the corrections of a competition, in the order of the file. Raise CompError for cells that are
    not understood, and for rows that contradict each other."""
    if not competition.labels.corrections:
        return []
    numbers = competition.metric.kind == "numbers"
    frame = parse_csv(competition.labels.corrections, FILE, list(COLUMNS[:3]))
    cells = frame.reindex(columns=list(COLUMNS), fill_value="")
    found: list[Correction] = []
    first: dict[tuple[str, str], Correction] = {}
    for line, row in zip(frame.index.tolist(), cells.itertuples(index=False, name=None)):
        image, label, text, who, when = map(unescape_cell, map(str, row))
        if not image.strip() or not label.strip():
            raise CompError(f"{FILE}, line {line}: id and label are expected, found {image!r} and {label!r}")
        one = Correction(line, image, label, _value(text.strip(), line, numbers=numbers), who, when)
        found.append(one)
        if one.value is None:
            continue
        before = first.setdefault((image, label), one)
        if before.value != one.value:
            raise CompError(
                f"{FILE}, lines {before.line} and {line}: {label!r} of {image!r} is {before.value:g} and "
                f"{one.value:g}; keep one of the two rows"
            )
    return found


def _value(text: str, line: int, *, numbers: bool) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) if numbers else value in (0, 1)):
        expected = "a number" if numbers else "1 (the label holds), 0 (it does not)"
        raise CompError(
            f"{FILE}, line {line}: the value is {text!r}; {expected} or nothing (unsure) is expected"
        )
    return value


def corrections_stamp(competition: Competition) -> dict[str, str]:
    """Return what stamps hold of the corrections; nothing without any. Who made them and when, and rows of
    which somebody was unsure, change nothing."""
    rows = {(one.id, one.label, one.value) for one in read_corrections(competition) if one.value is not None}
    return {"corrections": digest(sorted(rows))} if rows else {}


def correct(labels: Labels, competition: Competition) -> Labels:
    """Return the labels with the corrections of the competition. A label that holds replaces the others of
    its exclusive group. Raise CompError for ids and labels that are not there, and for an image that is left
    with none or several labels where the competition expects one."""
    rows = [one for one in read_corrections(competition) if one.value is not None]
    if not rows:
        return labels
    row_of, column_of = _positions(labels.ids), _positions(labels.classes)
    _check_known(rows, row_of, column_of)
    at = np.array([row_of[one.id] for one in rows]), np.array([column_of[one.label] for one in rows])
    values = np.array([one.value for one in rows])
    targets = labels.targets.copy()
    if competition.metric.kind != "numbers":
        for group in exclusive_groups(competition.labels, labels.classes):
            holds = (values == 1) & np.isin(at[1], group)
            targets[np.ix_(at[0][holds], group)] = 0
    targets[at] = values
    if competition.metric.kind != "numbers":
        _check_counts(labels, targets, rows, competition)
    return replace(labels, targets=targets)


def _positions(names: Any) -> dict[str, int]:
    return {name: i for i, name in enumerate(list(names))}


def _check_known(rows: list[Correction], row_of: dict[str, int], column_of: dict[str, int]) -> None:
    if lacking := dict.fromkeys(one.id for one in rows if one.id not in row_of):
        line = next(one.line for one in rows if one.id in lacking)
        raise CompError(
            f"{FILE}, line {line}: ids that the labels lack: {summarize(lacking)}; are they of another "
            "competition?"
        )
    if wrong := next((one for one in rows if one.label not in column_of), None):
        hint = did_you_mean(wrong.label, column_of) or f"; the labels are {summarize(column_of)}"
        raise CompError(f"{FILE}, line {wrong.line}: no label {wrong.label!r}{hint}")


def _check_counts(
    labels: Labels, targets: np.ndarray, rows: list[Correction], competition: Competition
) -> None:
    """Raise CompError where corrections leave an image with none or several of labels that exclude each
    other, or without any label where it needs one."""
    changed, lines = differences(labels.targets, targets), defaultdict(list)
    for one in rows:
        lines[one.id].append(one.line)
    wholes = [(group, "exactly one") for group in exclusive_groups(competition.labels, labels.classes)]
    if not competition.labels.empty:
        wholes.append((tuple(range(len(labels.classes))), "at least one"))
    for group, expected in wholes:
        part = targets[:, group]
        n_labels, known = np.nansum(part, 1), ~np.isnan(part).any(1)
        wrong = changed[:, group].any(1) & ((n_labels == 0) & known | (n_labels > 1) & (expected[0] == "e"))
        for row in np.flatnonzero(wrong)[:1].tolist():
            image, names = str(labels.ids[row]), [labels.classes[c] for c in group]
            left = [labels.classes[c] for c in group if targets[row, c] == 1]
            said = f"line{'s' * (len(lines[image]) > 1)} {', '.join(map(str, lines[image][:5]))}"
            raise CompError(
                f"{FILE}, {said}: {image!r} is left with {' and '.join(map(repr, left)) or 'none'} of "
                f"{summarize(names, 8)}; {expected} is expected, so say with value 1 which label holds"
            )


def differences(given: np.ndarray, corrected: np.ndarray) -> np.ndarray:
    """Return (N, C) bool: where two matrices of targets differ; two unknown ones are equal."""
    return (given != corrected) & ~(np.isnan(given) & np.isnan(corrected))


def settled(labels: Labels, competition: Competition) -> np.ndarray:
    """Return (N, C) bool: the labels that somebody found right or wrong, those included that a label of their
    exclusive group excludes."""
    found = np.zeros(labels.targets.shape, bool)
    row_of, column_of = _positions(labels.ids), _positions(labels.classes)
    numbers = competition.metric.kind == "numbers"
    groups = () if numbers else exclusive_groups(competition.labels, labels.classes)
    for one in read_corrections(competition):
        if one.value is None or one.id not in row_of or one.label not in column_of:
            continue
        row, c = row_of[one.id], column_of[one.label]
        found[row, c] = True
        for group in groups if one.value == 1 else ():
            if c in group:
                found[row, list(group)] = True
    return found


def describe_corrections(given: np.ndarray, corrected: np.ndarray, competition: Competition) -> str:
    """Return what differs between two matrices of targets: '57 labels of 50 images'."""
    noun = "number" if competition.metric.kind == "numbers" else "label"
    changed = differences(given, corrected)
    n, images = int(changed.sum()), int(changed.any(1).sum())
    return f"{n:,} {noun}{'s' * (n != 1)} of {images:,} image{'s' * (images != 1)}"
