"""The runs as the page shows them: a list of all, and the details of one."""

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from comp.artifacts.decision_schema import Decision
from comp.artifacts.files import read_json
from comp.artifacts.paths import bare_step_path, decision_path, predicted_paths, run_recipe_path, run_recipes
from comp.artifacts.schemas import BareStep
from comp.artifacts.stamps import digest
from comp.config.loading import load_recipe
from comp.config.recipe import Phase, Recipe
from comp.errors import CompError
from comp.safe_text import visible
from comp.training.log_columns import LogColumns
from comp.training.schedule import lr_factor
from comp.user_code import is_reference
from comp.watch.fold_logs import MAX_NAME, FileCache, Fold, end_of_all, read_folds

REREAD_SECONDS = 2.0  # the files are looked at as often, however many browsers ask
POINTS_PER_EPOCH, MAX_POINTS = 20, 400  # of the planned learning rates


class RunReader:
    """Read the runs of these names, or all where none is named; several threads may ask."""

    def __init__(self, names: Collection[str] = ()):
        self.names = frozenset(names)
        self.files = FileCache()
        self.lock = Lock()
        self.read_at = float("-inf")
        self.folds: dict[str, tuple[Recipe, list[Fold]]] = {}
        self.problems: list[str] = []
        self.listed: dict[str, Any] = {}

    def overview(self) -> dict[str, Any]:
        """Return the runs, the newest first, and what can't be read. Runs that were not named are there too:
        the others can be compared with them."""
        with self.lock:
            self._look()
            return self.listed

    def is_over(self) -> bool:
        """Whether all watched networks are trained, and there is one."""
        runs = self.overview()
        watched = [run for run in runs["runs"] if run["watched"]]
        return bool(watched) and not runs["expected"] and all(run["state"] == "trained" for run in watched)

    def details(self, name: str, marks: Sequence[str] = ()) -> dict[str, Any] | None:
        """Return what the page shows of a run, with the rows of each fold that come after the `marks` of the
        rows that the page has; None if there is no such run."""
        with self.lock:
            self._look()
            if name not in self.folds:
                return None
            recipe, folds = self.folds[name]
            columns = _columns_of(recipe, folds)
            return {
                **self._summary(name),
                "phases": [_phase(phase) for phase in recipe.phases],
                "plan": planned_rates(recipe.phases),
                "columns": {"keys": columns.keys, "title": columns.title, "sign": columns.sign},
                "fitted": columns.metric == "fbeta",
                "numbers": recipe.competition.metric.kind == "numbers",
                "bare": self._bare(recipe),
                "folds": [
                    _fold(recipe, fold, marks[fold.number] if fold.number < len(marks) else "")
                    for fold in folds
                ],
            }

    def worst(self, name: str) -> tuple[Recipe, set[str]] | None:
        """Return the recipe of a run, and the ids of its worst images after all epochs."""
        with self.lock:
            self._look()
            if name not in self.folds:
                return None
            recipe, folds = self.folds[name]
            rows = [row for fold in folds for row in fold.log.rows]
            return recipe, {image["id"] for row in rows for image in row["worst"]}

    # --- with the lock

    def _look(self) -> None:
        """Look at the files again, if the last time was a while ago."""
        if time.monotonic() - self.read_at < REREAD_SECONDS:
            return
        self.folds, self.problems = {}, []
        for name, path in run_recipes().items():
            try:
                recipe = self.files.read(path, _recipe_of)
                if recipe and not recipe.members:
                    self.folds[name] = recipe, read_folds(recipe, self.files, time.time())
            except CompError as error:
                self.problems.append(visible(error, 300))
        runs = sorted(map(self._summary, self.folds), key=lambda run: (-run["begun"], run["name"]))
        expected = sorted(self.names - self.folds.keys())
        self.listed = {"runs": runs, "expected": expected, "problems": self.problems}
        self.read_at = time.monotonic()

    def _summary(self, name: str) -> dict[str, Any]:
        recipe, folds = self.folds[name]
        columns = _columns_of(recipe, folds)
        states = [fold.state for fold in folds]
        order = ("training", "stopped", "waiting")
        last = [fold.log.rows[-1].get(columns.metric) for fold in folds if fold.log.rows]
        known = [value for value in last if value is not None]
        facts = {
            "name": name,
            "watched": not self.names or name in self.names,
            "about": f"{visible(recipe.backbone, MAX_NAME)}, {_sizes(recipe)} px",
            "task": [recipe.competition.name, str(recipe.competition.metric)],
            "title": columns.title,
            "state": next((state for state in order if state in states), "trained"),
            "n_networks": len(folds),
            "n_trained": states.count("trained"),
            "n_predicted": sum(
                all(path.exists() for path in predicted_paths(name, fold.number, recipe.n_folds))
                for fold in folds
            ),
            "decided": self._score(name),
            "epochs": sum(len(fold.log.rows) for fold in folds),
            "n_epochs": len(folds) * sum(phase.epochs for phase in recipe.phases),
            "score": sum(known) / len(known) if known else None,
            "begun": min((fold.begun for fold in folds if fold.begun), default=_time_of(name)),
            "written": max((fold.written for fold in folds if fold.written), default=None),
            "ends": end_of_all(folds),
        }
        marks = [(fold.log.marks[-1:], fold.log.n_damaged, fold.ends) for fold in folds]
        return {**facts, "version": digest(facts, states, marks, self._bare(recipe))}

    def _score(self, name: str) -> float | None:
        """Return the cross-fitted score of a decided run."""
        try:
            found = self.files.read(decision_path(name), lambda path: read_json(path, Decision))
        except CompError:
            return None
        return found["scores"]["cross_fitted"] if found else None

    def _bare(self, recipe: Recipe) -> dict[str, Any] | None:
        """Return the rates of the bare step by size, of one network, if they were measured with its
        backbone."""
        try:
            found = self.files.read(bare_step_path(recipe.name), lambda path: read_json(path, BareStep))
        except CompError:
            return None
        if not found or found["backbone"] != recipe.backbone:
            return None
        wanted = {(phase.size, phase.batch_size) for phase in recipe.phases}
        rates = {size: rate for size, batch, rate in found["rates"] if (size, batch) in wanted}
        at_once = found["at_once"]
        return {
            "machine": visible(found["machine"], MAX_NAME),
            "at_once": at_once,
            "rates": {size: rate / at_once for size, rate in rates.items()},
        }


