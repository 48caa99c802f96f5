"""The printed lines of a training: one per epoch."""

from typing import Any

from comp.console import clock


def header(single: bool) -> str:
    """Return the line of column names; `single`: each image has exactly one label."""
    score = "accuracy" if single else "F-beta"
    return f"epoch   px      lr   loss  valid    mAP  {score:>8}  images/s   time"


def epoch_line(row: dict[str, Any], n_epochs: int) -> str:
    """Return the line of an epoch."""
    return (
        f"{row['epoch']:>2}/{n_epochs:<2} {row['size']:>5} {row['lr']:>7.1e} {row['loss']:>6.4f} "
        f"{scores_text(row)} {row['images_per_second']:>9,.0f}  {clock(row['seconds']):>5}"
    )


def swa_line(row: dict[str, Any], seconds: float) -> str:
    """Return the line of the SWA mean; `seconds` is what it took."""
    return f"{'mean':>5} {row['size']:>5} {'':>14} {scores_text(row)} {'':>9}  {clock(seconds):>5}"


def scores_text(row: dict[str, Any]) -> str:
    """Return the held-out scores in the columns of `header`."""
    keys = ("valid_loss", "mAP", "accuracy" if "accuracy" in row else "fbeta")
    valid, mean_ap, score = ("-" if row[key] is None else f"{row[key]:.4f}" for key in keys)
    return f"{valid:>6} {mean_ap:>6}  {score:>8}"
