"""The picture of the ledger: scores by date, and leaderboard over cross-fitted scores."""

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any

from comp.artifacts.paths import ledger_path
from comp.kaggle.ledger import Row, sign_of
from comp.plots.style import ACCENT, GOOD, MAIN, escape_text, new_figure, save, styled

PARTS = (  # the column, its name, its marks
    ("cross_fitted", "cross-fitted", "s", GOOD),
    ("public", "public", "o", MAIN),
    ("private", "private", "D", ACCENT),
)

MIN_BESIDE = timedelta(minutes=30)  # beside the first and the last submission


def draw(rows: list[Row]) -> None:
    """Draw ledger.png: a row of panels per competition."""
    save(new_ledger(rows), ledger_path().with_suffix(".png"), dpi=120)


@styled
def new_ledger(rows: list[Row]) -> Any:
    """Return a figure with two panels per competition: all scores by date, and public and private scores over
    cross-fitted ones. Points that rise to the right can be trusted; others were fitted to the folds or to the
    leaderboard."""
    names = sorted({row["competition"] for row in rows})
    figure = new_figure(figsize=(12, 5.2 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), 2, squeeze=False, width_ratios=(1, 1.15))
    for (by_date, by_score), title in zip(panels, names):
        mine = [row for row in rows if row["competition"] == title]
        lower = " (lower is better)" if sign_of(mine[0]) < 0 else ""
        _draw_dates(by_date, mine)
        by_date.set(title=escape_text(title), ylabel=f"score{lower}")
        _draw_scores(by_score, mine)
        by_score.set(title="leaderboard against cross-fitted", ylabel=f"leaderboard score{lower}")
        by_score.set_xlabel(f"cross-fitted score{lower}")
    return figure


def _draw_dates(panel: Any, rows: list[Row]) -> None:
    from matplotlib.dates import AutoDateLocator, num2date
    from matplotlib.ticker import FuncFormatter

    dated = sorted(((when, row) for row in rows if (when := date_of(row))), key=lambda pair: pair[0])
    if not dated:
        panel.axis("off")
        return
    for part, label, marker, colour in PARTS:
        points = [(when, float(row[part])) for when, row in dated if row[part]]
        if points:
            style: dict[str, Any] = {"marker": marker, "markersize": 5, "color": colour, "alpha": 0.85}
            panel.plot(*zip(*points), label=label, linewidth=1, **style)
    first, last = dated[0][0], dated[-1][0]
    days = (last - first).days

    def text(value: float, _: int) -> str:
        when = num2date(value)
        day = f"{when.day} {when:%b}" + (f"\n{when.year}" if first.year != last.year else "")
        return day if days >= 3 else f"{day}\n{when:%H:%M}"

    panel.xaxis.set_major_locator(AutoDateLocator(minticks=2, maxticks=6))
    panel.xaxis.set_major_formatter(FuncFormatter(text))
    panel.set_xlabel(f"written (UTC{f', {first.year}' if first.year == last.year else ''})")
    beside = max(0.06 * (last - first), MIN_BESIDE)
    panel.set_xlim(first - beside, last + beside)
    panel.grid(axis="y")
    panel.legend(loc="best")


def date_of(row: Row) -> datetime | None:
    """Return when a submission was written, in UTC; None for a time that can't be read."""
    with contextlib.suppress(ValueError):
        when = datetime.fromisoformat(row.get("time", ""))
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return None


def _draw_scores(panel: Any, rows: list[Row]) -> None:
    """Draw leaderboard over cross-fitted scores, each with its name and date."""
    values = [float(row["cross_fitted"]) for row in rows]
    for part, label, marker, colour in PARTS[1:]:
        points = [(float(row["cross_fitted"]), float(row[part])) for row in rows if row[part]]
        if points:
            panel.scatter(*zip(*points), marker=marker, color=colour, label=label, alpha=0.85)
            values += [y for _, y in points]
    low, high = min(values), max(values)
    taken: list[tuple[float, float]] = []  # places of names; each is moved up until it overlaps no other
    for x, y, name in sorted((float(r["cross_fitted"]), float(r["public"]), _named(r)) for r in rows):
        right, at = x > (low + high) / 2, y
        while any(abs(at - v) < 0.03 * (high - low) and abs(x - u) < (high - low) / 2 for u, v in taken):
            at += 0.005 * (high - low)
        taken.append((x, at))
        panel.annotate(
            name, (x, y), (x + (-0.02 if right else 0.02) * (high - low), at), fontsize=7,
            va="center", ha="right" if right else "left",
            arrowprops={"arrowstyle": "-", "color": "0.7", "lw": 0.6},
        )  # fmt: skip
    panel.axline(
        (low, low), (high or 1, high or 1) if high > low else (low + 1, low + 1), color="0.8", zorder=0
    )
    panel.grid()
    panel.legend(loc="best")


def _named(row: Row) -> str:
    when = date_of(row)
    return escape_text(row["name"]) + (f", {when.day} {when:%b}" if when else "")
