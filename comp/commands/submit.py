"""submit: the CSV that Kaggle takes.

Reads runs/<recipe>/test.npz and decision.json; writes submissions/<name>.csv, <name>.json, and a row in
submissions/ledger.csv. A competition with a solution file of its own is scored at once; --send sends it to
Kaggle and waits for its score.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from comp import __version__
from comp.artifacts.csv_tables import ids_of, read_table
from comp.artifacts.git import commit
from comp.artifacts.predictions import aligned, load
from comp.artifacts.schemas import Decision, Submitted
from comp.artifacts.stamps import (
    decision_path,
    digest,
    is_done,
    read_json,
    read_stamp,
    submission_path,
    test_path,
    write_json,
    write_text,
)
from comp.config.loading import Competition, Recipe
from comp.console import say, table
from comp.data.labels import columns_of, parse_labels
from comp.data.manifest import Data, read_manifest
from comp.decisions.metrics import fbeta
from comp.decisions.rules import Fitted
from comp.errors import CompError, some
from comp.kaggle import ledger
from comp.kaggle import submit as sending
from comp.kaggle.download import sha256_of
from comp.kaggle.submission_file import check_sample, check_submission, columns, submission_text


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


def write(recipe: Recipe) -> tuple[str, dict[str, float]]:
    """Write submissions/<name>.csv, .json and the row of the ledger; give its name and scores."""
    competition = recipe.competition
    data = read_manifest(competition)
    for path, stage in ((test_path(recipe.name), "blend"), (decision_path(recipe.name), "decide")):
        if not path.exists():
            raise CompError(f"{path} is not there; run `comp {stage}` first")
    decision = read_json(decision_path(recipe.name), Decision)
    if decision["stamp"]["oof"] != digest(read_stamp(test_path(recipe.name))):
        raise CompError(
            f"{decision_path(recipe.name)} was made for other predictions; run `comp blend` and `comp decide`"
        )
    if decision["metric"] != str(competition.metric):
        raise CompError(
            f"{decision_path(recipe.name)} is for {decision['metric']}, not {competition.metric}; give both "
            "stages the same settings, or run `comp decide --force`"
        )
    classes = tuple(decision["thresholds"])
    if line := check_sample(data.sample_csv, competition, classes):
        say(f"submit: {line}")
    sample_ids, none = data.sample_ids(competition), competition.labels.none
    stamp = {
        "test": digest(read_stamp(test_path(recipe.name))),
        "decision": digest({key: value for key, value in decision.items() if key != "scores"}),
        "sample": digest(sample_ids),
        "submission": competition.submission.model_dump() | ({"none": none} if none else {}),
    }
    name = f"{recipe.name}-{digest(stamp)[:8]}"
    about = {"name": name, "recipe": recipe.name, "competition": competition.name}
    csv_path = submission_path(name)
    json_path = csv_path.with_suffix(".json")
    if csv_path.exists() and is_done(json_path, stamp, force=False):
        content = read_json(json_path, Submitted)
        if sha256_of(csv_path) == content.get("sha256"):
            ledger.add({"time": content["time"], **about, **content["scores"]})
            say(f"submit: {csv_path} done already")
            return name, content["scores"]
        say(f"submit: {csv_path} is not as it was written; it is written again")
    probs = aligned(load(test_path(recipe.name), classes), sample_ids, test_path(recipe.name))
    decisions = Fitted.from_json(decision, classes).decide(
        probs, beta=competition.metric.beta, empty=competition.metric.empty
    )
    text = submission_text(decisions, sample_ids, classes, competition, data.sample_csv)
    check_submission(text, csv_path, competition, classes, sample_ids)
    scores = {
        "cross_fitted": decision["scores"]["cross_fitted"],
        **leaderboard(decisions, classes, competition, data),
    }
    now = ledger.now()
    write_text(csv_path, text)
    ledger.add({"time": now, **about, **scores})
    write_json(
        json_path,
        {
            "scores": scores,
            "decision": {k: v for k, v in decision.items() if k != "stamp"},
            "recipe": recipe.model_dump(mode="json"),
            "commit": commit(),
            "version": __version__,
            "time": now,
            "sha256": sha256_of(csv_path),
            "stamp": stamp,
        },
    )
    say(f"submit: {csv_path}, {len(sample_ids):,} rows, {decisions.sum(1).mean():.2f} labels a row")
    return name, scores


def leaderboard(
    decisions: np.ndarray, classes: tuple[str, ...], competition: Competition, data: Data
) -> dict[str, float]:
    """Public and private score, where the competition has a solution file: what a leaderboard would say."""
    if data.solution_csv is None:
        return {}
    id_column, _, _ = columns(competition)
    labels = competition.labels.model_copy(update={"classes": classes, "id": id_column, "ignore": ()})
    solution = read_table(data.solution_csv, [id_column, *columns_of(labels), "Usage"])
    _, truth = parse_labels(solution, labels, data.solution_csv)
    wanted = data.sample_ids(competition)
    order = pd.Index(ids_of(solution, id_column, data.solution_csv)).get_indexer(wanted)
    if len(lacking := wanted[order < 0]):
        raise CompError(f"{data.solution_csv} lacks ids of the sample submission: {some(lacking)}")
    truth, usage = truth[order], solution["Usage"].to_numpy(str)[order]
    parts = {part.lower(): usage == part for part in ("Public", "Private")}
    return {
        part: fbeta(truth[rows], decisions[rows], **competition.metric.settings)
        for part, rows in parts.items()
        if rows.any()
    }


def show_scores(competition: Competition, scores: Mapping[str, float]) -> None:
    table(
        [str(competition.metric), "score"],
        [[name.replace("_", "-"), f"{score:.4f}"] for name, score in scores.items()],
    )
