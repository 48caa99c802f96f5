"""comp as a library: the stages as functions, and `Run`, a run's files as tables.

Every function of a stage does what the command of its name does, and returns the run."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack, overload

import numpy as np
import pandas as pd

from comp import decision as decisions
from comp.artifacts.paths import (
    decision_path,
    oof_path,
    report_path,
    run_recipes,
    runs_dir,
    submission_path,
    test_path,
)
from comp.artifacts.predictions import load
from comp.artifacts.resumable import read_log
from comp.artifacts.run_recipe import read_recipe
from comp.artifacts.safe_paths import below
from comp.cli.dispatch import run_all_stages, run_stage
from comp.config.loading import as_overrides
from comp.config.loading import load_recipe as load_toml
from comp.config.recipe import Recipe
from comp.data.manifest import read_training
from comp.decision import Decision
from comp.errors import CompError, summarize
from comp.kaggle import ledger


@dataclass(frozen=True)
class Run:
    """A run: its recipe, and what its stages have written so far, read anew at each access."""

    recipe: Recipe

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def classes(self) -> tuple[str, ...]:
        return read_training(self.recipe)[1].classes

    @property
    def targets(self) -> pd.DataFrame:
        """The true labels of all training images, 0 or 1, by id."""
        _, labels, _ = read_training(self.recipe)
        return _table(labels.targets, labels.ids, labels.classes)

    @property
    def folds(self) -> pd.Series:
        """The fold of each training image, by id."""
        _, labels, fold_of = read_training(self.recipe)
        return pd.Series(fold_of, pd.Index(labels.ids, name="id"), name="fold")

    @property
    def oof(self) -> pd.DataFrame:
        """Out-of-fold probabilities by id: each image by the network that did not train on it."""
        return self._predictions(oof_path(self.name))

    @property
    def test(self) -> pd.DataFrame:
        """Probabilities of the test images by id: the mean of the folds' networks."""
        return self._predictions(test_path(self.name))

    @property
    def decision(self) -> Decision:
        """The rule that turns probabilities into answers, with its scores."""
        from comp.evaluation.results import read_results

        results = read_results(self.recipe)
        rows = decisions.Rows(results.probs, results.targets, results.decisions)
        return Decision.load(decision_path(self.name), results.scorer).with_rows(rows)

    @property
    def history(self) -> pd.DataFrame:
        """A row per fold and epoch: losses, held-out mAP and F-beta, learning rate, time. Of members,
        theirs."""
        members = self.recipe.members or (self.recipe,)
        rows = [
            {**({"member": one.name} if self.recipe.members else {}), "fold": fold, **epoch}
            for one in members
            for fold in range(one.n_networks)
            for epoch in read_log(one.name, fold)
        ]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["fold", "epoch"])

    @property
    def ledger(self) -> pd.DataFrame:
        """The run's submissions, oldest first, with cross-fitted, public and private scores."""
        rows = [row for row in ledger.read() if row["recipe"] == self.name]
        frame = pd.DataFrame(rows, columns=None if rows else ledger.COLUMNS)
        scores = ["cross_fitted", "public", "private"]
        frame[scores] = frame[scores].apply(pd.to_numeric)
        return frame

    @property
    def submission(self) -> Path:
        """The CSV of the last submission."""
        rows = [row for row in ledger.read() if row["recipe"] == self.name]
        if not rows:
            raise CompError(f"{self.name} has no submission; run `comp submit {self.name}` first")
        return submission_path(rows[-1]["name"])

    def predict(self, images: Any) -> pd.DataFrame:
        """Return probabilities of images: the mean of the run's networks, each over the recipe's views.
        `images` are paths, or arrays (H, W, channels) uint8; one of them alone is one row. Raise CompError
        for what is no image, and for a blend, which has no networks of its own."""
        from comp.evaluation.new_images import finished_networks, predict_images
        from comp.training.model_stamp import limits_of_model

        alone = isinstance(images, (str, os.PathLike)) or isinstance(images, np.ndarray) and images.ndim == 3
        listed = [images] if alone else list(images)
        names = [str(one) if isinstance(one, (str, os.PathLike)) else n for n, one in enumerate(listed)]
        networks = finished_networks(self.recipe)
        probs, classes = predict_images(self.recipe, networks, listed, limits_of_model(networks[0]))
        return _table(probs, names, classes)

    def show(self, ids: Sequence[str], columns: int = 6) -> Any:
        """Return a matplotlib Figure of training images with their labels."""
        from comp.evaluation.new_images import training_images
        from comp.plots.images import draw

        images = training_images(self.recipe, ids)
        labels = self.targets.loc[list(ids)]
        texts = [" ".join(np.array(labels.columns)[row == 1]) for row in labels.to_numpy()]
        return draw(images, list(map(str, ids)), texts, columns)

    def look(self, phase: int = -1, fold: int = 0) -> Any:
        """Return a matplotlib Figure of the first batch of a phase as the network of a fold will get it:
        augmented, normalised and mixed, with labels, and checks below; with the last phase, the default, the
        test-time views of a held-out image too. Of members, the first one's. The run need not have trained.
        Raise CompError where there is no such phase or fold."""
        from comp.plots.look import new_sheet
        from comp.training.first_batches import read_first_batches

        recipe = (self.recipe.members or (self.recipe,))[0]
        if fold not in range(recipe.n_networks):
            raise CompError(f"fold is {fold!r}; a number from 0 to {recipe.n_networks - 1} is expected")
        n_phases = len(recipe.phases)
        if phase not in range(-n_phases, n_phases):
            raise CompError(f"phase is {phase!r}; a number from 0 to {n_phases - 1} is expected")
        seen = read_first_batches(recipe, fold)
        return new_sheet(seen, seen.batches[phase])

    def report(self) -> Path:
        """Write the page about the run and its card, unless they are up to date, and return the page's
        path."""
        run_stage("report", self.recipe, {})
        return report_path(self.name)

    def _predictions(self, path: Path) -> pd.DataFrame:
        found = load(path, self.classes)
        return _table(found.probs, found.ids, found.classes)


