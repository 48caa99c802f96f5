"""What each trick is worth: a recipe with and without it, several seeds, on a part of the images and one
fold, all else the same."""

import shutil
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from comp.artifacts.files import read_json, write_json
from comp.artifacts.paths import model_path, oof_path, run_dir, tricks_dir
from comp.artifacts.predictions import load
from comp.artifacts.schemas import TrickScores
from comp.artifacts.stamps import digest
from comp.compute.devices import Device, devices
from comp.compute.jobs import Report
from comp.compute.local_jobs import run_jobs
from comp.config.loading import load_recipe
from comp.config.recipe import Recipe
from comp.console import say, table
from comp.data.folds import UNUSED
from comp.data.labels import Labels, groups_of
from comp.data.manifest import read_training
from comp.deadline import NEVER
from comp.decisions.decide import decide
from comp.decisions.rules import STEADY, STEADY_OF_ONE
from comp.errors import CompError
from comp.models.inference import predict_set
from comp.training.extra_images import extras_of, joined
from comp.training.fit import train_fold
from comp.training.model_stamp import train_stamp
from comp.training.prepare import prepared

BASE = "the recipe"
FOLD = 0  # the one that is held out


def run(name: str, overrides: Sequence[str], tricks: Path | None, n_images: int, n_seeds: int) -> None:
    """Train and score the recipe as it is and with each of the tricks, and print the table. `tricks` is a
    TOML file of name = ["key=value", ...]. What was measured stays in runs/<recipe>/tricks/ and is not done
    again."""
    variants: dict[str, list[str]] = {BASE: [], **(read_tricks(tricks) if tricks else {})}
    recipes = {trick: load_recipe(name, [*overrides, *sets]) for trick, sets in variants.items()}
    base = recipes[BASE]
    data, labels, fold_of = read_training(base)
    chosen = np.random.default_rng(0).permutation(len(labels.ids))[:n_images]
    part = np.full(len(fold_of), UNUSED)
    part[chosen] = fold_of[chosen]
    jobs: dict[str, tuple[Any, ...]] = {}
    answers: dict[tuple[str, int], Path] = {}
    extras_for = {t: extras_of(r, [FOLD], data, labels, fold_of)[FOLD] for t, r in recipes.items()}
    caches_for: dict[str, dict[int, tuple[Path, ...]]] = {}
    for seed in range(n_seeds):
        for trick, recipe in recipes.items():
            extras = extras_for[trick]
            one = recipe.model_copy(update={"seed": base.seed + seed})  # with the folds of the base
            stamp = train_stamp(one, labels, part, data.stamp, FOLD, extras, data.limits) | {
                "views": one.views
            }
            answers[trick, seed] = answer = tricks_dir(base.name) / f"{digest(stamp)}.json"
            if not answer.exists() and answer not in [arguments[-1] for arguments in jobs.values()]:
                one = one.model_copy(update={"name": f"{base.name}/{tricks_dir('').name}/{answer.stem}"})
                if trick not in caches_for:
                    caches_for[trick] = prepared(
                        recipe, data, labels, part, {FOLD: extras}, NEVER, test=False
                    )
                rows = joined(labels, part, extras)
                jobs[f"{trick}, seed {seed}"] = (one, *rows, caches_for[trick], stamp, answer)
    n_all = len(set(answers.values()))
    say(f"bench: {n_all - len(jobs)} of {n_all} trainings are done already")
    run_jobs(measure, jobs, devices(len(answers)), NEVER)
    scores = {key: read_json(path, TrickScores) for key, path in answers.items()}
    show(scores, str(base.competition.metric))


def read_tricks(path: Path) -> dict[str, list[str]]:
    try:
        tricks = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CompError(f"{path} is not a TOML file of tricks ({error})") from error
    for trick, sets in tricks.items():
        if not isinstance(sets, list) or not all(isinstance(item, str) for item in sets):
            raise CompError(f'{path}: {trick} is {sets!r}; a list such as ["mixup=0.2"] is expected')
    return tricks


def measure(
    recipe: Recipe,
    labels: Labels,
    fold_of: np.ndarray,
    caches: dict[int, tuple[Path, ...]],
    stamp: dict[str, Any],
    answer: Path,
    *,
    device: Device,
    report: Report,
    deadline: float,
) -> None:
    """Train, predict what is held out, and write its scores to `answer`."""

    def quietly(**event: Any) -> None:
        if "line" not in event:
            report(**event)

    settings: dict[str, Any] = {"device": device, "report": quietly, "deadline": deadline}
    train_fold(recipe, FOLD, labels, fold_of, caches, stamp, True, **settings)
    rows = np.flatnonzero(fold_of == FOLD)
    model, path = model_path(recipe.name, FOLD), oof_path(recipe.name, FOLD)
    cache = caches[recipe.phases[-1].size][0]
    predict_set(recipe, model, path, labels.ids[rows], rows, cache, stamp, **settings)
    probs, targets = load(path, labels.classes).probs.astype(float), labels.targets[rows]
    competition, rule = recipe.competition, STEADY_OF_ONE if recipe.competition.labels.single else STEADY
    groups = groups_of(competition.labels, labels.classes)
    decided = decide(probs, targets, **competition.metric.settings, rule=rule, exclusive=groups)
    p, present = np.clip(probs, 1e-6, 1 - 1e-6), targets.any(0)
    scores = {
        "score": decided.scores["cross_fitted"],
        "mAP": average_precision_score(targets[:, present], probs[:, present], average="macro"),
        "log_loss": float(-np.where(targets, np.log(p), np.log1p(-p)).mean()),
    }
    write_json(answer, scores)
    shutil.rmtree(run_dir(recipe.name), ignore_errors=True)
    report(line=" ".join(f"{key} {value:.4f}" for key, value in scores.items()))


def show(answers: Mapping[tuple[str, int], Mapping[str, float]], metric: str) -> None:
    """Means over the seeds, their spread, and the gain over the recipe at the same seeds with its standard
    error."""
    seeds = sorted({seed for _, seed in answers})

    def of(trick: str, key: str) -> np.ndarray:
        return np.array([answers[trick, seed][key] for seed in seeds])

    rows = []
    for trick in dict.fromkeys(trick for trick, _ in answers):
        scores, gains = of(trick, "score"), of(trick, "score") - of(BASE, "score")
        error = gains.std(ddof=1) / len(seeds) ** 0.5 if len(seeds) > 1 else float("nan")
        spread = scores.std(ddof=1) if len(seeds) > 1 else float("nan")
        gain = "" if trick == BASE else f"{gains.mean():+.4f} ± {error:.4f}"
        others = (f"{of(trick, key).mean():.4f}" for key in ("mAP", "log_loss"))
        rows.append([trick, f"{scores.mean():.4f} ± {spread:.4f}", gain, *others])
    table(["trick", metric, "gain ± error", "mAP", "log loss"], rows)
