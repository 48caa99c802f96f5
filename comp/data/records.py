"""Images as lists of numbers in a JSON file of records: each becomes a .npy file, other cells a CSV."""

import csv
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.files import free_bytes
from comp.artifacts.safe_paths import inside, remove
from comp.console import size_text
from comp.errors import CompError

CHUNK = 1 << 24  # characters that are read at once


def unpack_records(path: Path, folder: Path, id_field: str) -> None:
    """Write FOLDER/{id}_{field}.npy, float32, for each field of numbers of each record in the list that the
    JSON file `path` holds, and FOLDER/<stem>.csv with all other fields.

    Numbers in one list are a square image, lists of lists an image as they are. Raise CompError for other
    contents, and if they don't fit on the disk; `folder` exists completely or not at all."""
    partial = folder.with_name(f".{folder.name}.partial")
    if (size := path.stat().st_size) > (free := free_bytes(folder)):
        raise CompError(f"{path} needs up to {size_text(size)}, and {size_text(free)} are free")
    remove(partial, inside=folder.parent)
    partial.mkdir(parents=True)
    try:
        _write_records(path, partial, id_field)
        partial.replace(folder)
    finally:
        remove(partial, inside=folder.parent)


def _write_records(path: Path, folder: Path, id_field: str) -> None:
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for number, record in enumerate(_records(path), 1):
        name = record.get(id_field) if isinstance(record, dict) else None
        if not isinstance(name, str | int) or str(name) in seen:
            raise CompError(
                f"{path}, record {number}: an id of its own is expected in {id_field!r}: {name!r}"
            )
        seen.add(str(name))
        cells = {}
        for field, value in record.items():
            if not _is_numeric(value):
                cells[field] = json.dumps(value) if isinstance(value, list | dict) else value
                continue
            target = inside(folder, f"{name}_{field}.npy", path)
            if target.parent != folder:
                raise CompError(f"{path}, record {number}: the id {name!r} can't be the name of a file")
            np.save(target, _image(value, f"{path}, record {name}, {field}"))
        rows.append(cells)
    if not rows:
        raise CompError(f"{path} holds no records")
    with (folder / f"{path.stem}.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def _is_numeric(value: Any) -> bool:
    """Return whether a value is a list whose first innermost member is a number."""
    is_list = isinstance(value, list)
    while isinstance(value, list) and value:
        value = value[0]
    return is_list and isinstance(value, int | float)


def _image(value: list[Any], where: str) -> np.ndarray:
    try:
        array = np.asarray(value, np.float32)
    except (TypeError, ValueError) as error:
        raise CompError(f"{where}: a list of numbers is expected") from error
    if array.ndim == 1 and (side := math.isqrt(array.size)) ** 2 == array.size > 0:
        return array.reshape(side, side)
    if array.ndim in (2, 3) and array.size:
        return array
    raise CompError(f"{where} has {array.shape} numbers; a square image is expected, or lists of rows")


def _records(path: Path) -> Iterator[Any]:
    """Yield the members of a JSON list one by one: a file of gigabytes is never in memory as a whole."""
    decoder, text, at = json.JSONDecoder(), "", 0
    with path.open(encoding="utf-8-sig") as file:

        def more() -> bool:
            nonlocal text, at
            piece = file.read(CHUNK)
            text, at = text[at:] + piece, 0
            return bool(piece)

        def skip(allowed: str) -> str:
            """Return the next character, after white space and at most one of `allowed`."""
            nonlocal at
            while True:
                while at < len(text) and text[at] in " \t\r\n":
                    at += 1
                if at == len(text):
                    if not more():
                        return ""
                elif text[at] in allowed:
                    at, allowed = at + 1, ""
                else:
                    return text[at]

        if skip("") != "[":
            raise CompError(f"{path}: a JSON list of records is expected")
        at += 1
        while skip(",") not in ("]", ""):
            while True:
                try:
                    record, at = decoder.raw_decode(text, at)
                    break
                except json.JSONDecodeError as error:
                    if not more():
                        raise CompError(f"{path} is damaged or cut short ({error.msg})") from error
            yield record
        if skip("") != "]":
            raise CompError(f"{path} is damaged or cut short")
