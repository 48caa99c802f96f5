"""The submission CSV: built in the sample submission's format, checked against the sample, written."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comp import __version__
from comp.artifacts.csv_tables import check_unique, ids_of, read_table
from comp.artifacts.decision_schema import Decision, classes_of
from comp.artifacts.files import read_json, write_json, write_text
from comp.artifacts.git import commit
from comp.artifacts.paths import decision_path, submission_path, test_path
from comp.artifacts.predictions import aligned, by_answer, load
from comp.artifacts.schemas import Submitted
from comp.artifacts.stamps import digest, is_done, read_stamp
from comp.config.competition import Competition, columns
from comp.config.recipe import Recipe
from comp.data.labels import columns_of, parse_labels
from comp.data.manifest import CompetitionFiles, read_manifest
from comp.data.table_rows import lists_ids
from comp.decisions.answer_rules import rule_from_json
from comp.decisions.given_rule import GIVEN
from comp.decisions.scorers import make_scorer, without_code
from comp.errors import CompError, summarize
from comp.kaggle import ledger
from comp.kaggle.answer_form import form_of
from comp.kaggle.download import sha256_of


def submission_text(
    answers: np.ndarray, ids: np.ndarray, classes: tuple[str, ...], competition: Competition, sample: Path
) -> str:
    """Return the CSV with the sample's columns, in their order. `answers` (N, C) are those of `ids` (N,).
    Raise CompError if the sample has other columns."""
    if lists_ids(sample, competition):
        form = form_of([columns(competition)[0]], classes, competition, sample)
        return form.write(answers, ids).to_csv(index=False)
    table = read_table(sample, [])
    form = form_of(list(table.columns), classes, competition, sample)
    rows = table[form.id_column].tolist() if form.layout == "rows" else []
    return form.write(answers, ids, rows)[list(table.columns)].to_csv(index=False)


def check_sample(sample: Path, competition: Competition, classes: Sequence[str]) -> str | None:
    """Return a warning about the sample, or None. Raise CompError if a submission of these classes can't have
    the sample's format."""
    if lists_ids(sample, competition):
        return None
    labels, frame, metric = competition.labels, read_table(sample, []), competition.metric
    form = form_of(list(frame.columns), classes, competition, sample)
    if form.layout != "rows":
        ids_of(frame, form.id_column, sample)
    names = set(form.names)
    cells = frame.drop(columns=form.id_column).head(1000).to_numpy(object).ravel().tolist()
    texts = {text.strip() for text in set(cells)} - {"", labels.none}
    scored = metric.kind in ("probabilities", "numbers")
    if scored and (wrong := sorted(text for text in texts if not _is_number(text))):
        raise CompError(
            f"{sample} contains {summarize(wrong)}, but {metric} is scored by {metric.kind}: numbers are "
            "expected; set [metric] name to one that scores labels"
        )
    if metric.kind == "labels" and any(0 < float(text) < 1 for text in texts - names if _is_number(text)):
        return (
            f"{sample} contains probabilities: this competition seems to want them, but comp writes labels, "
            f'0 or 1, for {metric}; set [metric] name = "roc_auc" or "log_loss" if these are scored'
        )
    separator = form.separator
    if form.layout != "text" or metric.kind == "ranking":  # a ranking's sample often holds placeholders
        return None
    if separator and (joined := [name for name in sorted(names) if separator in name]):
        raise CompError(
            f"labels contain {separator!r}, which separates labels in a submission: {summarize(joined)}; "
            f"set submission.separator to the one in {sample}"
        )
    tags = {tag.strip() for text in texts for tag in (text.split(separator) if separator else [text])} - {""}
    decorated = any(tag[0] in "[{('\"" for tag in tags)
    if tags and tags.isdisjoint(names) and (decorated or not labels.classes):
        raise CompError(
            f"{sample} contains labels that no image has: {summarize(sorted(tags))}; "
            f"the labels are {summarize(sorted(names))}: set labels.column, separator and "
            "submission.separator to match the files, or list the labels in labels.classes if those of the "
            "sample are placeholders"
        )
    return None


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def check_submission(
    text: str, path: Path, competition: Competition, classes: tuple[str, ...], expected: np.ndarray
) -> np.ndarray:
    """Check a submission and return its answers (N, C). Raise CompError unless its ids are those of the
    sample, `expected` (N,), each once and in that order, its cells are answers, and each row has as many
    labels as the competition allows."""
    labels = competition.labels
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    form = form_of(list(frame.columns), classes, competition, path)
    ids = frame[form.id_column].to_numpy(str)
    check_unique(ids, path)
    rows = form.layout == "rows"
    here, there = set(ids.tolist()), set(form.row_names(expected.tolist()) if rows else expected.tolist())
    if missing := sorted(there - here):
        raise CompError(f"{path} lacks ids of the sample submission: {summarize(missing)}")
    if extra := sorted(here - there):
        raise CompError(f"{path} has ids that the sample submission lacks: {summarize(extra)}")
    if not rows and ids.tolist() != expected.tolist():
        raise CompError(f"{path}: the ids are not in the order of the sample submission")
    answers = form.read(frame, expected, path)
    if competition.metric.kind not in ("labels", "grades"):
        return answers
    decisions = answers.astype(np.uint8)
    if labels.single and len(wrong := expected[decisions.sum(1) != 1]):
        raise CompError(f"{path} has rows without exactly one label: {summarize(wrong)}; run `comp decide`")
    if not labels.empty and len(classes) > 1 and len(empty := expected[decisions.sum(1) == 0]):
        raise CompError(
            f"{path} has rows without any label, which {competition.name} does not allow: {summarize(empty)}"
        )
    return decisions


