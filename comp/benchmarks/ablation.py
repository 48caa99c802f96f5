"""`comp bench tricks`: an ablation. Train a recipe with and without each trick, with several seeds, on a
subset of the images and one fold, all else equal."""

import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.files import read_json, write_json
from comp.artifacts.paths import model_path, oof_path, run_dir, tricks_dir
from comp.artifacts.predictions import load
from comp.artifacts.schemas import TrickScores
from comp.artifacts.stamps import digest
from comp.compute.devices import Device, devices
from comp.compute.jobs import Report
from comp.compute.local_jobs import run_jobs
from comp.config.loading import load_recipe
from comp.console import info, table
from comp.data.folds import UNUSED
from comp.data.labels import exclusive_groups
from comp.data.manifest import read_training
from comp.deadline import NEVER
from comp.decisions.decide import decide
from comp.decisions.metrics import FBeta, average_precisions, log_losses, mean_average_precision
from comp.decisions.rules import REFERENCE_RULE, REFERENCE_SINGLE, is_single_label
from comp.errors import CompError
from comp.models.inference import PredictionInputs, predict_set
from comp.training.fit import train_fold
from comp.training.prepare import build_caches_of
from comp.training.training_data import Caches, FoldInputs, TrainingData

BASELINE = "the recipe"
FOLD = 0  # held out


def run(name: str, overrides: Sequence[str], tricks: Path | None, n_images: int, n_seeds: int) -> None:
    """Train and score the recipe alone and with each of the tricks, and print a table. `tricks` is a TOML
    file of name = ["key=value", ...]. Scores are kept in runs/<recipe>/tricks/ and not measured again."""
    variants: dict[str, list[str]] = {BASELINE: [], **(read_tricks(tricks) if tricks else {})}
    recipes = {trick: load_recipe(name, [*overrides, *sets]) for trick, sets in variants.items()}
    base = recipes[BASELINE]
    data, labels, fold_of = read_training(base)
    chosen = np.random.default_rng(0).permutation(len(labels.ids))[:n_images]
    part = np.full(len(fold_of), UNUSED)
    part[chosen] = fold_of[chosen]
    jobs: dict[str, tuple[Any, ...]] = {}
    answers: dict[tuple[str, int], Path] = {}
    training_of = {
        trick: replace(TrainingData.read(recipe, [FOLD]), fold_of=part) for trick, recipe in recipes.items()
    }
    caches_for: dict[str, Caches] = {}
    for seed in range(n_seeds):
        for trick, recipe in recipes.items():
            training = training_of[trick]
            one = recipe.model_copy(update={"seed": base.seed + seed})  # with the folds of the base
            stamp = training.stamp(FOLD, one) | {"views": one.views}
            answers[trick, seed] = answer = tricks_dir(base.name) / f"{digest(stamp)}.json"
            if not answer.exists() and answer not in [arguments[-1] for arguments in jobs.values()]:
                one = one.model_copy(update={"name": f"{base.name}/{tricks_dir('').name}/{answer.stem}"})
                if trick not in caches_for:
                    caches_for[trick] = build_caches_of(training, [FOLD], NEVER, test=False)
                inputs = training.fold_inputs(FOLD, caches_for[trick], stamp, one)
                jobs[f"{trick}, seed {seed}"] = (inputs, answer)
    n_all = len(set(answers.values()))
    info(f"bench: {n_all - len(jobs)} of {n_all} trainings are done already")
    run_jobs(measure, jobs, devices(len(answers)), NEVER)
    scores = {key: read_json(path, TrickScores) for key, path in answers.items()}
    show_gains(scores, str(base.competition.metric))


def read_tricks(path: Path) -> dict[str, list[str]]:
    """Return {trick: overrides} of a TOML file. Raise CompError if it is malformed."""
    try:
        tricks = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CompError(f"{path} is not a TOML file of tricks ({error})") from error
    for trick, sets in tricks.items():
        if not isinstance(sets, list) or not all(isinstance(item, str) for item in sets):
            raise CompError(f'{path}: {trick} is {sets!r}; expected a list such as ["mixup=0.2"]')
    return tricks


def measure(inputs: FoldInputs, answer: Path, *, device: Device, report: Report, deadline: float) -> None:
    """Train, predict the held-out fold, and write its scores to `answer`."""

    def quietly(**event: Any) -> None:
        if "line" not in event:
            report(**event)

    settings: dict[str, Any] = {"device": device, "report": quietly, "deadline": deadline}
    recipe, labels, rows = inputs.recipe, inputs.labels, inputs.valid_rows
    train_fold(inputs, True, **settings)
    model, path = model_path(recipe.name, FOLD), oof_path(recipe.name, FOLD)
    cache = inputs.caches[recipe.phases[-1].size][0]
    wanted = PredictionInputs(recipe, model, path, labels.ids[rows], rows, cache, inputs.stamp)
    predict_set(wanted, **settings)
    probs, targets = load(path, labels.classes).probs.astype(float), labels.targets[rows]
    competition = recipe.competition
    groups = exclusive_groups(competition.labels, labels.classes)
    rule = REFERENCE_SINGLE if is_single_label(labels.targets, groups) else REFERENCE_RULE
    decided = decide(probs, targets, FBeta.from_metric(competition.metric), rule=rule, exclusive=groups)
    scores = {
        "score": decided.scores["cross_fitted"],
        "mAP": mean_average_precision(average_precisions(probs, targets)),
        "log_loss": float(log_losses(probs, targets).mean() / targets.shape[1]),
    }
    write_json(answer, scores)
    shutil.rmtree(run_dir(recipe.name), ignore_errors=True)
    report(line=" ".join(f"{key} {value:.4f}" for key, value in scores.items()))


def show_gains(answers: Mapping[tuple[str, int], Mapping[str, float]], metric: str) -> None:
    """Print per trick the mean and standard deviation over the seeds, and the gain over the recipe, paired by
    seed, with its standard error."""
    seeds = sorted({seed for _, seed in answers})

    def scores_of(trick: str, key: str) -> np.ndarray:
        return np.array([answers[trick, seed][key] for seed in seeds])

    rows = []
    for trick in dict.fromkeys(trick for trick, _ in answers):
        scores, gains = scores_of(trick, "score"), scores_of(trick, "score") - scores_of(BASELINE, "score")
        error = gains.std(ddof=1) / len(seeds) ** 0.5 if len(seeds) > 1 else float("nan")
        spread = scores.std(ddof=1) if len(seeds) > 1 else float("nan")
        gain = "" if trick == BASELINE else f"{gains.mean():+.4f} ± {error:.4f}"
        others = (f"{scores_of(trick, key).mean():.4f}" for key in ("mAP", "log_loss"))
        rows.append([trick, f"{scores.mean():.4f} ± {spread:.4f}", gain, *others])
    table(["trick", metric, "gain ± error", "mAP", "log loss"], rows)
