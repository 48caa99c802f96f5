"""Trackers: the epochs of log.jsonl and the scores of a decision, told to TensorBoard, Weights & Biases,
MLflow or trackio, as the recipe's key `track` asks for.

A process for each tracker follows the files, so a client that is slow, hangs or fails takes nothing from
training. What a tracker could not be told, or a killed process did not come to tell, the same command tells
when it is given again."""

import contextlib
import importlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

from comp.artifacts.schemas import Decision, Started, Told
from comp.artifacts.stamps import (
    decision_path,
    digest,
    flat,
    mlflow_path,
    plain,
    read_json,
    read_log,
    read_stamp,
    remove,
    run_dir,
    started_path,
    tensorboard_dir,
    tracked_path,
    write_json,
)
from comp.child_processes import Child
from comp.config.loading import Recipe
from comp.console import say
from comp.errors import CompError
from comp.safe_text import without_secrets

BETWEEN_LOOKS = 1.0  # seconds
BETWEEN_TRIES = 60.0  # seconds, after an error
PATIENCE = 30.0  # seconds that trackers have at the end
INIT_TIMEOUT = 15  # seconds that a server has for its first answer
END = "end"  # what a tracker's process is told at the end


@dataclass(frozen=True)
class Run:
    """What is one run to a tracker: a fold's training, or with `fold` None the recipe's decision."""

    recipe: Recipe
    fold: int | None
    stamp: dict[str, Any]

    @property
    def id(self) -> str:
        """The same for what goes on, another one for what is trained anew."""
        path = None if self.fold is None else started_path(self.recipe.name, self.fold)
        begun = read_json(path, Started).get("begun") if path and path.exists() else None
        return digest(self.recipe.name, self.fold, plain(self.stamp), begun)

    @property
    def kind(self) -> str:
        return "decision" if self.fold is None else "fold"

    @property
    def name(self) -> str:
        return f"{self.recipe.name} {self.kind}" + ("" if self.fold is None else f" {self.fold}")

    @property
    def config(self) -> dict[str, Any]:
        """The recipe by dotted keys."""
        content = {**self.recipe.model_dump(mode="json", exclude={"track", "tune"}), "fold": self.fold}
        return {key: value for key, value in flat(content).items() if value not in (None, [], {})}

    @property
    def n_rows(self) -> int:
        """How many rows there will be."""
        return 1 if self.fold is None else sum(phase.epochs for phase in self.recipe.phases)

    def rows(self) -> list[dict[str, float]]:
        """The numbers of each epoch so far, or of the decision; none where files are of other settings."""
        name, fold = self.recipe.name, self.fold
        if fold is None:
            if read_stamp(path := decision_path(name)) != plain(self.stamp):
                return []
            contents = [read_json(path, Decision)["scores"]]
        else:
            if read_stamp(started_path(name, fold)) != plain(self.stamp):
                return []
            contents = read_log(name, fold)
        return [{key: value for key, value in row.items() if type(value) in (int, float)} for row in contents]

    def n_told(self, tracker: str) -> int:
        path = tracked_path(self.recipe.name, self.fold, tracker)
        if tracker == "tensorboard" and not tensorboard_dir(self.recipe.name, self.fold).exists():
            return 0
        try:
            told = read_json(path, Told) if path.exists() else {}
        except CompError:  # cut off, or edited: what is known already is told again
            told = {}
        return told["rows"] if told.get("run") == self.id else 0

    def note(self, tracker: str, n_told: int) -> None:
        write_json(tracked_path(self.recipe.name, self.fold, tracker), {"run": self.id, "rows": n_told})


# --- here ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def tracked(runs: Sequence[Run], *, grow: bool = False) -> Iterator[None]:
    """Have the runs of a recipe followed by its trackers: those that lack something, or all where the runs
    grow meanwhile."""
    wanted = [name for name in (runs[0].recipe.track if runs else ()) if grow or _lacks(runs, name)]
    started = {}
    for name in wanted:
        child = Child(_follow, name, runs)
        started[name] = child, threading.Thread(target=_repeat, args=(name, child.connection), daemon=True)
        started[name][1].start()
    try:
        yield
    finally:
        for child, _ in started.values():
            child.send(END)
        deadline = time.monotonic() + PATIENCE
        for name, (child, lines) in started.items():
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
                say(f"{name}: stopped after {PATIENCE:.0f} s, and may lack {TRACKERS[name].lost}")
            lines.join()
            n_rows = n_told = 0
            with contextlib.suppress(CompError):  # a log that can't be read, which the tracker said
                n_rows, n_told = sum(len(run.rows()) for run in runs), sum(run.n_told(name) for run in runs)
            if n_told < n_rows:
                say(f"{name}: lacks {n_rows - n_told} of {n_rows} rows; the same command tries again")


def _lacks(runs: Sequence[Run], tracker: str) -> bool:
    return any(run.n_told(tracker) < run.n_rows for run in runs)


def _repeat(name: str, lines: Connection) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            say(f"{name}: {lines.recv()}")


# --- in a tracker's process ---------------------------------------------------------------------------------


