"""The printed lines of a training: one per epoch."""

from typing import Any

from comp.console import clock
from comp.training.log_columns import LogColumns


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


def scores_text(row: dict[str, Any], columns: LogColumns) -> str:
    """Return the held-out scores in the columns of `header`."""
    keys = ("valid_loss", *(["mAP"] if "mAP" in columns.keys else []))
    shown = [f"{_number(row[key]):>6}" for key in keys]
    return f"{' '.join(shown)}  {_number(row[columns.metric]):>{max(8, len(columns.title))}}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
