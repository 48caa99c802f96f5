"""submissions/ledger.csv: one row per submission written or sent, safe when several processes write at
once."""

import contextlib
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from comp.artifacts.csv_tables import read_table
from comp.artifacts.files import lock, write_text
from comp.artifacts.paths import ledger_path
from comp.errors import CompError
from comp.safe_text import escape_cell, unescape_cell

COLUMNS = [
    *("time", "name", "recipe", "competition", "cross_fitted", "public", "private"),
    *("status", "slug", "ref", "sent", "message", "best"),
]
# status: "" (written but not sent), sending, pending, complete or error. ref: the submission's number on
# Kaggle. sent: the time at which sending began. Name and sent together identify a row. best: "lowest" where a
# lower score is better, as of a loss.

Row = dict[str, str]


def _is_number(text: str) -> bool:
    return math.isfinite(float(text))


def _is_time(text: str) -> bool:
    return datetime.fromisoformat(text).tzinfo is not None


CELL_CHECKS: dict[str, Callable[[str], bool]] = {  # of cells that aren't empty; ValueError means False
    **dict.fromkeys(("cross_fitted", "public", "private"), _is_number),
    "ref": lambda text: text.isascii() and text.isdigit(),
    "sent": _is_time,
    "best": lambda text: text in ("highest", "lowest"),
}
EXPECTED = {
    **dict.fromkeys(("cross_fitted", "public", "private"), "a number such as 0.93"),
    "ref": "a whole number",
    "best": "highest or lowest",
    "sent": "a time such as 2017-07-20T12:00:00+00:00",
}


def read() -> list[Row]:
    """Return the rows, oldest first; [] if there is no ledger yet. Raise CompError for a malformed cell."""
    if not ledger_path().exists():
        return []
    frame = read_table(ledger_path(), ["time", "name"])
    columns = list(dict.fromkeys([*COLUMNS, *frame.columns]))  # users may add columns
    cells = frame.reindex(columns=columns, fill_value="").astype(str).map(unescape_cell)
    rows: list[Row] = cells.to_dict("records")  # type: ignore[assignment]
    for number, row in enumerate(rows, 2):
        for column, is_valid in CELL_CHECKS.items():
            valid = False
            with contextlib.suppress(ValueError):
                required = column == "sent" and row["status"] == "sending"
                valid = is_valid(row[column]) if row[column] or required else True
            if not valid:
                raise CompError(
                    f"{ledger_path()}, line {number}: {column} is {row[column]!r}, expected "
                    f"{EXPECTED[column]}; correct it by hand"
                )
    return rows


def sign_of(row: Mapping[str, str]) -> int:
    """Return -1 where a lower score is better, else 1."""
    return -1 if row.get("best") == "lowest" else 1


def add(row: Mapping[str, Any]) -> None:
    """Add a row unless one has the same name."""

    def change(rows: list[Row]) -> None:
        if row["name"] not in {other["name"] for other in rows}:
            rows.append(_cells({key: row.get(key, "") for key in COLUMNS}))

    _write(change)


def update(row: Mapping[str, Any], **cells: Any) -> Row:
    """Change cells of the row with this name and time of sending; return the changed row."""
    changed: Row = {}

    def change(rows: list[Row]) -> None:
        for other in rows:
            if _key(other) == _key(row):
                other.update(_cells(cells))
                changed.update(other)
                return
        rows.append(_cells({**dict.fromkeys(COLUMNS, ""), **row, **cells}))
        changed.update(rows[-1])

    _write(change)
    return changed


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _write(change: Any) -> None:
    path = ledger_path()
    with lock(path.with_name(".ledger.lock"), wait=True):
        rows = read()
        before = [dict(row) for row in rows]
        change(rows)
        if rows == before:
            return
        write_text(path, pd.DataFrame(rows).fillna("").map(escape_cell).to_csv(index=False))


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["name"]), str(row.get("sent", ""))


def _cells(values: Mapping[str, Any]) -> Row:
    return {key: "" if value is None else str(value) for key, value in values.items()}