def load_recipe(name: str, values: Mapping[str, Any] | None = None, run: str | None = None) -> Recipe:
    """Return the recipe of a run or of comp by its name, or that of a TOML file by its path. `values` change
    keys, such as {"phases.0.epochs": 2}; `run` names the run. Raise CompError for an unknown name, key or
    value."""
    return read_recipe(name, as_overrides(values or {}), run)


def load_run(name: str) -> Run:
    """Return a run by its name in runs/. Raise CompError where there is none."""
    below(runs_dir(), name, "the name of a run")
    begun = run_recipes()
    if name not in begun:
        known = f"there are {summarize(begun, 20)}" if begun else "there is none"
        raise CompError(f"{runs_dir()}/{name}/recipe.toml is not there; {known}; `comp.train` begins one")
    return Run(load_toml(name, runs=begun))


def runs() -> pd.DataFrame:
    """Return a row per run, the newest first: its recipe's settings, finished networks, scores, seconds."""
    from comp.evaluation.run_summary import summarize_runs

    found = summarize_runs(ledger.read())
    columns = ("backbones", "sizes", "n_done", "n_networks", "cross_fitted", "public", "private", "seconds")
    rows = [[one.recipe.competition.name, *(getattr(one, key) for key in columns)] for one in found]
    index = pd.Index([one.recipe.name for one in found], name="run")
    return pd.DataFrame(rows, index, ["competition", *columns])


# --- the stages ---------------------------------------------------------------------------------------------


def run(recipe: "str | Recipe | Run", *, send: bool = False, force: bool = False) -> Run:
    """Run all stages. Finished ones are skipped."""
    if not isinstance(recipe, str):
        given = _recipe_of(recipe)
        run_all_stages(given.name, lambda name: (given, {"send": send, "force": force}))
        return Run(given)
    done = run_all_stages(recipe, lambda name: (read_recipe(name), {"send": send, "force": force}))
    return load_run(done)


def download(recipe: "str | Recipe | Run", source: str | None = None, *, force: bool = False) -> Run:
    """Download the competition's files, or take them from the folder or archive `source`."""
    return _stage("download", recipe, source=source, force=force)


def duplicates(recipe: "str | Recipe | Run", *, likeness: float = 0.9, force: bool = False) -> Run:
    """Find equal and nearly equal images, so that they stay in one fold."""
    return _stage("duplicates", recipe, likeness=likeness, force=force)


def folds(recipe: "str | Recipe | Run", *, force: bool = False) -> Run:
    """Split the training images into stratified folds."""
    return _stage("folds", recipe, force=force)


