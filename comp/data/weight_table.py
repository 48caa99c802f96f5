"""A table of id and weight: how much each training image counts in the loss."""

from pathlib import Path

import numpy as np

from comp.artifacts.csv_tables import ids_of, read_table
from comp.data.labels import parse_weights
from comp.errors import CompError, summarize


def read_weights(path: Path, ids: np.ndarray) -> np.ndarray:
    """Return (N,) float32: the weight of each of these ids. Raise CompError unless the table has each id once
    and no other, with numbers of 0 or more."""
    if not path.is_file():
        raise CompError(
            f"labels.weight_csv: {path} is not there; give its path from the working directory "
            "(`comp adversarial` writes such a table)"
        )
    frame = read_table(path, ["id", "weight"])
    row_of = {name: row for row, name in enumerate(ids_of(frame, "id", path).tolist())}
    if missing := [name for name in ids.tolist() if name not in row_of]:
        raise CompError(f"{path} lacks ids of the labels: {summarize(missing)}; each image needs a weight")
    if extra := sorted(row_of.keys() - set(ids.tolist())):
        raise CompError(f"{path} has ids that the labels don't have: {summarize(extra)}; remove them")
    return parse_weights(frame["weight"], path)[[row_of[name] for name in ids.tolist()]]
