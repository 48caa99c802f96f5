"""tune: search the values of the keys that the recipe's [tune] table names.

Reads images, labels and folds; trains trials in runs/<recipe>/tune/<study>-<number>/, of which the logs stay,
and keeps the study in runs/<recipe>/tune.log or another storage; writes tune.png and tuned.toml.
"""

import os
import re
import shlex
from pathlib import Path
from typing import Any

from comp.artifacts.files import flat, waiting_lock, write_text
from comp.artifacts.paths import (
    run_dir,
    trials_dir,
    tune_picture_path,
    tune_study_path,
    tuned_path,
)
from comp.artifacts.safe_paths import refuse_link
from comp.artifacts.stamps import digest
from comp.compute.devices import in_ranks
from comp.config.loading import toml_text, with_values
from comp.config.recipe import Recipe
from comp.console import say, table
from comp.data.manifest import read_training
from comp.deadline import deadline_in
from comp.errors import CompError
from comp.plots.tuning import _draw
from comp.training.extra_images import extras_of
from comp.training.model_stamp import train_stamp
from comp.training.prepare import n_trained
from comp.tuning.pruning import pruner
from comp.tuning.search_space import distributions, rounded, short, text, value_at
from comp.tuning.study import Shared, readable, shown
from comp.tuning.trials import Search, _check

SHOWN = 10  # trials of the table
ENOUGH = 10  # trials that tell what the score depends on


def run(recipe: Recipe, *, folds: list[int], budget: float | None, trials: int, storage: str | None) -> None:
    if in_ranks():
        raise CompError("a trial is trained on one device; start `comp tune` once a GPU instead of torchrun")
    if trials < 1:
        raise CompError(f"--trials {trials}: 1 or more are expected")
    deadline = deadline_in(budget)
    if recipe.members:
        raise CompError(f"{recipe.name} has members; write each as a recipe of its own and tune that")
    if not (folds := [fold for fold in folds if fold < recipe.n_folds]):
        raise CompError(f"the folds that hold images out are 0 to {recipe.n_folds - 1}")
    space = distributions(recipe)
    data, labels, fold_of = read_training(recipe)
    extras = extras_of(recipe, folds, data, labels, fold_of)
    _check(recipe, labels, n_trained(fold_of, extras))
    stamps = [
        flat(train_stamp(recipe, labels, fold_of, data.stamp, fold, extras[fold], data.limits))
        for fold in folds
    ]
    fixed = [{key: value for key, value in stamp.items() if key not in space} for stamp in stamps]
    name = f"{recipe.name}-{digest(fixed, recipe.model_dump(mode='json')['tune'])}"
    place = _place(storage) or str(tune_study_path(recipe.name))
    if storage is None:
        refuse_link(Path(place))
    with readable(place):
        study = Shared(place, name, space, seed=recipe.seed, pruner=pruner(), folder=trials_dir(recipe.name))
        own = {key: value_at(recipe, key) for key in space}
        study.start(own)
        n_done = len(study.trials("COMPLETE", "PRUNED"))
        say(
            f"tune: {recipe.name}, {', '.join(space)}; folds {', '.join(map(str, folds))}; {n_done} of "
            f"{trials} trials done, study {name} in {shown(place)}"
        )
        search = Search(recipe, folds, data, labels, fold_of, extras, study, deadline)
        search.tidy()
        while (trial := study.next(trials, deadline)) is not None:
            search.work_on(trial)
        with waiting_lock(run_dir(recipe.name) / ".tune.lock"):
            _report(recipe, study, own)


def _place(storage: str | None) -> str | None:
    """Where the study is; '$NAME' stands for what the variable NAME of the environment holds."""
    if storage is None or not (variable := re.fullmatch(r"\$(\w+)", storage)):
        return storage
    if not (place := os.environ.get(variable[1], "").strip()):
        raise CompError(f"--storage {storage}: there is no such variable in the environment")
    return place


def _report(recipe: Recipe, study: Shared, own: dict[str, Any]) -> None:
    """Print what was found and how to take it over; write the picture and tuned.toml."""
    complete = sorted(study.trials("COMPLETE"), key=lambda trial: -trial.value)
    if not complete:
        raise CompError("no trial came to its end; try other ranges")
    n_pruned = len(study.trials("PRUNED"))
    say(f"tune: {recipe.name}, held-out mAP of {len(complete)} complete trials; {n_pruned} were pruned")
    rows = [
        (f"{trial.number}{' (as it is)' if trial.params == own else ''}", f"{trial.value:.4f}")
        + tuple(short(value) for value in rounded(recipe, trial.params).values())
        for trial in complete[:SHOWN]
    ]
    table(["trial", "mAP", *own], rows)
    if len(complete) >= ENOUGH and complete[0].value > complete[-1].value:
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        shares = get_param_importances(study.study, evaluator=FanovaImportanceEvaluator(seed=0))
        say("what mAP depends on: " + ", ".join(f"{key} {share:.0%}" for key, share in shares.items()))
    best, values = complete[0], rounded(recipe, complete[0].params)
    before = next((trial.value for trial in complete if trial.params == own), None)
    _draw(tune_picture_path(recipe.name), study, before)
    tuned = with_values(recipe, values).model_copy(
        update={
            "name": f"{recipe.name}-tuned",
            "tune": {},
            "weights": recipe.weights and str(Path(recipe.weights).resolve()),
        }
    )
    path = tuned_path(recipe.name)
    made = f"# {recipe.name} with {text(values)}: trial {best.number} of {study.name}\n"
    write_text(path, made + toml_text(tuned))
    if best.params == own:
        say(f"tune: nothing better than the recipe as it is, {best.value:.4f}")
        return
    say(f"tune: {best.value:.4f}" + ("" if before is None else f", the recipe as it is {before:.4f}"))
    say("  " + " ".join(f"--set {shlex.quote(f'{key}={value}')}" for key, value in values.items()))
    say(f"{path} is the recipe with them: comp train {path}")
    say(
        "That is the best of many on the folds that chose it, and so flatters itself; to confirm it, compare "
        f"both recipes with another seed: --set seed={recipe.seed + 1} from `comp folds` on"
    )
