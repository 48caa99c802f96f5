"""Entry point of the script of `comp kernel build`: find the mounted inputs, install the wheels, and run the
stages one after the other within the time budget.

Reads the mounted competition and datasets, and to resume the output of an earlier version. Writes the files
of the stages and submission.csv to the working folder. Until the wheels are installed it imports only
packages of Kaggle's image."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from comp.artifacts.files import atomic_write
from comp.artifacts.paths import (
    decision_path,
    duplicates_path,
    folds_path,
    model_path,
    mounted,
    run_dir,
    submissions_dir,
)
from comp.errors import CompError
from comp.kaggle.kernels.wheels import pip_error
from comp.safe_text import sanitize

STAGES = {
    "train": ("download", "duplicates", "folds", "train", "predict", "blend", "decide", "submit"),
    "infer": ("infer",),
}
OF_FOLDS, LONG = ("train", "predict", "blend", "infer"), ("duplicates", "train", "predict", "infer")
RESERVE = 300.0  # seconds of the budget that no stage may use; at most a tenth of the budget
# Kaggle ends a session when all its files together pass 57.6 GiB, while the disk itself shows terabytes. The
# competition's files don't count.
DISK_BYTES = 57 * 2**30


def main(home: Path, plan: dict[str, Any], started: float) -> int:
    """Run a kernel and return its exit code, which is also 0 if the time ran out and the next version can
    resume. `home` is the temporary folder with the package and recipe.toml, `plan` is `Kernel.plan`,
    `started` the time at which the script began."""
    working = Path(os.environ.get("COMP_KAGGLE_WORKING", "/kaggle/working"))
    try:
        working.mkdir(parents=True, exist_ok=True)
        os.chdir(working)
        prepare(home, plan)
        return run_stages(home, plan, started + plan["budget"])
    except CompError as error:
        print(sanitize(f"kernel: {error}"), file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(home, ignore_errors=True)


def prepare(home: Path, plan: dict[str, Any]) -> None:
    """Prepare what the stages use: the environment, wheels, weights, models, and the files of an earlier
    version. The working folder is the current one. Resized images go to `home`/images."""
    packages = home / "wheels"
    paths = [str(packages), str(home), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ |= {"PYTHONPATH": os.pathsep.join(paths), "COMP_DATA": str(home / "images")}
    os.environ.pop("COMP_RUNS", None)
    disk = (str(DISK_BYTES), tempfile.gettempdir(), str(Path.cwd()))
    os.environ.setdefault("COMP_DISK_LIMIT", os.pathsep.join(disk))
    install(find_mounted(plan["wheels"]), packages)
    weights = find_mounted(plan["weights"]) if plan["weights"] else None
    if plan["kind"] == "infer":  # the working folder becomes the kernel's output: keep the models out of it
        assert weights is not None
        os.environ["COMP_RUNS"] = str(home / "finished")
        for fold in plan["folds"]:
            _link(weights / f"fold{fold}.safetensors", model_path(plan["recipe"], fold))
        _link(weights / "decision.json", decision_path(plan["recipe"]))
        return
    folds = folds_path(plan["competition"], plan["n_folds"], plan["seed"])
    if plan["earlier"]:
        earlier = find_mounted(plan["earlier"])
        print(f"kernel: resuming from {earlier}", flush=True)
        for folder in (*map(run_dir, plan["runs"]), folds.parent):
            copy_files(earlier / folder, folder)
    if weights:
        os.environ["COMP_WEIGHTS"] = str(weights)
        (home / "weights").symlink_to(weights)
        duplicates = duplicates_path(plan["competition"])
        for path in (folds, folds.with_suffix(".json"), duplicates, duplicates.with_suffix(".json")):
            if (weights / path.name).exists() and not path.exists():
                _copy(weights / path.name, path)


def find_mounted(source: str) -> Path:
    """Return the folder where `source` is mounted. Raise CompError if it is not."""
    place = mounted(source)
    if place is None:
        raise CompError(f"{source} is not mounted; add it to the inputs of this kernel")
    return place


def install(wheels: Path, target: Path) -> None:
    """Install all wheels of a folder to `target`, without the network and without the versions in the
    image."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    files = sorted(str(path) for path in wheels.glob("*.whl"))
    answer = subprocess.run(
        [*pip, "--no-deps", "--no-compile", "--root-user-action=ignore", "--target", str(target), *files],
        capture_output=True,
        text=True,
    )
    if not files or answer.returncode:
        reason = pip_error(answer.stderr) if answer.returncode else "the folder has none"
        raise CompError(
            f"the wheels in {wheels} can't be installed ({reason}); build the kernel again and push its "
            "datasets"
        )


def copy_files(source: Path, target: Path) -> None:
    """Copy a folder without dot files, which are locks and incomplete files."""
    for path in sorted(source.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            _copy(path, target / path.relative_to(source))


def run_stages(home: Path, plan: dict[str, Any], end: float) -> int:
    """Run the stages, each with the time that is left; interrupt a stage in the reserve and kill it at `end`.
    Return the exit code."""
    reserve = min(RESERVE, plan["budget"] / 10)
    for stage in STAGES[plan["kind"]]:
        left = end - reserve - time.time()
        command = [sys.executable, "-m", "comp", stage, str(home / "recipe.toml")]
        if stage in OF_FOLDS:
            command += ["--folds", ",".join(map(str, plan["folds"]))]
        if stage in LONG:
            command += ["--time-budget", f"{left:.3f}s"]
        code = 3
        if left > 0:
            code = run_until(command, end - reserve / 2, end)
        if code == 3:
            if plan["kind"] == "infer":
                raise CompError("the time ran out before submission.csv; build with a longer --time-budget")
            print(
                f"kernel: the time ran out in {stage}; finished work is kept, and the next version, built "
                "with --resume, continues from there",
                flush=True,
            )
            return 0
        if code:
            return code
    if plan["kind"] == "train":
        keep_submission(plan)
        if end - reserve > time.time():  # the report is optional
            command = [sys.executable, "-m", "comp", "report", str(home / "recipe.toml")]
            run_until(command, end - reserve / 2, end)
    print(f"kernel: submission.csv is written, {(end - time.time()) / 60:.0f} minutes before the end")
    return 0


def keep_submission(plan: dict[str, Any]) -> Path:
    """Copy the newest submission to submission.csv, the name that Kaggle expects; return that path."""
    written = submissions_dir().glob(f"{plan['recipe']}-*.csv")
    _copy(max(written, key=lambda path: path.stat().st_mtime_ns), target := Path("submission.csv"))
    return target


def run_until(command: list[str], interrupt_at: float, kill_at: float) -> int:
    """Run a command and return its exit code, or 3 if it had to be interrupted or killed."""
    process = subprocess.Popen(command)
    try:
        return process.wait(max(0.0, interrupt_at - time.time()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(max(0.1, kill_at - time.time()))
        except subprocess.TimeoutExpired:
            process.kill()
        return 3
    finally:
        process.poll()
        if process.returncode is None:
            process.kill()
        process.wait()


def _copy(source: Path, target: Path) -> None:
    with atomic_write(target) as temporary:
        shutil.copyfile(source, temporary)


def _link(source: Path, target: Path) -> None:
    if not source.exists():
        raise CompError(f"{source} is missing; build the kernel again and push its datasets")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source)
