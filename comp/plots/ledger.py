"""The picture of the ledger: leaderboard over cross-fitted scores."""

from comp.artifacts.paths import ledger_path
from comp.kaggle.ledger import Row, sign_of
from comp.plots.style import escape_text, new_figure, save


def draw(rows: list[Row]) -> None:
    """Draw ledger.png: a panel per competition, public and private scores over cross-fitted ones. Points that
    rise to the right can be trusted; others were fitted to the folds or to the leaderboard."""
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
        taken: list[tuple[float, float]] = []  # places of names; each is moved up until it overlaps no other
        for x, y, name in sorted((float(r["cross_fitted"]), float(r["public"]), r["name"]) for r in mine):
            right, at = x > (low + high) / 2, y
            while any(abs(at - v) < 0.025 * (high - low) and abs(x - u) < (high - low) / 2 for u, v in taken):
                at += 0.005 * (high - low)
            taken.append((x, at))
            panel.annotate(
                escape_text(name), (x, y), (x + (-0.02 if right else 0.02) * (high - low), at), fontsize=7,
                va="center", ha="right" if right else "left",
                arrowprops={"arrowstyle": "-", "color": "0.7", "lw": 0.6},
            )  # fmt: skip
        panel.axline(
            (low, low), (high or 1, high or 1) if high > low else (low + 1, low + 1), color="0.8", zorder=0
        )
        lower = " (lower is better)" if sign_of(mine[0]) < 0 else ""
        panel.set(title=escape_text(title), ylabel=f"leaderboard score{lower}")
        panel.set_xlabel(f"cross-fitted score{lower}")
        panel.legend(loc="lower right")
    path = ledger_path().with_suffix(".png")
    save(figure, path, dpi=120)
