"""ledger: all submissions as a table, and their scores as a picture.

Reads submissions/ledger.csv, which --sync updates from Kaggle; writes submissions/ledger.png. --pick names
two submissions to end with, by their scores and CSVs.
"""

from comp.artifacts.paths import ledger_path
from comp.console import info, leaderboard_text, table
from comp.errors import CompError
from comp.kaggle import ledger
from comp.kaggle import submit as sending
from comp.kaggle.ledger import Row
from comp.kaggle.pick import pick_two
from comp.plots.ledger import draw


def run(*, sync: bool, pick: bool) -> None:
    if sync:
        n_changed = sending.sync()
        info(f"ledger: {n_changed} row{'s' if n_changed != 1 else ''} changed on Kaggle")
    rows = ledger.read()
    if not rows:
        raise CompError(f"{ledger_path()} is not there; `comp submit` writes its first row")
    columns = ["submission", "cross-fitted", "public", "private", "status", "written (UTC)", "message"]
    table(columns, [_line(row) for row in rows], shortened=len(columns) - 1)
    if pick:
        show_picks(rows)
    if points := [row for row in rows if row["cross_fitted"] and row["public"]]:
        try:
            draw(points)
        except CompError as error:
            info(f"ledger: no picture: {error}")
            return
        info(f"ledger: cross-fitted against leaderboard scores in {ledger_path().with_suffix('.png')}")


def show_picks(rows: list[Row]) -> None:
    """Print for each competition the two submissions to end with, and why."""
    for competition in dict.fromkeys(row["competition"] for row in rows):
        mine = [row for row in rows if row["competition"] == competition]
        if not (picks := pick_two(mine)):
            info(f"ledger: {competition}: no submission has a cross-fitted score and its CSV to pick")
            continue
        info(f"ledger: {competition}, to end with")
        for picked in picks:
            sent = picked.row["ref"] or not any(row["ref"] for row in mine)
            unsent = "" if sent else "; not sent yet"
            score = f"{float(picked.row['cross_fitted']):.4f}"
            info(f"  {picked.row['name']}, cross-fitted {score}: {picked.reason}{unsent}")
        if len(picks) == 1:
            info("  no other submission differs from it; blend or change the recipe for a second one")


def _line(row: Row) -> list[str]:
    board = [leaderboard_text(float(row[key])) if row[key] else "" for key in ("public", "private")]
    return [
        row["name"],
        f"{float(row['cross_fitted']):.4f}" if row["cross_fitted"] else "",
        *board,
        row["status"] or "written",
        row["time"][:16].replace("T", " "),
        " ".join(row["message"].split()),
    ]
