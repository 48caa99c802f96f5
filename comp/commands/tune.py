"""tune: search values for the keys in the recipe's [tune] table.

Reads images, labels and folds; trains trials in runs/<recipe>/tune/<study>-<number>/, whose logs are kept;
keeps the study in runs/<recipe>/tune.log or another storage; writes tune.png and tuned.toml.
"""

import os
import re
import shlex
from pathlib import Path
from typing import Any

from comp.artifacts.files import flatten, lock, write_text
from comp.artifacts.paths import (
    run_dir,
    trials_dir,
    tune_picture_path,
    tune_study_path,
    tuned_path,
)
from comp.artifacts.safe_paths import refuse_link
from comp.artifacts.stamps import digest
from comp.config.loading import toml_text, with_values
from comp.config.recipe import Recipe
from comp.console import info, table
from comp.deadline import deadline_in
from comp.errors import CompError
from comp.plots.tuning import draw
from comp.training.log_columns import LogColumns
from comp.training.training_data import TrainingData
from comp.tuning.pruning import make_pruner
from comp.tuning.search_space import distributions, read_value, round_values, short, text
from comp.tuning.study import SharedStudy, storage_errors, storage_name
from comp.tuning.trials import TrialRunner, check_values

N_SHOWN = 10  # trials in the table
MIN_TRIALS_FOR_IMPORTANCE = 10  # fewer can't tell what the score depends on


def run(recipe: Recipe, *, folds: list[int], budget: float | None, trials: int, storage: str | None) -> None:
    if trials < 1:
        raise CompError(f"--trials {trials}: expected 1 or more")
    deadline = deadline_in(budget)
    if recipe.members:
        raise CompError(f"{recipe.name} has members; write each as a recipe and tune it")
    if not (folds := [fold for fold in folds if fold < recipe.n_folds]):
        raise CompError(f"only folds 0 to {recipe.n_folds - 1} hold images out")
    space = distributions(recipe)
    training = TrainingData.read(recipe, folds)
    check_values(recipe, training.labels, training.n_trained(folds))
    stamps = [flatten(training.stamp(fold)) for fold in folds]
    fixed = [{key: value for key, value in stamp.items() if key not in space} for stamp in stamps]
    name = f"{recipe.name}-{digest(fixed, recipe.model_dump(mode='json')['tune'])}"
    place = _resolve(storage) or str(tune_study_path(recipe.name))
    if storage is None:
        refuse_link(Path(place))
    with storage_errors(place):
        study = SharedStudy(
            place, name, space, seed=recipe.seed, pruner=make_pruner(), folder=trials_dir(recipe.name)
        )
        own = {key: read_value(recipe, key) for key in space}
        study.start(own)
        n_done = len(study.trials("COMPLETE", "PRUNED"))
        info(
            f"tune: {recipe.name}, {', '.join(space)}; folds {', '.join(map(str, folds))}; {n_done} of "
            f"{trials} trials done, study {name} in {storage_name(place)}"
        )
        search = TrialRunner(training, folds, study, deadline)
        search.tidy()
        while (trial := study.next(trials, deadline)) is not None:
            search.work_on(trial)
        with lock(run_dir(recipe.name) / ".tune.lock", wait=True):
            complete = sorted(study.trials("COMPLETE"), key=lambda trial: -trial.value)
            if not complete:
                raise CompError("no trial was completed; try other ranges")
            before = next((trial.value for trial in complete if trial.params == own), None)
            draw(tune_picture_path(recipe.name), study, before, columns_of(recipe))
            _write_tuned(recipe, complete[0], study.name)
            _show_trials(recipe, study, complete, own)
            _show_best(recipe, complete[0], own, before)


def _resolve(storage: str | None) -> str | None:
    """Return the value of --storage; '$NAME' is replaced by the environment variable NAME."""
    if storage is None or not (variable := re.fullmatch(r"\$(\w+)", storage)):
        return storage
    if not (place := os.environ.get(variable[1], "").strip()):
        raise CompError(f"--storage {storage}: the environment has no such variable")
    return place


def columns_of(recipe: Recipe) -> LogColumns:
    """Return the columns of the recipe's logs, with the one that trials are compared by."""
    return LogColumns.of(recipe.competition.metric, single=False)


def _write_tuned(recipe: Recipe, best: Any, study: str) -> None:
    """Write tuned.toml: the recipe with the values of the best trial."""
    values = round_values(recipe, best.params)
    tuned = with_values(recipe, values).model_copy(
        update={
            "name": f"{recipe.name}-tuned",
            "tune": {},
            "weights": recipe.weights and str(Path(recipe.weights).resolve()),
        }
    )
    made = f"# {recipe.name} with {text(values)}: trial {best.number} of {study}\n"
    write_text(tuned_path(recipe.name), made + toml_text(tuned))


def _show_trials(recipe: Recipe, study: SharedStudy, complete: list[Any], own: dict[str, Any]) -> None:
    """Print the best trials, and what the score depends on."""
    n_pruned, columns = len(study.trials("PRUNED")), columns_of(recipe)
    shown = f"held-out {columns.tuned_title} of {len(complete)} complete trials"
    info(f"tune: {recipe.name}, {shown}; {n_pruned} were pruned")
    rows = [
        (
            f"{trial.number}{' (unchanged)' if trial.params == own else ''}",
            f"{columns.sign * trial.value:.4f}",
        )
        + tuple(short(value) for value in round_values(recipe, trial.params).values())
        for trial in complete[:N_SHOWN]
    ]
    table(["trial", columns.tuned_title, *own], rows)
    if len(complete) >= MIN_TRIALS_FOR_IMPORTANCE and complete[0].value > complete[-1].value:
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        shares = get_param_importances(study.study, evaluator=FanovaImportanceEvaluator(seed=0))
        info(
            f"{columns.tuned_title} depends on: "
            + ", ".join(f"{key} {share:.0%}" for key, share in shares.items())
        )


def _show_best(recipe: Recipe, best: Any, own: dict[str, Any], before: float | None) -> None:
    """Print the best trial and how to use its values. `before` is the score of the unchanged recipe."""
    sign = columns_of(recipe).sign
    score = sign * best.value
    if best.params == own:
        info(f"tune: nothing is better than the unchanged recipe, {score:.4f}")
        return
    values, path = round_values(recipe, best.params), tuned_path(recipe.name)
    info(f"tune: {score:.4f}" + ("" if before is None else f", the unchanged recipe {sign * before:.4f}"))
    info("  " + " ".join(f"--set {shlex.quote(f'{key}={value}')}" for key, value in values.items()))
    info(f"{path} is the recipe with these values: comp train {path}")
    info(
        "This score is optimistic: the same folds chose the best of many trials. To confirm it, compare "
        f"both recipes with another seed: --set seed={recipe.seed + 1} from `comp folds` on"
    )
