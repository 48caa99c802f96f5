"""A trial of `comp tune`: train it fold by fold, score it, prune it."""

import gc
import time
from collections.abc import Mapping
from typing import Any

from comp.artifacts.paths import checkpoint_path, model_path, trial_run, trials_dir
from comp.artifacts.resumable import read_log
from comp.artifacts.safe_paths import remove
from comp.compute.devices import Device, devices
from comp.compute.jobs import call, show
from comp.config.loading import with_values
from comp.config.recipe import Recipe
from comp.console import ProgressBars, clock, info
from comp.data.labels import Labels
from comp.errors import CompError, Diverged, TimeIsUp
from comp.training.fit import train_fold
from comp.training.log_columns import LogColumns
from comp.training.prepare import build_training_caches, check_network, check_steps
from comp.training.training_data import TrainingData
from comp.tuning.pruning import curve
from comp.tuning.search_space import corner_values, round_values, text
from comp.tuning.study import SharedStudy


def check_values(recipe: Recipe, labels: Labels, n_train: Mapping[int, int]) -> None:
    """Raise CompError where the recipe can't be trained with one of the values. `n_train` is the number of
    training images by fold."""
    networks = {}
    for values in [{}, *corner_values(recipe, 1)]:
        tried = with_values(recipe, values)
        try:
            check_steps(tried, labels, n_train)
        except CompError as error:
            raise CompError(f"[tune] {text(values)}: {error}" if values else str(error)) from error
        networks[tried.backbone, tried.pretrained, tuple(phase.size for phase in tried.phases)] = tried
    for tried in networks.values():
        check_network(tried)


class TrialRunner:
    """Run trials on one device."""

    def __init__(self, training: TrainingData, folds: list[int], study: SharedStudy, deadline: float):
        self.training, self.folds, self.study, self.deadline = training, folds, study, deadline
        self.recipe = training.recipe
        self.device: Device = devices(1)[0]
        self.columns = LogColumns.of(self.recipe.competition.metric, single=False)

    def work_on(self, trial: Any) -> None:
        """Train a trial and report its result to the study."""
        from optuna import TrialPruned

        study, states, started = self.study, self.study.states, time.monotonic()
        values = round_values(self.recipe, trial.params)
        outcome: dict[str, Any] = {}
        if duplicate := study.find_duplicate_trial(trial):
            complete = duplicate.state == states.COMPLETE
            outcome = {"values": duplicate.value} if complete else {"state": states.PRUNED}
            for step, value in duplicate.intermediate_values.items():
                trial.report(value, step)
            result = f"as trial {duplicate.number}"
        else:
            try:
                with study.working_on(trial) as folder:
                    score = self._score(trial, with_values(self.recipe, values), folder)
                outcome, result = {"values": score}, f"{self.columns.sign * score:.4f}"
            except TrialPruned as stop:
                outcome, result = {"state": states.PRUNED}, f"pruned after {stop}"
            except Diverged as error:
                outcome, result = {"state": states.PRUNED}, f"given up: {error}"
            except (TimeIsUp, KeyboardInterrupt) as stop:
                study.requeue(trial.number)
                if isinstance(stop, TimeIsUp):
                    raise TimeIsUp(f"trial {trial.number}: {stop}") from stop
                raise
            except RuntimeError:
                if study.study.get_trials(deepcopy=False)[trial.number].state == states.RUNNING:
                    raise
                info(f"another process considered trial {trial.number} dead and retries it")
                return
            except CompError as error:
                study.study.tell(trial.number, state=states.FAIL, skip_if_finished=True)
                raise CompError(f"trial {trial.number} ({text(values)}): {error}") from error
        study.study.tell(trial, **outcome, skip_if_finished=True)
        info(f"trial {trial.number:>2}  {result}  {text(values)}  {clock(time.monotonic() - started)}")
        self.tidy()

    def _score(self, trial: Any, recipe: Recipe, folder: str) -> float:
        """Return the mean over folds of the held-out score after the last epoch, negative where a smaller one
        is better. Raise TrialPruned with what was done.

        Of labels it is mAP, which needs no threshold and is comparable across losses: F-beta at thresholds
        fitted on the same rows is optimistic, and more so with fewer rows. Of other answers it is the
        metric."""
        from optuna import TrialPruned

        recipe = recipe.model_copy(update={"name": trial_run(self.recipe.name, folder)})
        training, columns = self.training, self.columns
        extras = training.extras[self.folds[0]]
        caches = build_training_caches(
            recipe, training.data, training.labels, extras, self.deadline, test=False
        )
        n_epochs = sum(phase.epochs for phase in recipe.phases)
        scores: list[list[float]] = []
        reported: dict[int, float] = {}

        def report_epochs(fold: int) -> None:
            """Report the finished epochs; after a resume there may be several new ones."""
            rows = read_log(recipe.name, fold)
            if any(row[columns.tuned] is None for row in rows):
                raise CompError(f"{columns.tuned_title} is not defined on the held-out images of fold {fold}")
            scores[-1] = [columns.sign * row[columns.tuned] for row in rows]
            for step, value in curve(scores, n_epochs).items():
                if step not in reported:
                    reported[step] = value
                    trial.report(value, step)
            is_last = fold == self.folds[-1] and len(rows) == n_epochs
            if not is_last and trial.should_prune():
                raise TrialPruned(f"epoch {len(rows)} of fold {fold}, at {columns.sign * scores[-1][-1]:.4f}")

        with ProgressBars() as bars:
            for fold in self.folds:

                def report(fold: int = fold, **event: Any) -> None:
                    if "done" in event:
                        show(bars, f"trial {trial.number} fold {fold}", event)
                    if event.get("saved"):
                        report_epochs(fold)

                scores.append([])
                inputs = training.fold_inputs(fold, caches, training.stamp(fold, recipe), recipe)
                call(train_fold, (inputs, False), self.device, report, self.deadline)
                report_epochs(fold)
        return sum(fold[-1] for fold in scores) / len(scores)

    def tidy(self) -> None:
        """Remove the weights of finished trials, and free memory."""
        for folder in self.study.ended_folders():
            for fold in self.folds:
                for path in (checkpoint_path, model_path):
                    trained = path(trial_run(self.recipe.name, folder), fold)
                    remove(trained, inside=trials_dir(self.recipe.name))
        gc.collect()
        self.device.release()
