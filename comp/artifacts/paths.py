"""The path of every file that comp reads or writes. No other module spells a path inside data/, runs/, folds/
or submissions/."""

import os
from collections.abc import Iterable
from pathlib import Path

from comp.artifacts.safe_paths import below
from comp.artifacts.stamps import digest


def data_dir(competition: str) -> Path:
    return Path(os.environ.get("COMP_DATA", "data")) / competition


def manifest_path(competition: str) -> Path:
    return data_dir(competition) / "manifest.json"


def cache_dir(competition: str) -> Path:
    return data_dir(competition) / "cache"


def downloads_dir(competition: str) -> Path:
    return data_dir(competition) / "downloads"


def unpacked_dir(competition: str) -> Path:
    return data_dir(competition) / "unpacked"


def mounted(source: str) -> Path | None:
    """Return the folder in which a Kaggle kernel mounts a source (competitions/<slug>,
    datasets/<owner>/<slug>, notebooks/<owner>/<slug>), in any of Kaggle's layouts; None if there is none."""
    root = Path(os.environ.get("COMP_KAGGLE_INPUT", "/kaggle/input"))
    places = (root / source, root / source.rpartition("/")[2])
    return next((path for path in places if path.is_dir()), None)


def wheel_cache_dir() -> Path:
    """Return the folder of wheels downloaded for kernels with this Python, such as 3.12."""
    return Path(os.environ.get("COMP_DATA", "data")) / ".wheels"


def kernel_dir(recipe: str, kind: str) -> Path:
    return run_dir(recipe) / f"kernel-{kind}"


def folds_path(competition: str, n_folds: int, seed: int) -> Path:
    return Path("folds") / f"{competition}-k{n_folds}-s{seed}.csv"


def duplicates_path(competition: str) -> Path:
    return Path("folds") / f"{competition}-duplicates.csv"


def runs_dir() -> Path:
    return Path(os.environ.get("COMP_RUNS", "runs"))


def run_dir(recipe: str) -> Path:
    return below(runs_dir(), recipe, "the name of a run")


def run_recipe_path(recipe: str) -> Path:
    return run_dir(recipe) / "recipe.toml"


def run_recipes() -> dict[str, Path]:
    """Return the recipe.toml of each run, by the run's name."""
    return {path.parent.name: path for path in sorted(runs_dir().glob("*/recipe.toml"))}


def has_results(recipe: str) -> bool:
    """Whether a run has files that depend on its settings."""
    patterns = ("fold*/*", "oof.npz", "test.npz", "decision.json", "report.html")
    return any(next(run_dir(recipe).glob(pattern), None) for pattern in patterns)


def finished_path(recipe: str) -> Path:
    """Return the note of `comp run` of what its stages left."""
    return run_dir(recipe) / "finished.json"


def finished_runs() -> list[str]:
    """Return the names of runs with out-of-fold predictions, sorted."""
    return sorted(path.parent.name for path in runs_dir().glob("*/oof.npz"))


def compared_path(names: Iterable[str]) -> Path:
    joined = "-".join(names)
    return runs_dir() / f"compare-{joined if len(joined) < 200 else digest(joined)}.png"


def check_path() -> Path:
    return runs_dir() / "check.json"


def tricks_dir(recipe: str) -> Path:
    return run_dir(recipe) / "tricks"


def fold_dir(recipe: str, fold: int) -> Path:
    return run_dir(recipe) / f"fold{fold}"


def log_path(recipe: str, fold: int) -> Path:
    return fold_dir(recipe, fold) / "log.jsonl"


def tensorboard_dir(recipe: str, fold: int | None) -> Path:
    """Return the TensorBoard folder of a fold, or of the decision (fold None)."""
    return run_dir(recipe) / "tensorboard" / ("decision" if fold is None else f"fold{fold}")


def mlflow_path() -> Path:
    """Return the database of MLflow runs that is used without a server."""
    return runs_dir() / "mlflow.db"


def tracked_path(recipe: str, fold: int | None, tracker: str) -> Path:
    """Return the note of what a tracker has got of a fold, or of the decision (fold None)."""
    return (run_dir(recipe) if fold is None else fold_dir(recipe, fold)) / f"tracked-{tracker}.json"


def checkpoint_path(recipe: str, fold: int) -> Path:
    return fold_dir(recipe, fold) / "last.pt"


def started_path(recipe: str, fold: int) -> Path:
    return fold_dir(recipe, fold) / "started.json"


def model_path(recipe: str, fold: int) -> Path:
    return fold_dir(recipe, fold) / "model.safetensors"


def oof_path(recipe: str, fold: int | None = None) -> Path:
    return (run_dir(recipe) if fold is None else fold_dir(recipe, fold)) / "oof.npz"


def test_path(recipe: str, fold: int | None = None) -> Path:
    return (run_dir(recipe) if fold is None else fold_dir(recipe, fold)) / "test.npz"


def predicted_paths(recipe: str, fold: int, n_folds: int) -> list[Path]:
    """Return the files that `predict` writes for a network. A network beyond the folds (`full`) holds nothing
    out, so it has no oof.npz."""
    return [*([oof_path(recipe, fold)] if fold < n_folds else []), test_path(recipe, fold)]


def decision_path(recipe: str) -> Path:
    return run_dir(recipe) / "decision.json"


def explanation_path(recipe: str, image: str) -> Path:
    return run_dir(recipe) / f"explain-{image.replace('/', '-')}.png"


def report_path(recipe: str) -> Path:
    return run_dir(recipe) / "report.html"


def suspects_path(recipe: str) -> Path:
    return run_dir(recipe) / "suspects.csv"


def adversarial_path(recipe: str) -> Path:
    return run_dir(recipe) / "adversarial.json"


def inferred_path(recipe: str, fold: int) -> Path:
    return fold_dir(recipe, fold) / "infer.npz"


def find_lr_path(recipe: str, phase: int) -> Path:
    return run_dir(recipe) / f"find-lr-{phase}.json"


def bare_step_path(recipe: str) -> Path:
    return run_dir(recipe) / "bare-step.json"


def watch_page_path() -> Path:
    """Return the page that `comp watch --static` writes."""
    return runs_dir() / "watch.html"


def look_path(recipe: str, phase: int) -> Path:
    return run_dir(recipe) / f"look-{phase}.png"


def card_path(recipe: str) -> Path:
    return run_dir(recipe) / "card.png"


def study_path(recipe: str) -> Path:
    return run_dir(recipe) / "study.log"


def tune_study_path(recipe: str) -> Path:
    return run_dir(recipe) / "tune.log"


def tune_picture_path(recipe: str) -> Path:
    return run_dir(recipe) / "tune.png"


def tuned_path(recipe: str) -> Path:
    return run_dir(recipe) / "tuned.toml"


def trials_dir(recipe: str) -> Path:
    return run_dir(recipe) / "tune"


def trial_run(recipe: str, trial: str) -> str:
    """Return the run name of a trial of `tune`; its files are inside trials_dir(recipe)."""
    return f"{recipe}/tune/{trial}"


def kernel_output_dir(recipe: str, kind: str, version: int) -> Path:
    return below(run_dir(recipe), f"kernel-{kind}-v{version}", pushed_path(recipe, kind))


def pushed_path(recipe: str, kind: str) -> Path:
    return run_dir(recipe) / f"kernel-{kind}-pushed.json"


def submissions_dir() -> Path:
    return Path("submissions")


def submission_path(name: str) -> Path:
    return below(submissions_dir(), f"{name}.csv", "the name of a submission")


def ledger_path() -> Path:
    return submissions_dir() / "ledger.csv"
