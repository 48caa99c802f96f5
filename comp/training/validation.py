"""Held-out scores during training."""

from typing import Any


def scores_text(row: dict[str, Any]) -> str:
    """Held-out scores in the columns of the header."""
    keys = ("valid_loss", "mAP", "accuracy" if "accuracy" in row else "fbeta")
    valid, mean_ap, score = ("-" if row[key] is None else f"{row[key]:.4f}" for key in keys)
    return f"{valid:>6} {mean_ap:>6}  {score:>8}"
