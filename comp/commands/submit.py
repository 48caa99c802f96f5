"""submit: the CSV that Kaggle takes.

Reads runs/<recipe>/test.npz and decision.json; writes submissions/<name>.csv, <name>.json, and a row in
submissions/ledger.csv. A competition with a solution file of its own is scored at once; --send sends it to
Kaggle and waits for its score.
"""

from collections.abc import Mapping

from comp.config.competition import Competition
from comp.config.recipe import Recipe
from comp.console import table
from comp.errors import CompError
from comp.kaggle import submit as sending
from comp.kaggle.submission_file import write


def run(recipe: Recipe, *, send: bool, message: str | None, again: bool, wait: float) -> None:
    competition = recipe.competition
    if send and not competition.slug:
        raise CompError(f"{competition.name} has no slug on Kaggle to send to")
    name, scores = write(recipe)
    if send:
        assert competition.slug
        note = message or f"{recipe.name}, cross-fitted {competition.metric} {scores['cross_fitted']:.5f}"
        row = sending.send(name, competition.slug, note, again=again, wait=wait)
        scores = {key: float(row[key]) for key in ("cross_fitted", "public", "private") if row[key]}
    show_scores(competition, scores)


def show_scores(competition: Competition, scores: Mapping[str, float]) -> None:
    table(
        [str(competition.metric), "score"],
        [[name.replace("_", "-"), f"{score:.4f}"] for name, score in scores.items()],
    )
