"""Predictions: probabilities by id, before any threshold. Save, load and align them; an npz file holds them
with their stamp."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from comp.artifacts.csv_tables import check_unique
from comp.artifacts.files import atomic_write
from comp.artifacts.stamps import Stamp, read_arrays, to_json
from comp.errors import CompError, summarize

FORM = (("ids", "U", 1, "texts"), ("classes", "U", 1, "texts"), ("probs", "f", 2, "probabilities (N, C)"))


@dataclass(frozen=True)
class Predictions:
    """Probabilities of C classes for N images."""

    ids: np.ndarray  # (N,) str
    classes: tuple[str, ...]  # (C,)
    probs: np.ndarray  # (N, C) float32


def save(path: Path, predictions: Predictions, stamp: Stamp) -> None:
    """Write predictions and their stamp to an npz file."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            ids=predictions.ids.astype(str),
            classes=np.array(predictions.classes, str),
            probs=predictions.probs.astype(np.float32),
            stamp=json.dumps(to_json(stamp)),
        )


def load(path: Path, classes: Sequence[str]) -> Predictions:
    """Read predictions of exactly these classes. Raise CompError for other classes, or a damaged file."""
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
        other = summarize(
            [c for c in found.classes if c not in classes] or [f"{len(found.classes)} in another order"]
        )
        raise CompError(f"{path} has predictions of other classes: {other}; expected {summarize(classes)}")
    if found.probs.shape != (len(found.ids), len(classes)):
        raise CompError(f"{path} has {found.probs.shape} numbers for {len(found.ids)} ids")
    if not ((found.probs >= 0) & (found.probs <= 1)).all():
        raise CompError(f"{path} has numbers outside of 0 to 1, or not finite; predict again")
    return found


def aligned(predictions: Predictions, ids: np.ndarray, path: Path) -> np.ndarray:
    """Return the probabilities (len(ids), C) of these ids. Raise CompError if some are missing."""
    row = {name: i for i, name in enumerate(predictions.ids.tolist())}
    if missing := [name for name in ids.tolist() if name not in row]:
        raise CompError(f"{path} lacks ids: {summarize(missing)}; predict again with --force")
    return predictions.probs[[row[name] for name in ids.tolist()]]


def mean_of_folds(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Return the mean of the probabilities that the networks of several folds give, all of one shape, as
    float32. It is summed up in float64."""
    total, n = np.zeros(()), 0
    for part in parts:
        total, n = total + part.astype(np.float64), n + 1
    return (total / n).astype(np.float32)


def concatenated(parts: Sequence[Predictions], path: Path) -> Predictions:
    """Return the rows of all parts, sorted by id. Raise CompError if an id is in two of them."""
    ids = np.concatenate([part.ids for part in parts])
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    if len(twice := ids[1:][ids[1:] == ids[:-1]]):
        raise CompError(
            f"{path}: ids held out in more than one fold: {summarize(twice)}; run `comp predict --force`"
        )
    return Predictions(ids, parts[0].classes, np.concatenate([part.probs for part in parts])[order])
