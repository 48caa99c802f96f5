"""submit: write the CSV that Kaggle scores, and send it.

Reads runs/<recipe>/test.npz and decision.json; writes submissions/<name>.csv, <name>.json, and a row in
submissions/ledger.csv. A competition with a solution file of its own is scored at once; --send sends the CSV
to Kaggle and waits for its score.
"""

from collections.abc import Mapping

from comp.config.competition import Competition
from comp.config.recipe import Recipe
from comp.console import info, leaderboard_text, table
from comp.decisions.given_rule import GIVEN
from comp.errors import CompError
from comp.kaggle import submit as sending
from comp.kaggle.submission_file import (
    SubmissionInputs,
    build,
    describe,
    is_written,
    read_inputs,
    reuse,
    write,
)


def run(recipe: Recipe, *, send: bool, message: str | None, again: bool, wait: float, force: bool) -> None:
    competition = recipe.competition
    if send and not competition.slug:
        raise CompError(f"{competition.name} has no slug on Kaggle to send to")
    inputs = read_inputs(recipe)
    if inputs.warning:
        info(f"submit: {inputs.warning}")
    if given := GIVEN in inputs.decision:
        info("submit: test images are decided by given thresholds, which have no cross-fitted score")
    scores = make_csv(inputs, force=force)
    if send:
        assert competition.slug
        how = (
            "given thresholds" if given else f"cross-fitted {competition.metric} {scores['cross_fitted']:.4f}"
        )
        note = message or f"{recipe.name}, {how}"
        row = sending.send(inputs.name, competition.slug, note, again=again, wait=wait)
        scores = {key: float(row[key]) for key in ("cross_fitted", "public", "private") if row[key]}
    show_scores(competition, scores)


def make_csv(inputs: SubmissionInputs, *, force: bool) -> Mapping[str, float]:
    """Write the submission unless it is written and unchanged; return its scores."""
    if not force and is_written(inputs):
        if (scores := reuse(inputs)) is not None:
            info(f"submit: {inputs.csv_path} done already")
            return scores
        info(f"submit: {inputs.csv_path} was changed since it was written; writing it again")
    built = build(inputs)
    write(inputs, built)
    what = describe(built.answers, inputs.recipe.competition)
    info(f"submit: {inputs.csv_path}, {len(inputs.sample_ids):,} rows, {what}")
    return built.scores


def show_scores(competition: Competition, scores: Mapping[str, float]) -> None:
    table(
        [str(competition.metric), "score"],
        [
            [name.replace("_", "-"), f"{score:.4f}" if name == "cross_fitted" else leaderboard_text(score)]
            for name, score in scores.items()
        ],
    )
