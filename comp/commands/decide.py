"""decide: find the rule that turns probabilities into labels, and score it.

Reads runs/<recipe>/oof.npz, labels and folds; writes decision.png, and decision.json last: the rule, its
parameters, its scores. With --probs and --labels it reads the tables of another program instead.
"""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comp.artifacts.files import lock, write_json, write_text
from comp.artifacts.paths import decision_path, oof_path, study_path
from comp.artifacts.stamps import digest, is_done, read_stamp
from comp.config.competition import Metric
from comp.config.recipe import Recipe
from comp.console import ProgressBars, info, progress, show_headline, table
from comp.data.labels import exclusive_groups
from comp.data.manifest import read_training
from comp.data.tables import read_folds_of, read_named_probs, read_probs, read_targets
from comp.decision import Decision as NamedDecision
from comp.decisions.decide import Decision, decide
from comp.decisions.decision_file import decision_content
from comp.decisions.metrics import FBeta, average_precisions, mean_average_precision
from comp.decisions.optuna_search import delete_studies
from comp.decisions.rule_search import SearchSettings
from comp.decisions.rules import is_single_label
from comp.decisions.selection import reference_of
from comp.errors import CompError, summarize
from comp.evaluation.results import held_out, parts_of, stamp_now
from comp.kaggle.sample import sample_submission
from comp.plots.thresholds import draw
from comp.tracking.follow import track_runs
from comp.tracking.run import Run

# both are printed for data with exactly one label per image, whichever is the metric
SINGLE_LABEL_METRICS = (Metric(average="accuracy"), Metric(average="macro", beta=1))


def run(recipe: Recipe, *, force: bool, rule: str | None) -> None:
    if rule:
        recipe = recipe.model_copy(update={"rule": rule})
    competition, metric = recipe.competition, recipe.competition.metric
    data, labels, fold_of = read_training(recipe)
    if (oof_stamp := read_stamp(oof_path(recipe.name))) is None:
        raise CompError(f"{oof_path(recipe.name)} is not there; run `comp blend` first")
    stamp = stamp_now(recipe, labels, fold_of, oof_stamp)
    path = decision_path(recipe.name)
    if is_done(path, stamp, force=force):
        info(f"decide: {recipe.name} done already")
        _track(recipe, stamp)
        return
    rows, probs = held_out(recipe.name, labels)
    targets, parts = labels.targets[rows], parts_of(recipe, data, labels, rows, fold_of)
    if (made_with := oof_stamp.get("fold_of")) != stamp["folds"]:
        raise CompError(
            f"{oof_path(recipe.name)} was blended with {'other' if made_with else 'unknown'} folds; "
            "run `comp blend` again"
        )
    if one_fold := len(np.unique(fold_of[rows])) == 1:
        info("decide: one fold alone was held out, so rules are cross-fitted on 5 random parts of it")
    if force:
        delete_studies(study_path(recipe.name), digest(stamp))
    info(f"decide: {recipe.name}, {len(rows):,} held-out images, {len(labels.classes)} labels")
    with ProgressBars() as bars:
        settings = SearchSettings(
            recipe.seed,
            recipe.n_trials,
            study_path(recipe.name),
            digest(stamp),
            partial(bars.update, "rules"),
        )
        decision = decide(
            probs, targets, FBeta.from_metric(metric), rule=recipe.rule, folds=parts,
            exclusive=exclusive_groups(competition.labels, labels.classes),
            min_labels=0 if competition.labels.empty else 1, settings=settings,
        )  # fmt: skip
    content = decision_content(
        decision, labels.classes, parts, one_fold=one_fold, metric=str(metric), stamp=stamp
    )
    with lock(path.with_name(".decision.lock"), wait=True):  # other processes may share the studies
        with progress("picture", 1):
            draw(decision, probs, targets, labels.classes, path.with_suffix(".png"))
        write_json(path, content)
    none = competition.labels.none or "none"
    show(decision, probs, targets, labels.classes, recipe.name, metric, none)
    _track(recipe, stamp)


def _track(recipe: Recipe, stamp: dict[str, Any]) -> None:
    with track_runs([Run(recipe, None, stamp)]):
        pass


@dataclass(frozen=True)
class TableRequest:
    """Tables of another program to decide, by their names on the command line."""

    probs: str
    labels: str
    metric: FBeta
    rule: str | None
    fold_file: str | None
    apply: str | None  # test probabilities to decide
    sample: str | None  # a sample submission, whose form the decided test images get
    exclusive: list[str]
    to: str
    force: bool


