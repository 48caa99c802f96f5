"""The CSV that Kaggle takes: written in the sample's form, and checked against it."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from comp import __version__
from comp.artifacts.csv_tables import NAMELESS, check_unique, ids_of, read_table
from comp.artifacts.files import read_json, write_json, write_text
from comp.artifacts.git import commit
from comp.artifacts.paths import decision_path, submission_path, test_path
from comp.artifacts.predictions import aligned, load
from comp.artifacts.schemas import Decision, Submitted
from comp.artifacts.stamps import digest, is_done, read_stamp
from comp.config.competition import Competition, columns
from comp.config.recipe import Recipe
from comp.console import say
from comp.data.labels import columns_of, format_tags, parse_labels, parse_tags
from comp.data.manifest import Data, read_manifest
from comp.decisions.metrics import fbeta
from comp.decisions.rules import Fitted
from comp.errors import CompError, some
from comp.kaggle import ledger
from comp.kaggle.download import sha256_of


def submission_text(
    decisions: np.ndarray, ids: np.ndarray, classes: tuple[str, ...], competition: Competition, sample: Path
) -> str:
    """The CSV in the sample's columns and order. `decisions` (N, C) belongs to `ids` (N,)."""
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
    """A line on what the user should know of the sample, if anything. Raises CompError where a submission of
    these classes could not have its form."""
    id_column, column, separator = columns(competition)
    labels, frame = competition.labels, read_table(sample, [])
    _check_header(list(frame.columns), classes, competition, sample)
    ids_of(frame, id_column, sample)
    names = {str(i) for i in range(len(classes))} if labels.indices else set(classes)
    cells = frame.drop(columns=id_column).head(1000).to_numpy(object).ravel().tolist()
    texts = {text.strip() for text in set(cells)} - {"", labels.none}
    if any(_is_between(text) for text in texts - names):
        return (
            f"{sample} holds probabilities: this competition seems to want them (for AUC or log loss), and "
            "comp writes labels, which are 0 or 1"
        )
    if not column:
        return None
    if separator and (wrong := [name for name in sorted(names) if separator in name]):
        raise CompError(
            f"labels hold {separator!r}, which stands between the labels of a submission: {some(wrong)}; set "
            f"submission.separator to what {sample} has between labels"
        )
    tags = {tag.strip() for text in texts for tag in (text.split(separator) if separator else [text])} - {""}
    decorated = any(tag[0] in "[{('\"" for tag in tags)
    if tags and tags.isdisjoint(names) and (decorated or not labels.classes):
        raise CompError(
            f"{sample} holds labels that no image has: {some(sorted(tags))}; the labels are "
            f"{some(sorted(names))}: set labels.column, separator and submission.separator to those of the "
            "files, or list the labels in labels.classes if the sample's are just an example"
        )
    return None


def _is_between(text: str) -> bool:
    try:
        return 0 < float(text) < 1
    except ValueError:
        return False


def _check_header(header: list[str], classes: Sequence[str], competition: Competition, sample: Path) -> None:
    """Raises CompError, with what to do, where a submission would have other columns than the sample."""
    id_column, column, _ = columns(competition)
    none = competition.labels.none
    own = [column] if column else [*classes, *([none] if none in header else [])]
    others = [name for name in header if name != id_column]
    here, there = set(own), set(others)
    if id_column in header and here == there:
        return
    if id_column not in header:
        cure = "set submission.id to the column of its ids"
    elif header[0].startswith(NAMELESS):
        cure = "its first column is an index, as pandas writes it: remove it (to_csv(…, index=False))"
    elif column and there >= set(classes):
        more = "" if there <= {*classes, none} else " and labels.classes to its columns"
        cure = f'set submission.column = ""{more}, for one 0/1 column a label'
    elif not competition.labels.column and there and there < here:
        cure = f"set labels.ignore = {[name for name in own if name not in there]} if these are no labels"
    elif len(others) == 1:
        cure = f"set submission.column = {others[0]!r} for labels as texts"
    else:
        cure = "set id, column and classes to those of the files"
    raise CompError(
        f"{sample}: its columns are {some(header)}, those of a submission "
        f"would be {some([id_column, *own])}; {cure}"
    )


def check_submission(
    text: str, path: Path, competition: Competition, classes: tuple[str, ...], expected: np.ndarray
) -> np.ndarray:
    """The decisions (N, C) that a submission holds, once it was checked against the sample's ids
    `expected` (N,): the same, each once, in that order, known labels, and no row with none, or with several,
    where the competition allows none."""
    id_column, column, separator = columns(competition)
    labels = competition.labels
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    ids = frame[id_column].to_numpy(str)
    check_unique(ids, path)
    here, there = set(ids.tolist()), set(expected.tolist())
    if missing := sorted(there - here):
        raise CompError(f"{path} lacks ids of the sample submission: {some(missing)}")
    if extra := sorted(here - there):
        raise CompError(f"{path} has ids that the sample submission lacks: {some(extra)}")
    if ids.tolist() != expected.tolist():
        raise CompError(f"{path} is not in the order of the sample submission")
    if column:
        _, decisions = parse_tags(frame[column], classes, separator, labels.indices, path, labels.none)
    else:
        decisions = frame[list(classes)].to_numpy(int).astype(np.uint8)
    if labels.single and len(wrong := ids[decisions.sum(1) != 1]):
        raise CompError(f"{path} has rows without exactly one label: {some(wrong)}; run `comp decide`")
    if not labels.empty and len(empty := ids[decisions.sum(1) == 0]):
        raise CompError(
            f"{path} has rows without any label, which {competition.name} does not allow: {some(empty)}"
        )
    return decisions


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
