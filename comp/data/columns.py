"""Columns of values: 0 and 1, or numbers."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from comp.config.schema import fields_of
from comp.errors import CompError, summarize

ZERO_OR_ONE = {"0": 0, "false": 0, "no": 0, "1": 1, "true": 1, "yes": 1}
UNKNOWN, WRONG = -1, -2  # among 0 and 1
NO_VALUE = ("", "na", "nan", "n/a", "none", "null")  # cells of features that are not known
NO_MEANINGS: Mapping[str, int] = MappingProxyType({})


def parse_columns(
    frame: pd.DataFrame,
    path: Path,
    hint: str = "",
    values: Mapping[str, int] = NO_MEANINGS,
    unknown: Collection[str] = (),
) -> np.ndarray:
    """Return (N, C) uint8 from columns of 0 and 1, 0.0 and 1.0, true and false, or yes and no. `values` are
    other cells that mean 0 or 1, `unknown` those that mean neither: if there are any, the result is float32
    with NaN.

    Raise CompError for other values; `hint` ends its message."""
    meanings = {_plain(text): value for text, value in values.items()}
    meanings |= {_plain(text): UNKNOWN for text in unknown}
    found = np.zeros(frame.shape, np.int8)
    for c in range(frame.shape[1]):
        codes, texts = pd.factorize(frame.iloc[:, c].to_numpy(object))
        kinds = [(meanings | ZERO_OR_ONE).get(_plain(str(text)), WRONG) for text in texts]
        found[:, c] = np.array(kinds, np.int8)[codes]
    wrong = np.argwhere(found == WRONG)
    if len(wrong):
        names = frame.columns[np.unique(wrong[:, 1])]
        row, c = wrong[0]
        text = str(frame.iat[row, c])
        if not hint and _plain(text) in ("", "-1", "nan"):
            hint = f'; labels.unknown = ["{text}"] leaves such cells out, labels.values gives them a meaning'
        raise CompError(
            f"{path}: columns hold values other than 0 and 1: {summarize(names)}; "
            f"in line {frame.index[row]}, {frame.columns[c]} is {text!r}{hint}"
        )
    if (nothing := found == UNKNOWN).any():
        return np.where(nothing, np.nan, found).astype(np.float32)
    return found.astype(np.uint8)


def _plain(text: str) -> str:
    """Return a cell so that equal values have equal texts: 1.0 is 1."""
    return re.sub(r"^(-?\d+)\.0*$", r"\1", text.strip().lower())


def read_features(frame: pd.DataFrame, patterns: Sequence[str], path: Path) -> tuple[list[str], np.ndarray]:
    """Return (names, (N, F) float32) of the columns that patterns name; NaN in empty cells. Raise CompError
    if there is none, or one holds no numbers."""
    names = match_columns(frame, patterns)
    for pattern in patterns:
        if not match_columns(frame, [pattern]):
            raise CompError(f"{path} has no column {pattern!r}; it has {', '.join(frame.columns[:20])}")
    return names, read_numbers(frame[names], path, NO_VALUE)


def match_columns(frame: pd.DataFrame, patterns: Sequence[str]) -> list[str]:
    """Return the columns that a pattern names, in the order of the patterns; * stands for any text."""
    forms = [".*".join(map(re.escape, pattern.split("*"))) for pattern in patterns]
    return list(dict.fromkeys(c for form in forms for c in frame.columns if re.fullmatch(form, c)))


def read_numbers(frame: pd.DataFrame, path: Path, unknown: Collection[str] = ()) -> np.ndarray:
    """Return (N, C) float32, NaN for the cells `unknown`. Raise CompError for a cell that is no number."""
    meanings = {_plain(text) for text in unknown}
    values = np.empty(frame.shape, np.float32)
    for c in range(frame.shape[1]):
        texts = frame.iloc[:, c]
        numbers = pd.to_numeric(texts, errors="coerce").to_numpy(float)
        left_out = texts.map(lambda text: _plain(text) in meanings).to_numpy(bool)
        if (wrong := ~np.isfinite(numbers) & ~left_out).any():
            row = int(wrong.argmax())
            raise CompError(
                f"{path}, line {frame.index[row]}: {frame.columns[c]} is {texts.iloc[row]!r}; a number is "
                "expected"
            )
        values[:, c] = np.where(left_out, np.nan, numbers)
    return values


def format_cells(frame: pd.DataFrame, template: str) -> np.ndarray:
    """Return (N,) str: a template filled with the columns of each row."""
    columns = {name: frame[name].str.strip().tolist() for name in dict.fromkeys(fields_of(template))}
    return np.array([template.format(**dict(zip(columns, row))) for row in zip(*columns.values())], str)