def describe(answers: np.ndarray, competition: Competition) -> str:
    """Return what the rows of a submission hold, for a line on the screen."""
    kind, n_classes = competition.metric.kind, answers.shape[1]
    if kind == "labels":
        return f"{answers.sum(1).mean():.2f} labels per row"
    if kind == "grades":
        return "a grade per row"
    if kind == "ranking":
        return f"{min(competition.metric.k, n_classes)} labels in order per row"
    noun = {"probabilities": ("a probability", "probabilities"), "numbers": ("a number", "numbers")}[kind]
    return f"{noun[0]} per row" if n_classes == 1 else f"{n_classes} {noun[1]} per row"


@dataclass(frozen=True)
class SubmissionInputs:
    """What a submission is made of, and where it is written."""

    recipe: Recipe
    data: CompetitionFiles
    decision: dict[str, Any]
    classes: tuple[str, ...]
    sample_ids: np.ndarray  # (N,)
    stamp: dict[str, Any]
    name: str
    warning: str | None  # from check_sample

    @property
    def csv_path(self) -> Path:
        return submission_path(self.name)

    @property
    def json_path(self) -> Path:
        return self.csv_path.with_suffix(".json")

    @property
    def ledger_cells(self) -> dict[str, str]:
        return {
            "name": self.name,
            "recipe": self.recipe.name,
            "competition": self.recipe.competition.name,
            "best": "" if self.recipe.competition.metric.greater_is_better else "lowest",
        }


@dataclass(frozen=True)
class BuiltSubmission:
    """A checked submission before it is written."""

    text: str  # the CSV
    answers: np.ndarray  # (N, C)
    scores: dict[str, float]


def read_inputs(recipe: Recipe) -> SubmissionInputs:
    """Read the decision, the sample and the stamps of the test predictions. Raise CompError if a stage has to
    run first or the files don't belong together."""
    competition = recipe.competition
    data = read_manifest(competition)
    for path, stage in ((test_path(recipe.name), "blend"), (decision_path(recipe.name), "decide")):
        if not path.exists():
            raise CompError(f"{path} does not exist; run `comp {stage}` first")
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
    classes = classes_of(decision)
    warning = check_sample(data.sample_csv, competition, classes)
    sample_ids, none = data.sample_ids(competition), competition.labels.none
    stamp = {
        "test": digest(read_stamp(test_path(recipe.name))),
        "decision": digest({key: value for key, value in decision.items() if key != "scores"}),
        "sample": digest(sample_ids),
        "submission": competition.submission.model_dump() | ({"none": none} if none else {}),
    }
    name = f"{recipe.name}-{digest(stamp)[:8]}"
    return SubmissionInputs(recipe, data, decision, classes, sample_ids, stamp, name, warning)