def _recipe_of(path: Path) -> Recipe:
    """Return the recipe of a run, by the name of its folder, which may have been copied."""
    return load_recipe(str(path)).model_copy(update={"name": path.parent.name})


def _columns_of(recipe: Recipe, folds: Sequence[Fold]) -> LogColumns:
    single = any("accuracy" in row for fold in folds for row in fold.log.rows[:1])
    return LogColumns.of(recipe.competition.metric, single=single)


def _sizes(recipe: Recipe) -> str:
    return "-".join(dict.fromkeys(str(phase.size) for phase in recipe.phases))


def _time_of(name: str) -> float:
    try:
        return run_recipe_path(name).stat().st_mtime
    except OSError:
        return 0.0


def _phase(phase: Phase) -> dict[str, Any]:
    return phase.model_dump(include={"size", "epochs", "batch_size"})


def _fold(recipe: Recipe, fold: Fold, mark: str) -> dict[str, Any]:
    """Return what the page shows of a fold, with the rows after those that end with `mark`."""
    log = fold.log
    known = log.after(mark)
    return {
        "name": f"fold {fold.number}" if fold.number < recipe.n_folds else "all images",
        "state": fold.state,
        "begun": fold.begun,
        "written": fold.written,
        "next": fold.next_seconds,
        "ends": fold.ends,
        "damaged": log.n_damaged,
        "known": known,
        "rows": log.rows[known:],
        "mark": log.marks[-1] if log.marks else "",
    }


def planned_rates(phases: Sequence[Phase]) -> list[list[float | None]]:
    """Return [epochs done, rate of the head, rate of the other layers] along the run; None where a rate is
    the user's own function, or the layers are not trained."""
    points: list[list[float | None]] = []
    done, n_epochs = 0, sum(phase.epochs for phase in phases)
    density = min(POINTS_PER_EPOCH, max(1, MAX_POINTS // n_epochs))
    for phase in phases:
        n = phase.epochs * density
        for step in range(n):
            share = _share(phase, step, n)
            is_head = step < phase.head_epochs * density
            body = None if share is None or is_head else share * (phase.body_lr or phase.lr)
            rate = None if share is None else share * phase.lr
            points.append([done + (step + 0.5) / density, _short(rate), _short(body)])
        done += phase.epochs
    return points


def _share(phase: Phase, step: int, n_steps: int) -> float | None:
    if is_reference(phase.schedule):
        return None
    return lr_factor(phase.schedule, step, n_steps, phase.cycles, phase.warm_up)


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")
