"""ledger: all submissions as a table, and their scores as a picture.

Reads submissions/ledger.csv, which --sync brings up to date with Kaggle; writes submissions/ledger.png.
"""

from comp.artifacts.stamps import ledger_path
from comp.console import say, table
from comp.errors import CompError
from comp.kaggle import ledger
from comp.kaggle import submit as sending
from comp.kaggle.ledger import Row
from comp.plots.style import new_figure, save, written


def run(*, sync: bool) -> None:
    if sync:
        n_changed = sending.sync()
        say(f"ledger: {n_changed} row{'s' if n_changed != 1 else ''} changed on Kaggle since")
    rows = ledger.read()
    if not rows:
        raise CompError(f"{ledger_path()} is not there; `comp submit` writes its first row")
    columns = ["submission", "cross-fitted", "public", "private", "status", "written (UTC)", "message"]
    table(columns, [_line(row) for row in rows], shortened=len(columns) - 1)
    if points := [row for row in rows if row["cross_fitted"] and row["public"]]:
        try:
            draw(points)
        except CompError as error:
            say(f"ledger: no picture: {error}")
            return
        say(f"ledger: cross-fitted against leaderboard scores in {ledger_path().with_suffix('.png')}")


def _line(row: Row) -> list[str]:
    scores = [f"{float(row[key]):.4f}" if row[key] else "" for key in ("cross_fitted", "public", "private")]
    return [
        row["name"],
        *scores,
        row["status"] or "written",
        row["time"][:16].replace("T", " "),
        " ".join(row["message"].split()),
    ]


def draw(rows: list[Row]) -> None:
    """ledger.png: a panel a competition, public and private score over the cross-fitted one. What climbs to
    the right can be trusted; what does not was fitted to one of the two."""

    names = sorted({row["competition"] for row in rows})
    figure = new_figure(figsize=(6.4, 5.2 * len(names)), layout="constrained")
    for panel, title in zip(figure.subplots(len(names), squeeze=False)[:, 0], names):
        mine = [row for row in rows if row["competition"] == title]
        values = [float(row["cross_fitted"]) for row in mine]
        for part, marker, color in (("public", "o", "tab:blue"), ("private", "D", "tab:orange")):
            points = [(x, float(row[part])) for x, row in zip(values, mine) if row[part]]
            if points:
                panel.scatter(*zip(*points), marker=marker, color=color, label=part, alpha=0.8)
                values += [y for _, y in points]
        low, high = min(values), max(values)
        taken: list[tuple[float, float]] = []  # by names, which go up as far as others are in their way
        for x, y, name in sorted((float(r["cross_fitted"]), float(r["public"]), r["name"]) for r in mine):
            right, at = x > (low + high) / 2, y
            while any(abs(at - v) < 0.025 * (high - low) and abs(x - u) < (high - low) / 2 for u, v in taken):
                at += 0.005 * (high - low)
            taken.append((x, at))
            panel.annotate(
                written(name), (x, y), (x + (-0.02 if right else 0.02) * (high - low), at), fontsize=7,
                va="center", ha="right" if right else "left",
                arrowprops={"arrowstyle": "-", "color": "0.7", "lw": 0.6},
            )  # fmt: skip
        panel.axline(
            (low, low), (high or 1, high or 1) if high > low else (low + 1, low + 1), color="0.8", zorder=0
        )
        panel.set(title=written(title), xlabel="cross-fitted score", ylabel="leaderboard score")
        panel.legend(loc="lower right")
    path = ledger_path().with_suffix(".png")
    save(figure, path, dpi=120)