def is_written(inputs: SubmissionInputs) -> bool:
    """Return whether this submission was written before, whatever became of its CSV since."""
    return inputs.csv_path.exists() and is_done(inputs.json_path, inputs.stamp, force=False)


def reuse(inputs: SubmissionInputs) -> dict[str, float] | None:
    """Return the scores of the submission that was written before, and add its row to the ledger if it is
    missing; None if the CSV was changed since."""
    content = read_json(inputs.json_path, Submitted)
    if sha256_of(inputs.csv_path) != content.get("sha256"):
        return None
    ledger.add({"time": content["time"], **inputs.ledger_cells, **content["scores"]})
    return content["scores"]


def build(inputs: SubmissionInputs) -> BuiltSubmission:
    """Decide the test images, format the CSV, check it and score it. Raise CompError if it is not valid."""
    recipe, classes, sample_ids = inputs.recipe, inputs.classes, inputs.sample_ids
    competition = recipe.competition
    path, ids = test_path(recipe.name), inputs.data.test_ids(competition)
    probs = aligned(load(path, classes), ids, path)
    if (answer_of := inputs.data.test_answer_ids(competition)) is not None:
        probs = by_answer(probs, answer_of, sample_ids, competition.submission.aggregate)
    rule = rule_from_json(inputs.decision, classes)
    answers = rule.decide(probs, without_code(competition.metric))
    text = submission_text(answers, sample_ids, classes, competition, inputs.data.sample_csv)
    check_submission(text, inputs.csv_path, competition, classes, sample_ids)
    scores = score_on_solution(answers, classes, recipe, inputs.data)
    if GIVEN not in inputs.decision:  # thresholds that a person gave have no cross-fitted score
        scores = {"cross_fitted": inputs.decision["scores"]["cross_fitted"], **scores}
    return BuiltSubmission(text, answers, scores)


def write(inputs: SubmissionInputs, built: BuiltSubmission) -> None:
    """Write submissions/<name>.csv, the row of the ledger and, last, <name>.json."""
    now = ledger.now()
    write_text(inputs.csv_path, built.text)
    ledger.add({"time": now, **inputs.ledger_cells, **built.scores})
    write_json(
        inputs.json_path,
        {
            "scores": built.scores,
            "decision": {k: v for k, v in inputs.decision.items() if k != "stamp"},
            "recipe": inputs.recipe.model_dump(mode="json"),
            "commit": commit(),
            "version": __version__,
            "time": now,
            "sha256": sha256_of(inputs.csv_path),
            "stamp": inputs.stamp,
        },
    )


def score_on_solution(
    answers: np.ndarray, classes: tuple[str, ...], recipe: Recipe, data: CompetitionFiles
) -> dict[str, float]:
    """Return the public and private score by the competition's own solution file; {} if it has none."""
    if data.solution_csv is None:
        return {}
    competition = recipe.competition
    id_column, _, _ = columns(competition)
    labels = competition.labels.model_copy(update={"classes": classes, "id": id_column, "ignore": ()})
    if competition.metric.kind in ("labels", "grades", "ranking"):
        names = columns_of(labels)
    else:
        names = [labels.column] if len(classes) == 1 and labels.column else list(classes)
    solution = read_table(data.solution_csv, [id_column, *names, "Usage"])
    wanted = data.sample_ids(competition)
    order = pd.Index(ids_of(solution, id_column, data.solution_csv)).get_indexer(wanted)
    if len(lacking := wanted[order < 0]):
        raise CompError(f"{data.solution_csv} lacks ids of the sample submission: {summarize(lacking)}")
    if competition.metric.kind == "numbers":
        truth = solution[names].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    else:
        _, truth = parse_labels(solution, labels, data.solution_csv)
    truth, usage = truth[order], solution["Usage"].to_numpy(str)[order]
    parts = {part.lower(): usage == part for part in ("Public", "Private")}
    scorer = make_scorer(competition, classes, recipe.code)
    return {part: scorer.score(truth[rows], answers[rows]) for part, rows in parts.items() if rows.any()}
