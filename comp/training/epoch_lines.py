"""What a training shows on the screen: a line per epoch, and how far it is."""

from typing import Any

from comp.console import clock
from comp.training.log_columns import LogColumns
from comp.training.schedule import epoch_work
from comp.training.training_data import FoldInputs


def header(columns: LogColumns) -> str:
    """Return the line of column names."""
    mean_ap = f"{'mAP':>6} " if "mAP" in columns.keys else ""
    return f"epoch   px      lr   loss  valid {mean_ap} {columns.title:>8}  images/s   time"


def epoch_line(row: dict[str, Any], n_epochs: int, columns: LogColumns) -> str:
    """Return the line of an epoch."""
    return (
        f"{row['epoch']:>2}/{n_epochs:<2} {row['size']:>5} {row['lr']:>7.1e} {row['loss']:>6.4f} "
        f"{scores_text(row, columns)} {row['images_per_second']:>9,.0f}  {clock(row['seconds']):>5}"
    )


def swa_line(row: dict[str, Any], seconds: float, columns: LogColumns) -> str:
    """Return the line of the SWA mean; `seconds` is what it took."""
    return f"{'mean':>5} {row['size']:>5} {'':>14} {scores_text(row, columns)} {'':>9}  {clock(seconds):>5}"


def run_progress(inputs: FoldInputs, n_epochs_done: float) -> dict[str, Any]:
    """Return how many images, over all epochs, a fold has trained on (`done`) and will (`total`), and the
    `share` of the work that is done. `n_epochs_done` counts a part of an epoch as such."""
    phases = inputs.recipe.phases
    work = [epoch_work(phases, epoch) for epoch in range(sum(phase.epochs for phase in phases))]
    n_whole, n_images = int(n_epochs_done), len(inputs.train_rows)
    done = sum(work[:n_whole]) + (n_epochs_done - n_whole) * sum(work[n_whole : n_whole + 1])
    total = len(work) * n_images
    return {"done": round(n_epochs_done * n_images), "total": total, "share": done / sum(work)}


def scores_text(row: dict[str, Any], columns: LogColumns) -> str:
    """Return the held-out scores in the columns of `header`."""
    keys = ("valid_loss", *(["mAP"] if "mAP" in columns.keys else []))
    shown = [f"{_number(row[key]):>6}" for key in keys]
    return f"{' '.join(shown)}  {_number(row[columns.metric]):>{max(8, len(columns.title))}}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