def _follow(name: str, runs: Sequence[Run], lines: Connection) -> None:
    """Tell the tracker what there is, until the parent says that it is over. The first error is sent as a
    line; after each the next try waits for a while."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    silence = os.open(os.devnull, os.O_WRONLY)  # clients talk much
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    told: dict[int | None, Tracker] = {}
    failed = False
    while True:
        is_last = lines.poll()
        try:
            for run in runs:
                _tell(name, run, told, lines)
            if is_last:
                for tracker in told.values():
                    tracker.close()
        except ImportError as error:
            lines.send(f"{error}; pip install {name}. log.jsonl has it all")
            return
        except Exception as error:
            told.clear()
            if not failed:
                lines.send(f"{_first_line(error)}; training goes on, and log.jsonl has it all")
            failed = True
        if is_last:
            return
        lines.poll(BETWEEN_TRIES if failed else BETWEEN_LOOKS)


def _tell(name: str, run: Run, told: dict[int | None, "Tracker"], lines: Connection) -> None:
    rows, n_told = run.rows(), run.n_told(name)
    if len(rows) <= n_told:
        return
    if run.fold not in told:
        told[run.fold] = TRACKERS[name](run, n_told, lines)
        n_told = max(n_told, told[run.fold].n_known)
        run.note(name, n_told)
    for epoch, row in enumerate(rows[n_told:], n_told + 1):
        told[run.fold].log(epoch, row)
        run.note(name, epoch)


def _first_line(error: Exception) -> str:
    return without_secrets(str(error).strip() or type(error).__name__).splitlines()[0][:200]


class Tracker(Protocol):
    """A client with one of its runs open, which goes on where it was."""

    n_known: int  # rows that it is sure to have
    lost: str  # what it may lack when it is killed

    def __init__(self, run: Run, n_told: int, lines: Connection): ...

    def log(self, epoch: int, row: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in runs/<recipe>/tensorboard/fold<k>."""

    lost = "the last row"

    def __init__(self, run: Run, n_told: int, lines: Connection):
        importlib.import_module("tensorboard")  # says if it isn't there; torch's module is without it as well
        from torch.utils.tensorboard import SummaryWriter

        folder = tensorboard_dir(run.recipe.name, run.fold)
        if n_told == 0:
            remove(folder, inside=folder.parent)
        self.n_known = n_told
        self.writer = SummaryWriter(str(folder), purge_step=n_told + 1)
        if n_told == 0:
            table = "".join(f"|{key}|{value}|\n" for key, value in run.config.items())
            self.writer.add_text("recipe", f"|key|value|\n|-|-|\n{table}")

    def log(self, epoch: int, row: dict[str, float]) -> None:
        for key, value in row.items():
            self.writer.add_scalar(key, value, epoch)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run in the group of the recipe, in the project of the competition or $WANDB_PROJECT. Without an API
    key or an answer it is written to runs/<recipe>/wandb, from where `wandb sync` sends it."""

    offline = False
    lost = "what `wandb sync` of its folder in runs/<recipe>/wandb sends"

    def __init__(self, run: Run, n_told: int, lines: Connection):
        import wandb

        folder = run_dir(run.recipe.name)
        folder.mkdir(parents=True, exist_ok=True)
        settings: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT", run.recipe.competition.name),
            "id": run.id, "name": run.name, "group": run.recipe.name, "job_type": run.kind,
            "config": run.config, "dir": str(folder), "resume": "allow", "reinit": "create_new",
            "settings": wandb.Settings(init_timeout=INIT_TIMEOUT, silent=True, console="off"),
        }  # fmt: skip
        try:
            self.run = wandb.init(**settings, mode="offline" if self.offline else None)
        except wandb.errors.Error as error:
            type(self).offline = True  # further runs needn't wait as long
            later = f"offline now, and `wandb sync {folder}/wandb/offline-*` sends it later"
            lines.send(f"{_first_line(error)}; {later}")
            wandb.teardown()  # its service holds the run's id
            self.run = wandb.init(**settings, mode="offline")
        self.n_known = max(n_told, self.run.step - 1)

    def log(self, epoch: int, row: dict[str, float]) -> None:
        self.run.log(row, step=epoch)

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """A run in the experiment of the competition or $MLFLOW_EXPERIMENT_NAME, at $MLFLOW_TRACKING_URI or in
    runs/mlflow.db."""

    lost = "the last row"

    def __init__(self, run: Run, n_told: int, lines: Connection):
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(INIT_TIMEOUT))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        mlflow_path().parent.mkdir(parents=True, exist_ok=True)
        local = f"sqlite:///{mlflow_path().resolve()}"
        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or local)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", run.recipe.competition.name)
        experiment = self.client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self.client.create_experiment(name)
        found = self.client.search_runs([place], f"tags.comp_run = '{run.id}'")
        if not found:
            tags = {"comp_run": run.id, "recipe": run.recipe.name, "kind": run.kind}
            found = [self.client.create_run(place, run_name=run.name, tags=tags)]
        self.id = found[0].info.run_id
        self.client.update_run(self.id, status="RUNNING")
        params = [Param(key, str(value)[:500]) for key, value in run.config.items()]
        for first in range(0, len(params), 100):  # the most that it takes at once
            self.client.log_batch(self.id, params=params[first : first + 100])
        metrics = self.client.get_run(self.id).data.metrics
        self.n_known = max(n_told, int(metrics.get("epoch", bool(metrics))))

    def log(self, epoch: int, row: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.id, [Metric(key, value, now, epoch) for key, value in row.items()])

    def close(self) -> None:
        self.client.set_terminated(self.id)


class Trackio:
    """A run in the project of the competition, where trackio keeps its own ($TRACKIO_DIR)."""

    lost = "its last rows"

    def __init__(self, run: Run, n_told: int, lines: Connection):
        import trackio

        self.run = trackio.init(
            run.recipe.competition.name, f"{run.name} {run.id[:6]}",
            group=run.recipe.name, config=run.config, resume="allow",
        )  # fmt: skip
        self.n_known = n_told

    def log(self, epoch: int, row: dict[str, float]) -> None:
        self.run.log(row, step=epoch)

    def close(self) -> None:
        self.run.finish()


TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
    "trackio": Trackio,
}
