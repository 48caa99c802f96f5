"""decide: probabilities to labels, and what they are worth.

Reads runs/<recipe>/oof.npz, labels and folds; writes decision.png, and decision.json last: the rule, its
parameters, its scores. Or reads the tables of another program (--probs, --labels).
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comp.artifacts.files import waiting_lock, write_json, write_text
from comp.artifacts.paths import decision_path, oof_path, study_path
from comp.artifacts.stamps import digest, is_done, read_stamp
from comp.config.competition import Metric
from comp.config.recipe import Recipe
from comp.console import Bars, progress, say, table
from comp.data.labels import groups_of
from comp.data.manifest import read_training
from comp.data.tables import read_folds_of, read_probs, read_targets
from comp.decisions.cross_fitting import Weighed
from comp.decisions.decide import Decision, decide
from comp.decisions.metrics import fbeta, fbeta_per_class, precision_per_class
from comp.decisions.optuna_search import forget
from comp.decisions.rules import is_single
from comp.decisions.selection import steady_of
from comp.errors import CompError, some
from comp.evaluation.results import held_out, parts_of
from comp.plots.thresholds import draw
from comp.tracking.follow import tracked
from comp.tracking.run import Run

ONE_LABEL = (
    Metric(average="accuracy"),
    Metric(average="macro", beta=1),
)  # both are told of one label an image


def run(recipe: Recipe, *, force: bool, rule: str | None) -> None:
    if rule:
        recipe = recipe.model_copy(update={"rule": rule})
    competition, metric = recipe.competition, recipe.competition.metric
    data, labels, fold_of = read_training(recipe)
    if (oof_stamp := read_stamp(oof_path(recipe.name))) is None:
        raise CompError(f"{oof_path(recipe.name)} is not there; run `comp blend` first")
    stamp = {
        "oof": digest(oof_stamp),
        "labels": digest(labels.ids, labels.classes, labels.targets),
        "folds": digest(labels.ids, fold_of),
        "metric": metric.settings,
        "empty": competition.labels.empty,
        "exclusive": competition.labels.groups(labels.classes),
        "rule": recipe.rule,
        "n_trials": recipe.n_trials,
        "seed": recipe.seed,
    }
    path = decision_path(recipe.name)
    if is_done(path, stamp, force=force):
        say(f"decide: {recipe.name} done already")
        _track(recipe, stamp)
        return
    rows, probs = held_out(recipe.name, labels)
    targets, parts = labels.targets[rows], parts_of(recipe, data, labels, rows, fold_of)
    if (made_with := oof_stamp.get("fold_of")) != digest(labels.ids, fold_of):
        raise CompError(
            f"{oof_path(recipe.name)} was blended with {'other' if made_with else 'unknown'} folds; "
            "run `comp blend` again"
        )
    if one_fold := len(np.unique(fold_of[rows])) == 1:
        say("decide: one fold alone, so cross-fitting cuts it into 5 parts at random")
    if force:
        forget(study_path(recipe.name), digest(stamp))
    say(f"decide: {recipe.name}, {len(rows):,} held-out images, {len(labels.classes)} labels")
    with Bars() as bars:
        decision = decide(
            probs, targets, **metric.settings, rule=recipe.rule, folds=parts,
            exclusive=groups_of(competition.labels, labels.classes), seed=recipe.seed,
            least=0 if competition.labels.empty else 1, n_trials=recipe.n_trials,
            storage=study_path(recipe.name), name=digest(stamp), told=partial(bars.at, "rules"),
        )  # fmt: skip
    chosen = next(w for w in decision.weighed if w.rule == decision.rule)
    rules = {w.rule: {"cross_fitted": w.cross_fitted, "in_sample": w.in_sample} for w in decision.weighed}
    honest = zip(np.unique(parts).tolist(), decision.honest.rules, decision.honest.by_fold)
    by_part = {part: {"rule": name, **rule.as_json(labels.classes)} for part, name, rule in honest}
    without = np.array([fitted.thresholds for fitted in chosen.by_fold])
    content = {
        "rule": decision.rule,
        **decision.fitted.as_json(labels.classes),
        "by_fold": {} if one_fold else by_part,
        **({"by_fifth": by_part} if one_fold else {}),
        "thresholds_by_fold": dict(zip(labels.classes, without.T.tolist())),
        "metric": str(metric),
        "scores": {**decision.scores, "rules": rules, "sure": decision.sure},
        "n_rows": len(rows),
        "stamp": stamp,
    }
    with waiting_lock(path.with_name(".decision.lock")):  # others may be at the same studies
        with progress("picture", 1):
            draw(decision, chosen, probs, targets, labels.classes, path.with_suffix(".png"))
        write_json(path, content)
    none = competition.labels.none or "none"
    report(decision, chosen, probs, targets, labels.classes, recipe.name, metric, none)
    _track(recipe, stamp)


def _track(recipe: Recipe, stamp: dict[str, Any]) -> None:
    with tracked([Run(recipe, None, stamp)]):
        pass


def run_on_files(
    *,
    probs: str,
    labels: str,
    beta: float,
    average: str,
    empty: float,
    rule: str | None,
    fold_file: str | None,
    apply: str | None,
    exclusive: list[str],
    to: str,
    force: bool,
) -> None:
    """The same for the tables of another program; `apply` is a table of test probabilities to decide."""
    target = Path(to)
    if target.suffix != ".json":
        raise CompError(f"--to {target}: a name that ends in .json is expected")
    outputs = [target, target.with_suffix(".png"), *([target.with_suffix(".csv")] if apply else [])]
    inputs = {Path(name).resolve() for name in (probs, labels, fold_file, apply) if name}
    for output in outputs:
        if output.resolve() in inputs:
            raise CompError(f"{output} would replace what is read; --to names another file")
        if output.exists() and not (force and output.is_file()):
            raise CompError(f"{output} is there; --force replaces it, --to names another file")
    say(f"decide: {probs} against {labels}")
    oof = read_probs(Path(probs))
    targets = read_targets(Path(labels), oof.ids, oof.classes)
    folds = read_folds_of(Path(fold_file), oof.ids) if fold_file else None
    test = read_probs(Path(apply)) if apply else None
    if test and test.classes != oof.classes:
        raise CompError(f"{apply} has other classes than {probs}, or in another order")
    if test and not (np.isfinite(test.probs).all() and test.probs.min() >= 0 and test.probs.max() <= 1):
        raise CompError(f"{apply} holds numbers outside of 0 to 1, or that aren't finite; are they logits?")
    groups = [[_position(name, oof.classes) for name in group.split(",")] for group in exclusive]
    settings: dict[str, Any] = {"beta": beta, "average": average, "empty": empty}
    with Bars() as bars:
        decision = decide(
            oof.probs, targets, **settings, rule=rule or "auto", folds=folds, exclusive=groups,
            told=partial(bars.at, "rules"),
        )  # fmt: skip
    single = is_single(targets, groups) and average != "macro"
    metric = Metric(average="accuracy") if single else Metric(**settings)
    chosen = next(w for w in decision.weighed if w.rule == decision.rule)
    with progress("picture", 1):
        draw(decision, chosen, oof.probs, targets, oof.classes, target.with_suffix(".png"))
    content = {"rule": decision.rule, **decision.fitted.as_json(oof.classes), **settings}
    if test:
        decided = pd.DataFrame(decision.predict(test.probs), columns=list(test.classes))
        decided.insert(0, "id", test.ids)
        answer = target.with_suffix(".csv")
        write_text(answer, decided.to_csv(index=False))
        say(f"decide: {answer}, {len(decided):,} rows of 0/1")
    write_json(target, {**content, "scores": decision.scores, "n_rows": len(targets)})
    report(decision, chosen, oof.probs, targets, oof.classes, probs, metric, "none")


def _position(name: str, classes: tuple[str, ...]) -> int:
    if name not in classes:
        raise CompError(f"--exclusive names {name!r}; the classes are {some(classes)}")
    return classes.index(name)


def report(
    decision: Decision,
    chosen: Weighed,
    probs: np.ndarray,
    targets: np.ndarray,
    classes: tuple[str, ...],
    title: str,
    metric: Metric,
    none: str,
) -> None:
    """What was decided, by rule and by class; `none` is the name of the answer that nothing is there."""
    among = f", of {len(decision.weighed)}" if len(decision.weighed) > 1 else ""
    precision = precision_per_class(probs, targets)
    mean_ap = f", mAP {np.nanmean(precision):.4f}" if targets.any() else ""
    score_text = f"{metric} {decision.scores['cross_fitted']:.4f} cross-fitted{mean_ap}"
    say(f"decide: {title}, {score_text}, by the rule {decision.rule!r}{among}")
    steady = steady_of(decision.weighed)
    header = ["rule", "cross-fitted", "in-sample", f"beats {steady.rule}" if steady else "the best beats it"]
    rows = [
        [w.rule, f"{w.cross_fitted:.4f}", f"{w.in_sample:.4f}", f"{decision.sure[w.rule]:.0%}"]
        for w in decision.weighed
    ]
    for other in ONE_LABEL if is_single(targets, decision.fitted.groups) else ():
        if str(other) != str(metric):  # cross-fitted as well
            header.append(str(other))
            for row, w in zip(rows, decision.weighed):
                row.append(f"{fbeta(targets, w.decisions, **other.settings):.4f}")
    table(header, rows)
    spread = np.std([fitted.thresholds for fitted in chosen.by_fold], axis=0)
    per_class = fbeta_per_class(targets, decision.honest.decisions, beta=decision.beta)
    rows = []
    for c, name in enumerate(classes):
        at, n = decision.fitted.threshold_of(c), int(targets[:, c].sum())
        held = ["", ""] if at is None else [f"{at:.3f}", f"{spread[c]:.3f}"]
        rows.append([name, f"{n:,}", f"{precision[c]:.4f}" if n else "", *held, f"{per_class[c]:.4f}"])
    bare, answered = (matrix.sum(1, keepdims=True) == 0 for matrix in (targets, decision.honest.decisions))
    if bare.any():
        (value,) = fbeta_per_class(bare, answered, beta=decision.beta)
        rows.append([f"({none})", f"{bare.sum():,}", "", "", "", f"{value:.4f}"])
    table(["class", "images", "AP", "threshold", "± folds", f"F{decision.beta:g}"], rows)
