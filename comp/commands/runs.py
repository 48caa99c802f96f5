"""runs: all runs as a table, by competition and metric.

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
    for competition, metric in dict.fromkeys(map(_scored_by, runs)):
        mine = [one for one in runs if _scored_by(one) == (competition, metric)]
        ranked = sorted((one for one in mine if one.cross_fitted is not None), key=_score)
        rank = {one.recipe.name: str(place) for place, one in enumerate(ranked, 1)}
        if by == "score":
            mine = [*ranked, *(one for one in mine if one.cross_fitted is None)]
        info(f"runs: {competition}, {metric}")
        columns = ["run", "backbone", "px", "folds", "CV", "public", "private", "time", "rank"]
        lines = [_line(one, rank.get(one.recipe.name, "")) for one in mine]
        if any(one.corrected is not None for one in mine):
            columns.insert(5, "corrected")
            for one, line in zip(mine, lines):
                line.insert(5, "" if one.corrected is None else f"{one.corrected:.4f}")
        table(columns, lines, shortened=1)


def _scored_by(one: RunSummary) -> tuple[str, str]:
    """Return the competition and the metric of a run; others' scores compare with none of its own."""
    return one.recipe.competition.name, str(one.recipe.competition.metric)


def _score(one: RunSummary) -> float:
    assert one.cross_fitted is not None
    return one.cross_fitted * (-1 if one.recipe.competition.metric.greater_is_better else 1)


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
