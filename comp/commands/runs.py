"""runs: all runs as a table, by competition.

Reads runs/<name>/recipe.toml, logs, decision.json, and submissions/ledger.csv.
"""

from comp.artifacts.paths import runs_dir
from comp.console import clock, info, leaderboard_text, table
from comp.errors import CompError
from comp.evaluation.run_summary import RunSummary, summarize_runs
from comp.kaggle import ledger


def run(*, by: str) -> None:
    runs = summarize_runs(ledger.read())
    if not runs:
        raise CompError(f"{runs_dir()}/ holds no runs; `comp run demo` makes the first")
    for competition in dict.fromkeys(one.recipe.competition.name for one in runs):
        mine = [one for one in runs if one.recipe.competition.name == competition]
        ranked = sorted((one for one in mine if one.cross_fitted is not None), key=_score)
        rank = {one.recipe.name: str(place) for place, one in enumerate(ranked, 1)}
        if by == "score":
            mine = [*ranked, *(one for one in mine if one.cross_fitted is None)]
        info(f"runs: {competition}, {mine[0].recipe.competition.metric}")
        columns = ["run", "backbone", "px", "folds", "CV", "public", "private", "time", "rank"]
        table(columns, [_line(one, rank.get(one.recipe.name, "")) for one in mine], shortened=1)


def _score(one: RunSummary) -> float:
    assert one.cross_fitted is not None
    return -one.cross_fitted


def _line(one: RunSummary, rank: str) -> list[str]:
    return [
        one.recipe.name,
        one.backbones,
        one.sizes,
        f"{one.n_done}/{one.n_networks}",
        "" if one.cross_fitted is None else f"{one.cross_fitted:.4f}",
        *("" if score is None else leaderboard_text(score) for score in (one.public, one.private)),
        clock(one.seconds) if one.seconds else "",
        rank,
    ]
