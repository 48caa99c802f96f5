"""decide: find the rule that turns probabilities into answers, and score it.

Reads runs/<recipe>/oof.npz, labels and folds; writes decision.png, and decision.json last: the rule, its
parameters, its scores. With --thresholds a file gives the rule, and the automatic one's score stays beside.
With --probs and --labels it reads the tables of another program instead.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import ValidationError

from comp.artifacts.files import lock, write_json, write_text
from comp.artifacts.paths import decision_path, oof_path, study_path
from comp.artifacts.stamps import digest, is_done, read_stamp
from comp.config.loading import problem
from comp.config.metric import Metric
from comp.config.recipe import Recipe
from comp.console import ProgressBars, info, progress
from comp.data.corrections import describe_corrections
from comp.data.labels import exclusive_groups
from comp.data.manifest import read_training
from comp.data.tables import read_folds_of, read_named_probs, read_probs, read_targets
from comp.decision import Decision as NamedDecision
from comp.decision import scorer_of_arrays
from comp.decisions.decide import decide
from comp.decisions.decision_file import decision_content
from comp.decisions.given_rule import read_given, with_given
from comp.decisions.metrics import FBeta
from comp.decisions.optuna_search import delete_studies
from comp.decisions.rule_search import SearchSettings
from comp.decisions.rules import is_single_label
from comp.decisions.scorers import Scorer, make_scorer
from comp.errors import CompError, summarize
from comp.evaluation.decision_lines import show_decision
from comp.evaluation.results import corrected_targets, held_out_answers, parts_of, stamp_now
from comp.kaggle.sample import sample_submission
from comp.plots.decision import draw
from comp.tracking.follow import track_runs
from comp.tracking.run import Run


def run(recipe: Recipe, *, force: bool, rule: str | None, thresholds: str | None) -> None:
    if rule and thresholds:
        raise CompError("--rule finds thresholds and --thresholds gives them; leave one of the two out")
    if rule:
        recipe = recipe.model_copy(update={"rule": rule})
    competition, metric = recipe.competition, recipe.competition.metric
    data, labels, fold_of = read_training(recipe)
    if (oof_stamp := read_stamp(oof_path(recipe.name))) is None:
        raise CompError(f"{oof_path(recipe.name)} is not there; run `comp blend` first")
    stamp = stamp_now(recipe, labels, fold_of, oof_stamp)
    study = digest(stamp)
    exclusive = exclusive_groups(competition.labels, labels.classes)
    min_labels = 0 if competition.labels.empty else 1
    given = None
    if thresholds:
        given = read_given(
            Path(thresholds), labels.classes, metric,
            groups=exclusive, single=is_single_label(labels.targets, exclusive), min_labels=min_labels,
        )  # fmt: skip
        stamp["thresholds"] = digest(given.as_json(labels.classes))
    path = decision_path(recipe.name)
    if is_done(path, stamp, force=force):
        info(f"decide: {recipe.name} done already")
        _track(recipe, stamp)
        return
    rows, probs, targets = held_out_answers(recipe, labels)
    corrected = corrected_targets(recipe, labels, rows)
    parts = parts_of(recipe, data, labels, rows, fold_of)
    if (made_with := oof_stamp.get("fold_of")) != stamp["folds"]:
        raise CompError(
            f"{oof_path(recipe.name)} was blended with {'other' if made_with else 'unknown'} folds; "
            "run `comp blend` again"
        )
    if one_fold := len(np.unique(fold_of[rows])) == 1:
        info("decide: one fold alone was held out, so rules are cross-fitted on 5 random parts of it")
    if force:
        delete_studies(study_path(recipe.name), study)
    info(f"decide: {recipe.name}, {len(rows):,} held-out images, {metric.count(len(labels.classes))}")
    with ProgressBars() as bars:
        settings = SearchSettings(
            recipe.seed,
            recipe.n_trials,
            study_path(recipe.name),
            study,
            partial(bars.update, "rules"),
        )
        decision = decide(
            probs, targets, make_scorer(competition, labels.classes, recipe.code),
            rule=recipe.rule, folds=parts, exclusive=exclusive, min_labels=min_labels, settings=settings,
        )  # fmt: skip
    content = decision_content(
        decision, labels.classes, parts, one_fold=one_fold, metric=str(metric), stamp=stamp
    )
    if given is not None:
        in_sample = decision.metric.score(targets, given.decide(probs, decision.metric))
        content = with_given(content, given, in_sample, labels.classes)
    drawn = decision if given is None else replace(decision, fitted=given)
    if corrected is not None:
        score = decision.metric.score(corrected, decision.choice.decisions)
        content["scores"]["corrected"] = score if np.isfinite(score) else None  # not each AUC is defined
    with lock(path.with_name(".decision.lock"), wait=True):  # other processes may share the studies
        with progress("picture", 1):
            draw(drawn, probs, targets, labels.classes, path.with_suffix(".png"))
        write_json(path, content)
    none = competition.labels.none or "none"
    show_decision(decision, probs, targets, labels.classes, recipe.name, metric, none)
    if given is not None:
        info("")
        info(
            f"decide: test images are decided by {thresholds}, whose score on these images is "
            f"{content['scores']['in_sample']:.4f}. It is in-sample: who chose the values may have seen "
            f"every one of these images. Only the automatic rule {decision.rule!r}, as above, has a "
            "cross-fitted score."
        )
    if corrected is not None:
        info("")
        info(
            f"by the corrected labels: {score:.4f}, by the given ones, which the "
            f"leaderboard has: {decision.scores['cross_fitted']:.4f} "
            f"({describe_corrections(targets, corrected, competition)} differ)"
        )
    _track(recipe, stamp)


def _track(recipe: Recipe, stamp: dict[str, Any]) -> None:
    with track_runs([Run(recipe, None, stamp)]):
        pass


@dataclass(frozen=True)
class TableRequest:
    """Tables of another program to decide, by their names on the command line."""

    probs: str
    labels: str
    metric: FBeta | Metric
    rule: str | None
    fold_file: str | None
    apply: str | None  # test probabilities to decide
    sample: str | None  # a sample submission, whose form the decided test images get
    exclusive: list[str]
    to: str
    force: bool


def named_metric(
    name: str | None, beta: float | None, average: str | None, zero_division: float | None
) -> FBeta | Metric:
    """Return the metric that the command line names. Raise CompError for an unknown one, and for what does
    not go with it."""
    values = {"beta": beta, "average": average, "zero_division": zero_division}
    given: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    if name in (None, "fbeta"):
        return FBeta(**given)
    try:
        return Metric.model_validate({"name": name, **given})
    except ValidationError as error:
        raise CompError(f"--metric {name}: {problem(error)}") from error


def run_on_files(asked: TableRequest) -> None:
    """Decide the tables of another program. Raise CompError for tables that don't fit together, and for files
    that would be replaced."""
    probs, labels, fold_file, apply = asked.probs, asked.labels, asked.fold_file, asked.apply
    if asked.sample and not apply:
        raise CompError("--sample goes with --apply FILE, the test probabilities to write in its form")
    force = asked.force
    target = Path(asked.to)
    if target.suffix != ".json":
        raise CompError(f"--to {target}: a name that ends in .json is expected")
    outputs = [target, target.with_suffix(".png"), *([target.with_suffix(".csv")] if apply else [])]
    inputs = {Path(name).resolve() for name in (probs, labels, fold_file, apply, asked.sample) if name}
    for output in outputs:
        if output.resolve() in inputs:
            raise CompError(f"{output} is an input and would be replaced; --to names another file")
        if output.exists() and not (force and output.is_file()):
            raise CompError(f"{output} is there; --force replaces it, --to names another file")
    info(f"decide: {probs} against {labels}")
    oof = read_probs(Path(probs))
    kind = "labels" if isinstance(asked.metric, FBeta) else asked.metric.kind
    numbers = kind == "numbers"
    targets = read_targets(Path(labels), oof.ids, oof.classes, numbers=numbers)
    folds = read_folds_of(Path(fold_file), oof.ids) if fold_file else None
    test, id_name = read_named_probs(Path(apply)) if apply else (None, "")
    if test and test.classes != oof.classes:
        raise CompError(f"{apply} and {probs} have different classes, or the same in another order")
    in_range = not test or (np.isfinite(test.probs).all() and test.probs.min() >= 0 and test.probs.max() <= 1)
    if not (numbers or in_range):
        raise CompError(f"{apply} holds numbers that are not from 0 to 1; are they logits?")
    groups = [[_position(name, oof.classes) for name in group.split(",")] for group in asked.exclusive]
    scorer: Scorer = (
        asked.metric
        if isinstance(asked.metric, FBeta)
        else scorer_of_arrays(asked.metric, targets, groups, oof.classes)
    )
    with ProgressBars() as bars:
        decision = decide(
            oof.probs, targets, scorer, rule=asked.rule or "auto", folds=folds, exclusive=groups,
            settings=SearchSettings(report_progress=partial(bars.update, "rules")),
        )  # fmt: skip
    metric = scorer.metric
    if metric.name == "fbeta" and metric.average != "macro" and is_single_label(targets, groups):
        metric = Metric(name="accuracy")
    with progress("picture", 1):
        draw(decision, oof.probs, targets, oof.classes, target.with_suffix(".png"))
    if test:
        answer, decided = target.with_suffix(".csv"), decision.predict(test.probs)
        if asked.sample:
            text = sample_submission(
                decided, test.ids, test.classes, Path(asked.sample), answer, scorer.metric
            )
            form = f"in the form of {asked.sample}"
        else:
            text = pd.DataFrame(decided, pd.Index(test.ids, name=id_name), list(test.classes)).to_csv()
            form = "of 0/1" if decided.dtype == np.uint8 else f"of {scorer.answer}"
        write_text(answer, text)
        info(f"decide: {answer}, {text.count(chr(10)) - 1:,} rows {form}")
    NamedDecision.of(decision, oof.probs, targets, oof.classes).save(target)
    show_decision(decision, oof.probs, targets, oof.classes, probs, metric, "none")


def _position(name: str, classes: tuple[str, ...]) -> int:
    if name not in classes:
        raise CompError(f"--exclusive names {name!r}; the classes are {summarize(classes)}")
    return classes.index(name)
