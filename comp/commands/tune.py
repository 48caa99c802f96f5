"""tune: search the values of the keys that the recipe's [tune] table names.

Reads images, labels and folds; trains trials in runs/<recipe>/tune/<study>-<number>/, of which the logs stay,
and keeps the study in runs/<recipe>/tune.log or another storage; writes tune.png and tuned.toml.
"""

import gc
import os
import re
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.stamps import (
    checkpoint_path,
    digest,
    flat,
    model_path,
    read_log,
    refuse_link,
    remove,
    run_dir,
    trial_run,
    trials_dir,
    tune_picture_path,
    tune_study_path,
    tuned_path,
    waiting_lock,
    write_text,
)
from comp.compute.local_jobs import Device, call, devices, in_ranks, show
from comp.config.loading import Recipe, toml_text, with_values
from comp.console import Bars, clock, say, table
from comp.data.labels import Labels
from comp.data.manifest import Data, read_training
from comp.deadline import deadline_in
from comp.errors import CompError, Diverged, TimeIsUp
from comp.plots.style import new_figure, save, written
from comp.training.extra_images import Extra, extras_of, joined
from comp.training.model_stamp import train_stamp
from comp.training.prepare import check_network, check_steps, n_trained, resized, train_fold
from comp.tuning.search_space import corners, curve, distributions, pruner, rounded, short, text, value_at
from comp.tuning.study import Shared, readable, shown

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


def _check(recipe: Recipe, labels: Labels, n_train: Mapping[int, int]) -> None:
    """Raise CompError where a value to try can't be trained with."""
    networks = {}
    for values in [{}, *corners(recipe, 1)]:
        tried = with_values(recipe, values)
        try:
            check_steps(tried, labels, n_train)
        except CompError as error:
            raise CompError(f"[tune] {text(values)}: {error}" if values else str(error)) from error
        networks[tried.backbone, tried.pretrained, tuple(phase.size for phase in tried.phases)] = tried
    for tried in networks.values():
        check_network(tried)


class Search:
    """Trials on this process's device."""

    def __init__(
        self,
        recipe: Recipe,
        folds: list[int],
        data: Data,
        labels: Labels,
        fold_of: np.ndarray,
        extras: dict[int, list[Extra]],
        study: Shared,
        deadline: float,
    ):
        self.recipe, self.folds, self.study, self.deadline = recipe, folds, study, deadline
        self.data, self.labels, self.fold_of, self.extras = data, labels, fold_of, extras
        self.device: Device = devices(1)[0]

    def work_on(self, trial: Any) -> None:
        """Train a trial and tell the study what came out."""
        from optuna import TrialPruned

        study, states, started = self.study, self.study.states, time.monotonic()
        values = rounded(self.recipe, trial.params)
        told: dict[str, Any] = {}
        if twin := study.twin(trial):
            told = {"values": twin.value} if twin.state == states.COMPLETE else {"state": states.PRUNED}
            for step, value in twin.intermediate_values.items():
                trial.report(value, step)
            result = f"as trial {twin.number}"
        else:
            try:
                with study.working_on(trial) as folder:
                    score = self._score(trial, with_values(self.recipe, values), folder)
                told, result = {"values": score}, f"{score:.4f}"
            except TrialPruned as stop:
                told, result = {"state": states.PRUNED}, f"pruned after {stop}"
            except Diverged as error:
                told, result = {"state": states.PRUNED}, f"given up: {error}"
            except (TimeIsUp, KeyboardInterrupt) as stop:
                study.again(trial.number)
                if isinstance(stop, TimeIsUp):
                    raise TimeIsUp(f"trial {trial.number}: {stop}") from stop
                raise
            except RuntimeError:
                if study.study.get_trials(deepcopy=False)[trial.number].state == states.RUNNING:
                    raise
                say(f"trial {trial.number} was taken for lost by another process, which tries it again")
                return
            except CompError as error:
                study.study.tell(trial.number, state=states.FAIL, skip_if_finished=True)
                raise CompError(f"trial {trial.number} ({text(values)}): {error}") from error
        study.study.tell(trial, **told, skip_if_finished=True)
        say(f"trial {trial.number:>2}  {result}  {text(values)}  {clock(time.monotonic() - started)}")
        self.tidy()

    def _score(self, trial: Any, recipe: Recipe, folder: str) -> float:
        """The mean over the folds of the held-out mAP after the last epoch. That is read off no threshold and
        means the same whatever the loss is; an F-beta at thresholds fitted on the same rows flatters itself,
        and by more where the rows are few. Raises TrialPruned with what was done."""
        from optuna import TrialPruned

        recipe = recipe.model_copy(update={"name": trial_run(self.recipe.name, folder)})
        more = self.extras[self.folds[0]]
        caches = resized(recipe, self.data, self.labels, more, self.deadline, test=False)
        n_epochs = sum(phase.epochs for phase in recipe.phases)
        scores: list[list[float]] = []
        known: dict[int, float] = {}

        def look(fold: int) -> None:
            """Report the epochs that are done, which after a kill may be several."""
            rows = read_log(recipe.name, fold)
            scores[-1] = [row["mAP"] for row in rows]
            for step, value in curve(scores, n_epochs).items():
                if step not in known:
                    known[step] = value
                    trial.report(value, step)
            is_last = fold == self.folds[-1] and len(rows) == n_epochs
            if not is_last and trial.should_prune():
                raise TrialPruned(f"epoch {len(rows)} of fold {fold}, at {scores[-1][-1]:.4f}")

        with Bars() as bars:
            for fold in self.folds:

                def report(fold: int = fold, **event: Any) -> None:
                    if "done" in event:
                        show(bars, f"trial {trial.number} fold {fold}", event)
                    if event.get("saved"):
                        look(fold)

                scores.append([])
                seen, extras = (self.labels, self.fold_of), self.extras[fold]
                stamp = train_stamp(recipe, *seen, self.data.stamp, fold, extras, self.data.limits)
                job = (recipe, fold, *joined(*seen, extras), caches, stamp, False)
                call(train_fold, job, self.device, report, self.deadline)
                look(fold)
        return sum(fold[-1] for fold in scores) / len(scores)

    def tidy(self) -> None:
        """Remove the weights of trials that have ended, and give memory back."""
        for folder in self.study.ended_folders():
            for fold in self.folds:
                for path in (checkpoint_path, model_path):
                    trained = path(trial_run(self.recipe.name, folder), fold)
                    remove(trained, inside=trials_dir(self.recipe.name))
        gc.collect()
        self.device.release()


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