def run_on_files(asked: TableRequest) -> None:
    """Decide the tables of another program. Raise CompError for tables that don't fit together, and for files
    that would be replaced."""
    probs, labels, fold_file, apply = asked.probs, asked.labels, asked.fold_file, asked.apply
    if asked.sample and not apply:
        raise CompError("--sample goes with --apply FILE, the test probabilities to write in its form")
    average, force = asked.metric.average, asked.force
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
    targets = read_targets(Path(labels), oof.ids, oof.classes)
    folds = read_folds_of(Path(fold_file), oof.ids) if fold_file else None
    test, id_name = read_named_probs(Path(apply)) if apply else (None, "")
    if test and test.classes != oof.classes:
        raise CompError(f"{apply} and {probs} have different classes, or the same in another order")
    if test and not (np.isfinite(test.probs).all() and test.probs.min() >= 0 and test.probs.max() <= 1):
        raise CompError(f"{apply} holds numbers that are not from 0 to 1; are they logits?")
    groups = [[_position(name, oof.classes) for name in group.split(",")] for group in asked.exclusive]
    fbeta = asked.metric
    with ProgressBars() as bars:
        decision = decide(
            oof.probs, targets, fbeta, rule=asked.rule or "auto", folds=folds, exclusive=groups,
            settings=SearchSettings(report_progress=partial(bars.update, "rules")),
        )  # fmt: skip
    single = is_single_label(targets, groups) and average != "macro"
    metric = Metric(average="accuracy") if single else Metric.model_validate(asdict(fbeta))
    with progress("picture", 1):
        draw(decision, oof.probs, targets, oof.classes, target.with_suffix(".png"))
    if test:
        answer, decided = target.with_suffix(".csv"), decision.predict(test.probs)
        if asked.sample:
            text = sample_submission(decided, test.ids, test.classes, Path(asked.sample), answer)
            form = f"in the form of {asked.sample}"
        else:
            text = pd.DataFrame(decided, pd.Index(test.ids, name=id_name), list(test.classes)).to_csv()
            form = "of 0/1"
        write_text(answer, text)
        info(f"decide: {answer}, {text.count(chr(10)) - 1:,} rows {form}")
    NamedDecision.of(decision, oof.probs, targets, oof.classes).save(target)
    show(decision, oof.probs, targets, oof.classes, probs, metric, "none")


def _position(name: str, classes: tuple[str, ...]) -> int:
    if name not in classes:
        raise CompError(f"--exclusive names {name!r}; the classes are {summarize(classes)}")
    return classes.index(name)


def show(
    decision: Decision,
    probs: np.ndarray,
    targets: np.ndarray,
    classes: tuple[str, ...],
    title: str,
    metric: Metric,
    none: str,
) -> None:
    """Print what was decided, by rule and by class. `none` names the row of images without labels."""
    several = len(decision.scored) > 1
    show_headline(title, str(metric), decision.scores["cross_fitted"], chosen=several)
    reference = reference_of(decision.scored)
    beats = f"beats {reference.rule}" if reference else "the best beats it"
    header = ["rule", "cross-fitted", "in-sample", beats]
    rows = [
        [
            f"{s.rule} *" if several and s.rule == decision.rule else s.rule,
            *(f"{s.cross_fitted:.4f}", f"{s.in_sample:.4f}", f"{decision.win_probabilities[s.rule]:.0%}"),
        ]
        for s in decision.scored
    ]
    for other in SINGLE_LABEL_METRICS if is_single_label(targets, decision.fitted.groups) else ():
        if str(other) != str(metric):  # cross-fitted as well
            header.append(str(other))
            for row, s in zip(rows, decision.scored):
                row.append(f"{FBeta.from_metric(other).score(targets, s.decisions):.4f}")
    info("")
    info("each rule alone; * marks the chosen one" if several else "the rule")
    table(header, rows)
    precision = average_precisions(probs, targets)
    spread = np.std([fitted.thresholds for fitted in decision.chosen.by_fold], axis=0)
    per_class = decision.metric.per_class(targets, decision.choice.decisions)
    rows = []
    for c, name in enumerate(classes):
        at, n = decision.fitted.threshold_of(c), int(targets[:, c].sum())
        thresholds = ["", ""] if at is None else [f"{at:.3f}", f"{spread[c]:.3f}"]
        rows.append([name, f"{n:,}", f"{precision[c]:.4f}" if n else "", *thresholds, f"{per_class[c]:.4f}"])
    bare, answered = (matrix.sum(1, keepdims=True) == 0 for matrix in (targets, decision.choice.decisions))
    if bare.any():
        (value,) = decision.metric.per_class(bare, answered)
        rows.append([f"({none})", f"{bare.sum():,}", "", "", "", f"{value:.4f}"])
    info("")
    info(f"each label, mAP {mean_average_precision(precision):.4f}" if targets.any() else "each label")
    table(["class", "images", "AP", "threshold", "± folds", f"F{decision.metric.beta:g}"], rows)
