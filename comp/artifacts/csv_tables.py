"""Read tables as any program writes them, CSV most of all. A table that could be read in two ways is refused,
with the line."""

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

from comp.artifacts.json_tables import read_json_table
from comp.errors import CompError, summarize

UNNAMED = "Unnamed: "  # pandas' name of a column without a name, before its position
SEPARATORS = (",", ";", "\t", "|")
OTHER_TABLES = (".xlsx", ".xls", ".ods", ".feather", ".pkl", ".mat")
csv.field_size_limit(2**31 - 1)  # some tables hold masks
OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def read_table(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    """Return a table with every cell as text (an empty cell is '') and the rows' line numbers as index. Files
    may be CSV, compressed or not, in UTF-8 or UTF-16, and separated by commas, semicolons, tabs or bars; JSON
    (see `read_json_table`); and parquet.

    Empty rows, repeated headers, and empty columns without a name are left out of a CSV. Other columns
    without a name are named as by pandas. Raise CompError if one of `columns` is missing, if a row has more
    or fewer fields than the header, and if two columns have one name."""
    columns = list(columns)
    kinds = [suffix.lower() for suffix in path.suffixes]
    if ".json" in kinds:
        frame = read_json_table(path, _text)
    elif ".parquet" in kinds:
        frame = _read_parquet(path)
    elif found := next((suffix for suffix in kinds if suffix in OTHER_TABLES), None):
        raise CompError(f"{path}: {found} files are not read; save the table as CSV")
    else:
        return parse_csv(_text(path), path, columns)
    _check_columns(frame, path, columns)
    return frame


def _check_columns(frame: pd.DataFrame, path: Path | str, columns: list[str]) -> None:
    if twice := [name for name, count in Counter(frame.columns).items() if count > 1]:
        raise CompError(
            f"{path} has several columns of the same name: {summarize(twice)}; rename or remove them"
        )
    if lacking := [name for name in columns if name not in frame]:
        raise CompError(f"{path} has no column {lacking[0]!r}; it has {', '.join(frame.columns[:20])}")


def parse_csv(text: str, path: Path | str, columns: list[str]) -> pd.DataFrame:
    """Return the table of a CSV's text as `read_table` does. `path` is what messages call it."""
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
    _check_columns(frame, path, columns)
    return frame


def _read_parquet(path: Path) -> pd.DataFrame:
    """Return a parquet file as text, with the rows' positions, from 1, as index."""
    frame = read_parquet(path)
    frame.index = pd.RangeIndex(1, len(frame) + 1)
    return frame.astype(object).where(frame.notna(), "").astype(str).rename(columns=str)


def read_parquet(path: Path) -> pd.DataFrame:
    """Return a parquet file with its own types; a named index becomes columns. Raise CompError where it can't
    be read."""
    try:
        frame = pd.read_parquet(path)
    except ImportError as error:
        raise CompError(f"{path}: parquet needs pyarrow; pip install '.[parquet]'") from error
    except (ValueError, OSError) as error:
        raise CompError(f"{path} can't be read as parquet ({error})") from error
    if frame.index.name or not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    return frame


def read_ids(path: Path, column: str) -> np.ndarray:
    """Return the ids (N,) str of a table, or of a text file with an id in each line and no header. Raise
    CompError if an id is empty or occurs twice."""
    if path.suffix.lower() != ".txt":
        return ids_of(read_table(path, [column]), column, path)
    ids = [line.strip() for line in _text(path).splitlines()]
    ids = [line for line in ids if line]
    if ids[:1] == [column]:
        del ids[0]
    if not ids:
        raise CompError(f"{path} lists no ids")
    check_unique(found := np.array(ids, str), path)
    return found


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
    form = "JSON" if ".json" in path.suffixes else "CSV"
    try:
        raw = _bytes(path)
        utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = raw.decode("utf-16" if utf16 else "utf-8-sig")
    except Exception as error:  # whatever a damaged archive leads to
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        hint = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise CompError(f"{path} cannot be read as {form}: {reason}{hint}") from error
    if "\0" in text:
        raise CompError(f"{path} cannot be read as {form}: it has NUL characters; save it as UTF-8")
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


def _check_widths(rows: list[list[str]], lines: list[int], header: list[str], path: Path | str) -> None:
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
