"""The submission CSV: built in the sample submission's format, checked against the sample, written."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comp import __version__
from comp.artifacts.csv_tables import UNNAMED, check_unique, ids_of, read_table
from comp.artifacts.files import read_json, write_json, write_text
from comp.artifacts.git import commit
from comp.artifacts.paths import decision_path, submission_path, test_path
from comp.artifacts.predictions import aligned, load
from comp.artifacts.schemas import Decision, Submitted
from comp.artifacts.stamps import digest, is_done, read_stamp
from comp.config.competition import Competition, columns
from comp.config.recipe import Recipe
from comp.data.labels import columns_of, format_tags, parse_labels, parse_tags
from comp.data.manifest import CompetitionFiles, read_manifest
from comp.decisions.metrics import FBeta
from comp.decisions.rules import FittedRule
from comp.errors import CompError, summarize
from comp.kaggle import ledger
from comp.kaggle.download import sha256_of


def submission_text(
    decisions: np.ndarray, ids: np.ndarray, classes: tuple[str, ...], competition: Competition, sample: Path
) -> str:
    """Return the CSV with the sample's columns, in their order. `decisions` (N, C) are those of `ids` (N,).
    Raise CompError if the sample has other columns."""
    id_column, column, separator = columns(competition)
    labels = competition.labels
    header = list(read_table(sample, []).columns)
    _check_header(header, classes, competition, sample)
    if column:
        texts = format_tags(decisions, classes, separator, labels.indices, labels.none)
        frame = pd.DataFrame({id_column: ids, column: texts})
    else:
        frame = pd.DataFrame(decisions, columns=list(classes))
        if labels.none in header:
            frame[labels.none] = (decisions.sum(1) == 0).astype(np.uint8)
        frame.insert(0, id_column, ids)
    return frame[header].to_csv(index=False)


def check_sample(sample: Path, competition: Competition, classes: Sequence[str]) -> str | None:
    """Return a warning about the sample, or None. Raise CompError if a submission of these classes can't have
    the sample's format."""
    id_column, column, separator = columns(competition)
    labels, frame = competition.labels, read_table(sample, [])
    _check_header(list(frame.columns), classes, competition, sample)
    ids_of(frame, id_column, sample)
    names = {str(i) for i in range(len(classes))} if labels.indices else set(classes)
    cells = frame.drop(columns=id_column).head(1000).to_numpy(object).ravel().tolist()
    texts = {text.strip() for text in set(cells)} - {"", labels.none}
    if any(_is_probability(text) for text in texts - names):
        return (
            f"{sample} contains probabilities: this competition seems to want them (for AUC or log loss), "
            "but comp writes labels, 0 or 1"
        )
    if not column:
        return None
    if separator and (wrong := [name for name in sorted(names) if separator in name]):
        raise CompError(
            f"labels contain {separator!r}, which separates labels in a submission: {summarize(wrong)}; "
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


def _is_probability(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


def _check_header(header: list[str], classes: Sequence[str], competition: Competition, sample: Path) -> None:
    """Raise CompError, with a cure, if a submission would have other columns than the sample."""
    id_column, column, _ = columns(competition)
    none = competition.labels.none
    own = [column] if column else [*classes, *([none] if none in header else [])]
    others = [name for name in header if name != id_column]
    here, there = set(own), set(others)
    if id_column in header and here == there:
        return
    if id_column not in header:
        cure = "set submission.id to its column of ids"
    elif header[0].startswith(UNNAMED):
        cure = "its first column is an index written by pandas: remove it (to_csv(…, index=False))"
    elif column and there >= set(classes):
        more = "" if there <= {*classes, none} else " and labels.classes to its columns"
        cure = f'set submission.column = ""{more}, for one 0/1 column per label'
    elif not competition.labels.column and there and there < here:
        cure = f"set labels.ignore = {[name for name in own if name not in there]} if these are not labels"
    elif len(others) == 1:
        cure = f"set submission.column = {others[0]!r} for labels as text"
    else:
        cure = "set id, column and classes to match the files"
    raise CompError(
        f"{sample}: its columns are {summarize(header)}, but a submission "
        f"would have {summarize([id_column, *own])}; {cure}"
    )


def check_submission(
    text: str, path: Path, competition: Competition, classes: tuple[str, ...], expected: np.ndarray
) -> np.ndarray:
    """Check a submission and return its decisions (N, C). Raise CompError unless its ids are those of the
    sample, `expected` (N,), each once and in that order, its labels are known, and each row has as many
    labels as the competition allows."""
    id_column, column, separator = columns(competition)
    labels = competition.labels
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    ids = frame[id_column].to_numpy(str)
    check_unique(ids, path)
    here, there = set(ids.tolist()), set(expected.tolist())
    if missing := sorted(there - here):
        raise CompError(f"{path} lacks ids of the sample submission: {summarize(missing)}")
    if extra := sorted(here - there):
        raise CompError(f"{path} has ids that the sample submission lacks: {summarize(extra)}")
    if ids.tolist() != expected.tolist():
        raise CompError(f"{path}: the ids are not in the order of the sample submission")
    if column:
        _, decisions = parse_tags(frame[column], classes, separator, labels.indices, path, labels.none)
    else:
        decisions = frame[list(classes)].to_numpy(int).astype(np.uint8)
    if labels.single and len(wrong := ids[decisions.sum(1) != 1]):
        raise CompError(f"{path} has rows without exactly one label: {summarize(wrong)}; run `comp decide`")
    if not labels.empty and len(empty := ids[decisions.sum(1) == 0]):
        raise CompError(
            f"{path} has rows without any label, which {competition.name} does not allow: {summarize(empty)}"
        )
    return decisions


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
        }


@dataclass(frozen=True)
class BuiltSubmission:
    """A checked submission before it is written."""

    text: str  # the CSV
    decisions: np.ndarray  # (N, C)
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
    classes = tuple(decision["thresholds"])
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
    probs = aligned(load(test_path(recipe.name), classes), sample_ids, test_path(recipe.name))
    decisions = FittedRule.from_json(inputs.decision, classes).decide(
        probs, FBeta.from_metric(competition.metric)
    )
    text = submission_text(decisions, sample_ids, classes, competition, inputs.data.sample_csv)
    check_submission(text, inputs.csv_path, competition, classes, sample_ids)
    scores = {
        "cross_fitted": inputs.decision["scores"]["cross_fitted"],
        **score_on_solution(decisions, classes, competition, inputs.data),
    }
    return BuiltSubmission(text, decisions, scores)


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
    decisions: np.ndarray, classes: tuple[str, ...], competition: Competition, data: CompetitionFiles
) -> dict[str, float]:
    """Return the public and private score by the competition's own solution file; {} if it has none."""
    if data.solution_csv is None:
        return {}
    id_column, _, _ = columns(competition)
    labels = competition.labels.model_copy(update={"classes": classes, "id": id_column, "ignore": ()})
    solution = read_table(data.solution_csv, [id_column, *columns_of(labels), "Usage"])
    _, truth = parse_labels(solution, labels, data.solution_csv)
    wanted = data.sample_ids(competition)
    order = pd.Index(ids_of(solution, id_column, data.solution_csv)).get_indexer(wanted)
    if len(lacking := wanted[order < 0]):
        raise CompError(f"{data.solution_csv} lacks ids of the sample submission: {summarize(lacking)}")
    truth, usage = truth[order], solution["Usage"].to_numpy(str)[order]
    parts = {part.lower(): usage == part for part in ("Public", "Private")}
    metric = FBeta.from_metric(competition.metric)
    return {part: metric.score(truth[rows], decisions[rows]) for part, rows in parts.items() if rows.any()}
