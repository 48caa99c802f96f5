"""Tables of text, as any program writes them: read where they have one meaning, refused with the line where
they don't."""

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

from comp.errors import CompError, some

NAMELESS = "Unnamed: "  # and the position: what pandas calls a column without a name
SEPARATORS = (",", ";", "\t", "|")
csv.field_size_limit(2**31 - 1)  # some tables hold masks
OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def read_table(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """A CSV with every cell as text (an empty cell is ''), checked to have `columns`. Its index holds the
    rows' lines. Files may be zipped, in UTF-8 or UTF-16, and separated by commas, semicolons, tabs or bars.

    Empty rows, repeated headers, and columns without a name that hold nothing are left out; others without
    a name are called as pandas does it.
    Raises CompError for a row of more or fewer fields than the header, and for a column that is named
    twice."""
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
            "not closed?"
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
        frame.columns = [name or _nameless(i, header) for i, name in enumerate(header)]
        frame = frame.loc[:, named]
    if twice := [name for name, count in Counter(frame.columns).items() if count > 1]:
        raise CompError(
            f"{path} has columns of one name: {some(twice)}; give each a name of its own, or remove it"
        )
    if lacking := [name for name in columns if name not in frame]:
        raise CompError(f"{path} has no column {lacking[0]!r}; it has {', '.join(frame.columns[:20])}")
    return frame


def ids_of(frame: pd.DataFrame, column: str, path: Path) -> np.ndarray:
    """(N,) str. Raises CompError for no ids, for an empty one, and for one that stands there twice."""
    ids = frame[column].to_numpy(str)
    if not len(ids):
        raise CompError(f"{path} has a header and no rows")
    if len(empty := frame.index[np.char.strip(ids) == ""]):
        raise CompError(f"{path}, line {empty[0]}: no {column}; give the row an id, or remove it")
    check_unique(ids, path)
    return ids


def check_unique(ids: np.ndarray, path: Path) -> None:
    twice = [name for name, count in Counter(ids.tolist()).items() if count > 1]
    if twice:
        raise CompError(
            f"{path} has ids that stand there more than once: {some(twice)}; every id once is expected"
        )


def is_index(frame: pd.DataFrame) -> bool:
    """Whether the first column looks like the row numbers that pandas writes without a name."""
    return str(frame.columns[0]).startswith(NAMELESS) and bool(
        frame.iloc[:, 0].astype(str).str.fullmatch("[0-9]+").all()
    )


def _nameless(position: int, header: list[str]) -> str:
    name = f"{NAMELESS}{position}"
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
        raise CompError(f"{path} cannot be read as CSV: it holds null characters; save it as UTF-8")
    return text


def _bytes(path: Path) -> bytes:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if not n.startswith("__MACOSX/") and not n.endswith("/")]
            if len(names) != 1:
                raise ValueError(f"one file in it is expected, found {some(names)}")
            return archive.read(names[0])
    with OPENERS.get(path.suffix, open)(path, "rb") as file:
        return file.read()


def _separator(text: str, columns: list[str]) -> str:
    """The one that makes the most of the header, and all of `columns` where one does."""
    header = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    names = {separator: [n.strip(' "\n') for n in header.split(separator)] for separator in SEPARATORS}
    return max(SEPARATORS, key=lambda s: (set(columns) <= set(names[s]), len(names[s])))


def _check_widths(rows: list[list[str]], lines: list[int], header: list[str], path: Path) -> None:
    """Cut the rows to the header's width where what is beyond is empty. Raises CompError for others."""
    width = len(header)
    for row, line in zip(rows, lines):
        if len(row) == width:
            continue
        if len(row) < width or any(cell.strip() for cell in row[width:]):
            shown = " | ".join(cell[:30] for cell in row[: width + 3])
            cure = (
                "is the file cut?"
                if len(row) < width
                else 'put a text that holds the separator in quotation marks, as "a, b"'
            )
            raise CompError(
                f"{path}, line {line}: {len(row)} fields ({shown}) under a header of {width}; {cure}"
            )
        del row[width:]
