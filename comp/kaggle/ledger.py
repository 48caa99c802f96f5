"""submissions/ledger.csv: a row for every submission written or sent, kept whole when several processes write
at once."""

import contextlib
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from comp.artifacts.csv_tables import read_table
from comp.artifacts.files import waiting_lock, write_text
from comp.artifacts.paths import ledger_path
from comp.errors import CompError
from comp.safe_text import as_cell, of_cell

COLUMNS = [
    *("time", "name", "recipe", "competition", "cross_fitted", "public", "private"),
    *("status", "slug", "ref", "sent", "message"),
]
# status: "" written and not sent, sending, pending, complete, error; ref: the submission's number on Kaggle;
# sent: when sending began, which with the name stands for the row.

Row = dict[str, str]


def _is_number(text: str) -> bool:
    return math.isfinite(float(text))


def _is_time(text: str) -> bool:
    return datetime.fromisoformat(text).tzinfo is not None


FITS: dict[str, Callable[[str], bool]] = {  # a cell that isn't empty; a ValueError says no as well
    **dict.fromkeys(("cross_fitted", "public", "private"), _is_number),
    "ref": lambda text: text.isascii() and text.isdigit(),
    "sent": _is_time,
}
EXPECTED = {
    **dict.fromkeys(("cross_fitted", "public", "private"), "a number such as 0.93"),
    "ref": "a whole number",
    "sent": "a time such as 2017-07-20T12:00:00+00:00",
}


def read() -> list[Row]:
    """The rows, oldest first; empty where there is no ledger yet."""
    if not ledger_path().exists():
        return []
    frame = read_table(ledger_path(), ["time", "name"])
    columns = list(dict.fromkeys([*COLUMNS, *frame.columns]))  # people add columns of their own
    cells = frame.reindex(columns=columns, fill_value="").astype(str).map(of_cell)
    rows: list[Row] = cells.to_dict("records")  # type: ignore[assignment]
    for number, row in enumerate(rows, 2):
        for column, fits in FITS.items():
            good = False
            with contextlib.suppress(ValueError):
                due = column == "sent" and row["status"] == "sending"
                good = fits(row[column]) if row[column] or due else True
            if not good:
                raise CompError(
                    f"{ledger_path()}, line {number}: {column} is {row[column]!r}, and {EXPECTED[column]} is "
                    "expected; mend it by hand"
                )
    return rows


def add(row: Mapping[str, Any]) -> None:
    """One more row, unless there is one of its name."""

    def change(rows: list[Row]) -> None:
        if row["name"] not in {other["name"] for other in rows}:
            rows.append(_cells({key: row.get(key, "") for key in COLUMNS}))

    _write(change)


def update(row: Mapping[str, Any], **cells: Any) -> Row:
    """Change cells of a row, found by its name and time of sending; give it as it is then."""
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
    with waiting_lock(path.with_name(".ledger.lock")):
        rows = read()
        before = [dict(row) for row in rows]
        change(rows)
        if rows == before:
            return
        write_text(path, pd.DataFrame(rows).fillna("").map(as_cell).to_csv(index=False))


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return str(row["name"]), str(row.get("sent", ""))


def _cells(values: Mapping[str, Any]) -> Row:
    return {key: "" if value is None else str(value) for key, value in values.items()}
