"""Predictions(ids, classes, probs): probabilities by id, before any threshold. Saved as npz with their
stamp."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from comp.artifacts.csv_tables import check_unique
from comp.artifacts.files import replacing
from comp.artifacts.stamps import Stamp, plain, read_arrays
from comp.errors import CompError, some

FORM = (("ids", "U", 1, "texts"), ("classes", "U", 1, "texts"), ("probs", "f", 2, "probabilities (N, C)"))


@dataclass(frozen=True)
class Predictions:
    ids: np.ndarray  # (N,) str
    classes: tuple[str, ...]  # (C,)
    probs: np.ndarray  # (N, C) float32


def save(path: Path, predictions: Predictions, stamp: Stamp) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            ids=predictions.ids.astype(str),
            classes=np.array(predictions.classes, str),
            probs=predictions.probs.astype(np.float32),
            stamp=json.dumps(plain(stamp)),
        )


def load(path: Path, classes: Sequence[str]) -> Predictions:
    """Predictions of exactly these classes. Raises CompError where they are of others, or can't be read."""
    if not path.exists():
        raise CompError(f"{path} is not there; run `comp predict` and `comp blend` first")
    arrays = read_arrays(path)
    for name, kind, n_dims, what in FORM:
        array = arrays.get(name, np.empty(0))
        if array.dtype.kind != kind or array.ndim != n_dims:
            raise CompError(f"{path}: {what} are expected in {name!r}; remove it and predict again")
    found = Predictions(arrays["ids"], tuple(arrays["classes"].tolist()), arrays["probs"])
    check_unique(found.ids, path)
    if found.classes != tuple(classes):
        other = some(
            [c for c in found.classes if c not in classes] or [f"{len(found.classes)} in another order"]
        )
        raise CompError(f"{path} holds predictions of other classes: {other}; expected are {some(classes)}")
    if found.probs.shape != (len(found.ids), len(classes)):
        raise CompError(f"{path} holds {found.probs.shape} numbers for {len(found.ids)} ids")
    if not ((found.probs >= 0) & (found.probs <= 1)).all():
        raise CompError(f"{path} holds numbers outside of 0 to 1, or that aren't finite; predict again")
    return found


def aligned(predictions: Predictions, ids: np.ndarray, path: Path) -> np.ndarray:
    """The rows (len(ids), C) of these ids. Raises CompError where some are missing."""
    row = {name: i for i, name in enumerate(predictions.ids.tolist())}
    if missing := [name for name in ids.tolist() if name not in row]:
        raise CompError(f"{path} lacks ids: {some(missing)}; predict again with --force")
    return predictions.probs[[row[name] for name in ids.tolist()]]


def concatenated(parts: Sequence[Predictions], path: Path) -> Predictions:
    """Rows of all parts under each other, sorted by id. Raises CompError where an id is in two of them."""
    ids = np.concatenate([part.ids for part in parts])
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    if len(twice := ids[1:][ids[1:] == ids[:-1]]):
        raise CompError(
            f"{path}: ids are held out in more than one fold: {some(twice)}; run `comp predict --force`"
        )
    return Predictions(ids, parts[0].classes, np.concatenate([part.probs for part in parts])[order])
