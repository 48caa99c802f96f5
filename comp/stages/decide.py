"""decide: thresholds, and what they are worth.

Reads runs/<recipe>/oof.npz, labels and folds; writes decision.json: the rule, its parameters, its scores.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from comp.artifacts import (
    decision_path,
    digest,
    is_done,
    oof_path,
    read_stamp,
    study_path,
    write_json,
)
from comp.config import Recipe
from comp.console import progress, say, table
from comp.decisions import cross_fitted, decide, fit_global, fit_optuna
from comp.errors import CompError, some
from comp.manifest import read_training
from comp.metrics import fbeta, fbeta_per_class
from comp.predictions import aligned, load

DEFAULTS = (0.5, 0.2)  # what people take without fitting; 0.2 suits F2
Fit = Callable[[np.ndarray, int], np.ndarray]  # (rows that may be seen (N,), fold that may not) -> (C,)


def run(recipe: Recipe, *, force: bool) -> None:
    competition, metric = recipe.competition, recipe.competition.metric
    data, labels, fold_of = read_training(recipe)
    if (oof_stamp := read_stamp(oof_path(recipe.name))) is None:
        raise CompError(f"{oof_path(recipe.name)} is not there; run `comp blend` first")
    stamp = {
        "oof": digest(oof_stamp),
        "labels": digest(labels.ids, labels.classes, labels.targets),
        "folds": digest(labels.ids, fold_of),
        "metric": metric.model_dump(),
        "empty": competition.labels.empty,
        "n_trials": recipe.n_trials,
        "seed": recipe.seed,
    }
    path = decision_path(recipe.name)
    if is_done(path, stamp, force=force):
        say(f"decide: {recipe.name} done already")
        return
    oof = load(oof_path(recipe.name), labels.classes)
    if unknown := sorted(set(oof.ids.tolist()) - set(labels.ids.tolist())):
        raise CompError(f"{oof_path(recipe.name)} has ids without labels: {some(unknown)}; predict again")
    row = {image_id: i for i, image_id in enumerate(labels.ids.tolist())}
    rows = np.array([row[i] for i in oof.ids.tolist()])
    probs = aligned(oof, labels.ids[rows], oof_path(recipe.name))
    targets, parts = labels.targets[rows], fold_of[rows]
    if len(np.unique(parts)) == 1:
        say("decide: one fold alone, so cross-fitting cuts it into 5 parts at random")
        names = labels.ids if labels.groups is None else labels.groups
        units, unit_of = np.unique(names[rows], return_inverse=True)
        parts = (np.random.default_rng(recipe.seed).permutation(len(units)) % 5)[unit_of]
    allow_empty = competition.labels.empty
    if force:
        study_path(recipe.name).unlink(missing_ok=True)

    def constant(threshold: float) -> Fit:
        return lambda seen, part: np.full(len(labels.classes), threshold)

    def by_global(seen: np.ndarray, part: int) -> np.ndarray:
        return fit_global(probs[seen], targets[seen], metric)

    def by_optuna(seen: np.ndarray, part: int) -> np.ndarray:
        name = f"{digest(stamp)} {'all rows' if part < 0 else f'without fold {part}'}"
        return fit_optuna(
            probs[seen], targets[seen], metric,
            n_trials=recipe.n_trials, seed=recipe.seed, study_path=study_path(recipe.name), name=name,
        )  # fmt: skip

    def scored(decisions: np.ndarray) -> float:
        return fbeta(targets, decisions, beta=metric.beta, average=metric.average)

    fits = {f"{t:g} for all": constant(t) for t in DEFAULTS} | {"global": by_global, "per-class": by_optuna}
    rules: dict[str, dict[str, Any]] = {}
    with progress("thresholds", len(fits)) as advance:
        for rule, fit in fits.items():
            thresholds = fit(np.ones(len(rows), bool), -1)
            held_out, fitted = cross_fitted(probs, targets, parts, fit, allow_empty)
            rules[rule] = {
                "thresholds": thresholds,
                "spread": fitted.std(0),
                "in_sample": scored(decide(probs, thresholds, allow_empty=allow_empty)),
                "cross_fitted": scored(held_out),
                "decisions": held_out,
            }
            advance(1)
    best = max(rules, key=lambda rule: rules[rule]["cross_fitted"])  # of equals the first, which is simpler
    chosen = rules[best]
    per_class = fbeta_per_class(targets, chosen["decisions"], beta=metric.beta)
    write_json(
        path,
        {
            "rule": best,
            "thresholds": dict(zip(labels.classes, map(float, chosen["thresholds"]))),
            "empty": "allowed" if allow_empty else "nearest label",
            "metric": str(metric),
            "scores": {
                "cross_fitted": chosen["cross_fitted"],
                "in_sample": chosen["in_sample"],
                "rules": {
                    rule: {k: r[k] for k in ("cross_fitted", "in_sample")} for rule, r in rules.items()
                },
            },
            "n_rows": len(rows),
            "stamp": stamp,
        },
    )
    say(f"decide: {recipe.name}, {metric}; the cross-fitted best is {best!r}")
    table(
        ["thresholds", "cross-fitted", "in-sample"],
        [[rule, f"{r['cross_fitted']:.4f}", f"{r['in_sample']:.4f}"] for rule, r in rules.items()],
    )
    table(
        ["class", "images", "threshold", "± folds", f"F{metric.beta:g}"],
        [
            [name, f"{count:,}", f"{threshold:.3f}", f"{spread:.3f}", f"{score:.4f}"]
            for name, count, threshold, spread, score in zip(
                labels.classes, targets.sum(0), chosen["thresholds"], chosen["spread"], per_class
            )
        ],
    )