def _draw(path: Path, study: Shared, before: float | None) -> None:
    """tune.png: the trials and the best so far, then each key's values against the score; crosses are trials
    that were pruned, at the score that they had then."""
    from matplotlib.ticker import MaxNLocator, NullFormatter
    from optuna.distributions import IntDistribution

    ended = [trial for trial in study.trials("COMPLETE", "PRUNED") if trial.value is not None]
    n_panels = 1 + len(study.space)
    n_columns = min(3, n_panels)
    figure = new_figure(figsize=(4.2 * n_columns, 3.1 * -(-n_panels // n_columns)), layout="constrained")
    panels = figure.subplots(-(-n_panels // n_columns), n_columns, squeeze=False, sharey=True).ravel()
    for panel, key in zip(panels, [None, *study.space]):
        space: Any = study.space[key] if key else None
        for state, marker, color, label in (
            ("COMPLETE", "o", "tab:blue", "complete"),
            ("PRUNED", "x", "tab:gray", "pruned, at its last score"),
        ):
            mine = [trial for trial in ended if trial.state.name == state]
            x = [trial.params[key] if key else trial.number for trial in mine]
            if hasattr(space, "choices"):
                x = [space.choices.index(value) for value in x]
            panel.scatter(
                x, [trial.value for trial in mine], marker=marker, color=color, s=22, clip_on=False, zorder=3,
                label=label if mine else None,
            )  # fmt: skip
        if hasattr(space, "log"):
            panel.set_xscale("log" if space.log else "linear")
            panel.set_xlim(space.low, space.high)
            if space.log and space.high >= 10 * space.low:
                panel.xaxis.set_minor_formatter(NullFormatter())
        if hasattr(space, "choices"):
            names = [written(value, 24) for value in space.choices]
            slanted = {"rotation": 20, "ha": "right"} if sum(map(len, names)) > 40 else {}
            panel.set_xticks(range(len(names)), names, **slanted)
            panel.set_xlim(-0.5, len(space.choices) - 0.5)
        if space is None or isinstance(space, IntDistribution):
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_xlabel(key or "trial")
    complete = [trial for trial in ended if trial.state.name == "COMPLETE"]
    best = np.maximum.accumulate([trial.value for trial in complete])
    panels[0].step([trial.number for trial in complete], best, where="post", color="tab:orange", label="best")
    if before is not None:
        panels[0].axhline(before, color="0.6", linestyle="--", linewidth=1, label="the recipe as it is")
    panels[0].legend(loc="lower right", fontsize=8)
    panels[0].set_ylabel("held-out mAP")
    for panel in panels[n_panels:]:
        panel.axis("off")
    save(figure, path)