def train(
    recipe: "str | Recipe | Run",
    folds: Sequence[int] | None = None,
    *,
    force: bool = False,
    budget: float | None = None,
) -> Run:
    """Train a network per fold, of these folds or of all. Raise TimeIsUp after `budget` seconds; the same
    call resumes."""
    return _stage("train", recipe, folds=folds, force=force, budget=budget)


def predict(
    recipe: "str | Recipe | Run",
    folds: Sequence[int] | None = None,
    *,
    force: bool = False,
    budget: float | None = None,
) -> Run:
    """Predict held-out and test images, as the mean over test-time views."""
    return _stage("predict", recipe, folds=folds, force=force, budget=budget)


def blend(
    recipe: "str | Recipe | Run",
    *others: str,
    name: str | None = None,
    how: str = "auto",
    folds: Sequence[int] | None = None,
    force: bool = False,
) -> Run:
    """Combine the folds of a run, or with `others` several runs to a new one of this name."""
    options = {"others": list(others), "name": name, "how": how}
    done = _stage("blend", recipe, folds=folds, force=force, **options)
    return load_run(name or "_".join([done.name, *others])) if others else done


@overload
def decide(
    probs: "str | Recipe | Run",
    *,
    rule: str | None = None,
    thresholds: str | None = None,
    force: bool = False,
) -> Run: ...


@overload
def decide(
    probs: np.ndarray | pd.DataFrame,
    targets: np.ndarray | pd.DataFrame,
    metric: decisions.Scorer | decisions.Metric = ...,
    *,
    classes: Sequence[str] | None = None,
    **options: Unpack[decisions.DecideOptions],
) -> Decision: ...


def decide(probs: Any, *arguments: Any, **options: Any) -> Any:
    """Decide a run, or arrays of any other program.

    decide("planet", rule=None, force=False) finds the rule of a run, and returns the run; thresholds=FILE
    takes the values of a TOML file, as the report's threshold lab copies them.

    decide(probs, targets, metric, classes=…) returns a Decision for out-of-fold probabilities (N, C) and
    targets (N, C) 0/1, or numbers, both arrays or tables by id. The metric is a FBeta or a Metric. More
    keywords: rule, folds, exclusive, min_labels, settings, as in comp.decisions.decide.decide."""
    if isinstance(probs, (str, Recipe, Run)):
        return _stage("decide", probs, *arguments, **options)
    return decisions.decide(probs, *arguments, **options)


def submit(
    recipe: "str | Recipe | Run", *, send: bool = False, message: str | None = None, force: bool = False
) -> Run:
    """Write and check the submission, and add it to the ledger; with `send`, send it to Kaggle and wait for
    its score."""
    return _stage("submit", recipe, send=send, message=message, force=force)


def enter_kernel(script: Mapping[str, Any]) -> Recipe:
    """Prepare a Kaggle notebook, and return its recipe. `script` are the variables of the script of `comp
    kernel build`: what is mounted is found, wheels are installed, and the working folder is Kaggle's."""
    from comp.kaggle.kernels.entrypoint import prepare

    home, plan = script["home"], script["PLAN"]
    os.chdir(os.environ.get("COMP_KAGGLE_WORKING", "/kaggle/working"))
    prepare(home, plan)
    sys.path.insert(0, str(home / "wheels"))
    return read_recipe(str(home / "recipe.toml"))


def _stage(stage: str, recipe: "str | Recipe | Run", **options: Any) -> Run:
    given = _recipe_of(recipe)
    if options.get("folds") is None:
        options.pop("folds", None)
    elif wrong := [fold for fold in options["folds"] if fold not in range(given.n_networks)]:
        raise CompError(f"folds has {wrong[0]!r}; numbers from 0 to {given.n_networks - 1} are expected")
    run_stage(stage, given, options)
    return Run(given)


def _recipe_of(recipe: Any) -> Recipe:
    if isinstance(recipe, Run):
        return recipe.recipe
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, str):
        return read_recipe(recipe)
    raise CompError(f"recipe is {recipe!r}; a name, a TOML file's path, a Recipe or a Run is expected")


def _table(values: np.ndarray, ids: Any, classes: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame(values, pd.Index(ids, name="id"), pd.Index(classes, name="label"))
