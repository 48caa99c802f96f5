"""TensorBoard, W&B, MLflow and trackio with one interface."""

import importlib
import os
import time
from multiprocessing.connection import Connection
from typing import Any, Protocol

from comp.artifacts.paths import mlflow_path, run_dir, tensorboard_dir
from comp.artifacts.safe_paths import remove
from comp.safe_text import without_secrets
from comp.tracking.run import Run

INIT_TIMEOUT = 15  # seconds for a server's first response


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, without secrets, at most 200 characters."""
    return without_secrets(str(error).strip() or type(error).__name__).splitlines()[0][:200]


class Tracker(Protocol):
    """A client with one run open. A new one resumes the same run."""

    n_known: int  # rows that are surely stored
    may_lack: str  # rows that may be missing after it is killed

    def __init__(self, run: Run, n_sent: int, lines: Connection):
        """Open a run; its first `n_sent` rows were already sent. Messages to print are sent to `lines`."""

    def log(self, epoch: int, row: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in runs/<recipe>/tensorboard/fold<k>."""

    may_lack = "the last row"

    def __init__(self, run: Run, n_sent: int, lines: Connection):
        importlib.import_module("tensorboard")  # raises if missing; torch's module fails later
        from torch.utils.tensorboard import SummaryWriter

        folder = tensorboard_dir(run.recipe.name, run.fold)
        if n_sent == 0:
            remove(folder, inside=folder.parent)
        self.n_known = n_sent
        self.writer = SummaryWriter(str(folder), purge_step=n_sent + 1)
        if n_sent == 0:
            table = "".join(f"|{key}|{value}|\n" for key, value in run.config.items())
            self.writer.add_text("recipe", f"|key|value|\n|-|-|\n{table}")

    def log(self, epoch: int, row: dict[str, float]) -> None:
        for key, value in row.items():
            self.writer.add_scalar(key, value, epoch)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """A run in the recipe's group, in the project of the competition or $WANDB_PROJECT. Without an API key or
    a response it is written to runs/<recipe>/wandb, and `wandb sync` sends it later."""

    offline = False
    may_lack = "what `wandb sync` of its folder in runs/<recipe>/wandb sends"

    def __init__(self, run: Run, n_sent: int, lines: Connection):
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
            type(self).offline = True  # further runs need not wait for the server
            later = f"offline now, and `wandb sync {folder}/wandb/offline-*` sends it later"
            lines.send(f"{first_line(error)}; {later}")
            wandb.teardown()  # its service still holds the run's id
            self.run = wandb.init(**settings, mode="offline")
        self.n_known = max(n_sent, self.run.step - 1)

    def log(self, epoch: int, row: dict[str, float]) -> None:
        self.run.log(row, step=epoch)

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """A run in the experiment of the competition or $MLFLOW_EXPERIMENT_NAME, on the server
    $MLFLOW_TRACKING_URI or in runs/mlflow.db."""

    may_lack = "the last row"

    def __init__(self, run: Run, n_sent: int, lines: Connection):
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
        for first in range(0, len(params), 100):  # MLflow's limit per request
            self.client.log_batch(self.id, params=params[first : first + 100])
        metrics = self.client.get_run(self.id).data.metrics
        self.n_known = max(n_sent, int(metrics.get("epoch", bool(metrics))))

    def log(self, epoch: int, row: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.client.log_batch(self.id, [Metric(key, value, now, epoch) for key, value in row.items()])

    def close(self) -> None:
        self.client.set_terminated(self.id)


class Trackio:
    """A run in the competition's project, in trackio's own folder ($TRACKIO_DIR)."""

    may_lack = "its last rows"

    def __init__(self, run: Run, n_sent: int, lines: Connection):
        import trackio

        self.run = trackio.init(
            run.recipe.competition.name, f"{run.name} {run.id[:6]}",
            group=run.recipe.name, config=run.config, resume="allow",
        )  # fmt: skip
        self.n_known = n_sent

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
