"""Predictions: probabilities or numbers by id, before any threshold. Save, load and align them; an npz file
holds them with their stamp."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comp.artifacts.csv_tables import check_unique
from comp.artifacts.files import atomic_write
from comp.artifacts.stamps import Stamp, read_arrays, to_json
from comp.errors import CompError, summarize

# Numbers in a matrix; larger ones are stored in 16 bits, which keep probabilities to 0.05 % of their value,
# and those below 0.00006 to 0.00000003: 143,000 images x 3,474 labels take 1 GB instead of 2.
MAX_FLOAT32 = 100_000_000
FORM = (("ids", "U", 1, "texts"), ("classes", "U", 1, "texts"), ("probs", "f", 2, "probabilities (N, C)"))


@dataclass(frozen=True)
class Predictions:
    """Probabilities of C classes for N images, or numbers."""

    ids: np.ndarray  # (N,) str
    classes: tuple[str, ...]  # (C,)
    probs: np.ndarray  # (N, C) float32
    numbers: bool = False  # in the targets' unit, instead of probabilities


def save(path: Path, predictions: Predictions, stamp: Stamp) -> None:
    """Write predictions and their stamp to an npz file. Above MAX_FLOAT32 numbers they are rounded to 16
    bits, unless they are numbers to predict."""
    is_large = predictions.probs.size > MAX_FLOAT32 and not predictions.numbers
    kind = np.float16 if is_large else np.float32
    more: dict[str, Any] = {"numbers": np.array(True)} if predictions.numbers else {}
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            ids=predictions.ids.astype(str),
            classes=np.array(predictions.classes, str),
            probs=predictions.probs.astype(kind),
            stamp=json.dumps(to_json(stamp)),
            **more,
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
    numbers = bool(arrays.get("numbers", np.array(False)).any())
    probs = arrays["probs"].astype(np.float32, copy=False)
    found = Predictions(arrays["ids"], tuple(arrays["classes"].tolist()), probs, numbers)
    check_unique(found.ids, path)
    if found.classes != tuple(classes):
        other = summarize(
            [c for c in found.classes if c not in classes] or [f"{len(found.classes)} in another order"]
        )
        raise CompError(f"{path} has predictions of other classes: {other}; expected {summarize(classes)}")
    if found.probs.shape != (len(found.ids), len(classes)):
        raise CompError(f"{path} has {found.probs.shape} numbers for {len(found.ids)} ids")
    if numbers and not np.isfinite(probs).all():
        raise CompError(f"{path} has numbers that are not finite; predict again")
    if not numbers and probs.size and not (probs.min() >= 0 and probs.max() <= 1):
        raise CompError(f"{path} has numbers outside of 0 to 1, or not finite; predict again")
    return found


def aligned(predictions: Predictions, ids: np.ndarray, path: Path) -> np.ndarray:
    """Return the probabilities (len(ids), C) of these ids. Raise CompError if some are missing."""
    row = {name: i for i, name in enumerate(predictions.ids.tolist())}
    if missing := [name for name in ids.tolist() if name not in row]:
        raise CompError(f"{path} lacks ids: {summarize(missing)}; predict again with --force")
    return predictions.probs[[row[name] for name in ids.tolist()]]


def by_answer(values: np.ndarray, answer_of: np.ndarray, wanted: np.ndarray, how: str) -> np.ndarray:
    """Return (M, C) for each of the answers `wanted` (M,) the mean or max, as `how` says, of the values (N,
    C) of its images; `answer_of` (N,) names their answers."""
    place = pd.Index(wanted).get_indexer(pd.Index(answer_of))
    if how == "max":
        lowest = -np.inf if values.dtype.kind == "f" else values.min(initial=0)
        highest = np.full((len(wanted), values.shape[1]), lowest, values.dtype)
        np.maximum.at(highest, place, values)
        return highest
    sums = np.zeros((len(wanted), values.shape[1]))
    np.add.at(sums, place, values)
    return (sums / np.bincount(place, minlength=len(wanted))[:, None]).astype(values.dtype)


def mean_of_folds(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Return the mean of the probabilities that the networks of several folds give, all of one shape, as
    float32. It is summed up in float64, above MAX_FLOAT32 numbers in float32."""
    total, n = np.zeros(()), 0
    for n, part in enumerate(parts, 1):
        if n == 1:
            total = part.astype(np.float32 if part.size > MAX_FLOAT32 else np.float64)
        else:
            total += part
    total /= n
    return total.astype(np.float32, copy=False)


def concatenated(parts: Sequence[Predictions], path: Path) -> Predictions:
    """Return the rows of all parts, sorted by id. Raise CompError if an id is in two of them."""
    ids = np.concatenate([part.ids for part in parts])
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    if len(twice := ids[1:][ids[1:] == ids[:-1]]):
        raise CompError(
            f"{path}: ids held out in more than one fold: {summarize(twice)}; run `comp predict --force`"
        )
    probs = np.concatenate([part.probs for part in parts])[order]
    return Predictions(ids, parts[0].classes, probs, parts[0].numbers)
