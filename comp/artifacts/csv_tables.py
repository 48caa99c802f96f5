"""Read CSV tables as any program writes them. A table that could be read in two ways is refused, with the
line."""

import bz2
import codecs
import csv
import gzip
import io
import lzma
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comp.errors import CompError, summarize

UNNAMED = "Unnamed: "  # pandas' name of a column without a name, before its position
SEPARATORS = (",", ";", "\t", "|")
csv.field_size_limit(2**31 - 1)  # some tables hold masks
OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def read_table(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Return a CSV with every cell as text (an empty cell is '') and the rows' line numbers as index. Files
    may be compressed, in UTF-8 or UTF-16, and separated by commas, semicolons, tabs or bars.

    Empty rows, repeated headers, and empty columns without a name are left out. Other columns without a name
    are named as by pandas. Raise CompError if one of `columns` is missing, if a row has more or fewer fields
    than the header, and if two columns have one name."""
    columns = list(columns)
    text = _text(path)
    separator = _separator(text, columns)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    rows, lines = [], []
    try:
        for row in reader:
            if (row and row[0].strip()) or any(cell.strip() for cell in row):
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise CompError(
            f"{path} cannot be read as CSV: line {max(lines, default=0) + 1}: {error}; is a quotation mark "
            "missing?"
        ) from error
    if not rows:
        raise CompError(f"{path} cannot be read as CSV: it is empty")
    header = [name.strip() for name in rows[0]]
    while not header[-1]:
        header.pop()
    _check_widths(rows, lines, header, path)
    frame = pd.DataFrame(rows[1:], columns=header, index=lines[1:], dtype=object)
    if again := [i for i, row in enumerate(rows[1:]) if row[0] == rows[0][0] and row == rows[0]]:
        frame = frame.drop(index=frame.index[again])
    if "" in header:
        named = [bool(name) or frame.iloc[:, i].str.strip().any() for i, name in enumerate(header)]
        frame.columns = [name or _unnamed(i, header) for i, name in enumerate(header)]
        frame = frame.loc[:, named]
    if twice := [name for name, count in Counter(frame.columns).items() if count > 1]:
        raise CompError(
            f"{path} has several columns of the same name: {summarize(twice)}; rename or remove them"
        )
    if lacking := [name for name in columns if name not in frame]:
        raise CompError(f"{path} has no column {lacking[0]!r}; it has {', '.join(frame.columns[:20])}")
    return frame


def ids_of(frame: pd.DataFrame, column: str, path: Path) -> np.ndarray:
    """Return the ids (N,) str. Raise CompError if there are none, if one is empty, and if one occurs
    twice."""
    ids = frame[column].to_numpy(str)
    if not len(ids):
        raise CompError(f"{path} has a header but no rows")
    if len(empty := frame.index[np.char.strip(ids) == ""]):
        raise CompError(f"{path}, line {empty[0]}: no {column}; give the row an id, or remove it")
    check_unique(ids, path)
    return ids


def check_unique(ids: np.ndarray, path: Path) -> None:
    """Raise CompError if an id occurs more than once."""
    twice = [name for name, count in Counter(ids.tolist()).items() if count > 1]
    if twice:
        raise CompError(
            f"{path} has ids more than once: {summarize(twice)}; every id must be there exactly once"
        )


def is_index(frame: pd.DataFrame) -> bool:
    """Whether the first column is an unnamed one of row numbers, as pandas writes its index."""
    return str(frame.columns[0]).startswith(UNNAMED) and bool(
        frame.iloc[:, 0].astype(str).str.fullmatch("[0-9]+").all()
    )


def _unnamed(position: int, header: list[str]) -> str:
    name = f"{UNNAMED}{position}"
    return f"{name}.1" if name in header else name


def _text(path: Path) -> str:
    try:
        raw = _bytes(path)
        utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = raw.decode("utf-16" if utf16 else "utf-8-sig")
    except Exception as error:  # whatever a damaged archive leads to
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise CompError(f"{path} cannot be read as CSV: {reason}{hint}") from error
    if "\0" in text:
        raise CompError(f"{path} cannot be read as CSV: it has NUL characters; save it as UTF-8")
    return text


def _bytes(path: Path) -> bytes:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if not n.startswith("__MACOSX/") and not n.endswith("/")]
            if len(names) != 1:
                raise ValueError(f"expected one file in it, found {summarize(names)}")
            return archive.read(names[0])
    with OPENERS.get(path.suffix, open)(path, "rb") as file:
        return file.read()


def _separator(text: str, columns: list[str]) -> str:
    """Return the separator that splits the header into the most names, preferring one that gives all of
    `columns`."""
    header = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    names = {separator: [n.strip(' "\n') for n in header.split(separator)] for separator in SEPARATORS}
    return max(SEPARATORS, key=lambda s: (set(columns) <= set(names[s]), len(names[s])))


def _check_widths(rows: list[list[str]], lines: list[int], header: list[str], path: Path) -> None:
    """Cut empty fields beyond the header's width. Raise CompError for rows of another width."""
    width = len(header)
    for row, line in zip(rows, lines):
        if len(row) == width:
            continue
        if len(row) < width or any(cell.strip() for cell in row[width:]):
            shown = " | ".join(cell[:30] for cell in row[: width + 3])
            cure = (
                "is the file truncated?"
                if len(row) < width
                else 'put text that contains the separator in quotation marks, as "a, b"'
            )
            raise CompError(
                f"{path}, line {line}: {len(row)} fields ({shown}), but the header has {width}; {cure}"
            )
        del row[width:]
