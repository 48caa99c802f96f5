"""A trial of `comp tune`: trained fold by fold, scored, pruned."""

import gc
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from comp.artifacts.paths import checkpoint_path, model_path, trial_run, trials_dir
from comp.artifacts.resumable import read_log
from comp.artifacts.safe_paths import remove
from comp.compute.devices import Device, devices
from comp.compute.jobs import call, show
from comp.config.loading import with_values
from comp.config.recipe import Recipe
from comp.console import Bars, clock, say
from comp.data.labels import Labels
from comp.data.manifest import Data
from comp.errors import CompError, Diverged, TimeIsUp
from comp.training.extra_images import Extra, joined
from comp.training.fit import train_fold
from comp.training.model_stamp import train_stamp
from comp.training.prepare import check_network, check_steps, resized
from comp.tuning.pruning import curve
from comp.tuning.search_space import corners, rounded, text
from comp.tuning.study import Shared


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
