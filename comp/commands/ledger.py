"""ledger: all submissions as a table, and their scores as a picture.

Reads submissions/ledger.csv, which --sync updates from Kaggle; writes submissions/ledger.png.
"""

from comp.artifacts.paths import ledger_path
from comp.console import info, table
from comp.errors import CompError
from comp.kaggle import ledger
from comp.kaggle import submit as sending
from comp.kaggle.ledger import Row
from comp.plots.ledger import draw


def run(*, sync: bool) -> None:
    if sync:
        n_changed = sending.sync()
        info(f"ledger: {n_changed} row{'s' if n_changed != 1 else ''} changed on Kaggle")
    rows = ledger.read()
    if not rows:
        raise CompError(f"{ledger_path()} is not there; `comp submit` writes its first row")
    columns = ["submission", "cross-fitted", "public", "private", "status", "written (UTC)", "message"]
    table(columns, [_line(row) for row in rows], shortened=len(columns) - 1)
    if points := [row for row in rows if row["cross_fitted"] and row["public"]]:
        try:
            draw(points)
        except CompError as error:
            info(f"ledger: no picture: {error}")
            return
        info(f"ledger: cross-fitted against leaderboard scores in {ledger_path().with_suffix('.png')}")


def _line(row: Row) -> list[str]:
    scores = [f"{float(row[key]):.4f}" if row[key] else "" for key in ("cross_fitted", "public", "private")]
    return [
        row["name"],
        *scores,
        row["status"] or "written",
        row["time"][:16].replace("T", " "),
        " ".join(row["message"].split()),
    ]
