"""Read probabilities, labels and folds from other programs' tables: CSV, npz and parquet, joined by id."""

from pathlib import Path

import numpy as np
import pandas as pd

from comp.artifacts.csv_tables import check_unique, ids_of, is_index, read_parquet, read_table
from comp.artifacts.predictions import Predictions
from comp.artifacts.stamps import read_arrays
from comp.console import info
from comp.data.columns import parse_columns
from comp.data.tags import split_tags
from comp.errors import CompError, summarize

MAX_FLOAT64 = 20_000_000  # numbers in a matrix; larger ones of an npz take half the memory


def read_probs(path: Path) -> Predictions:
    """Return the probabilities of a table with ids and a column per class, or of an npz with `probs` and
    optionally `ids` and `classes`. Raise CompError for anything else."""
    return read_named_probs(path)[0]


def read_named_probs(path: Path) -> tuple[Predictions, str]:
    """Return the probabilities, as `read_probs`, and the name of the column of ids."""
    id_name = "id"
    if path.suffix == ".npz":
        arrays = _npz(path)
        if "probs" not in arrays:
            raise CompError(f"{path} holds {', '.join(arrays) or 'nothing'}; an array `probs` is expected")
        probs = arrays["probs"]
        probs = np.asarray(probs, np.float32 if probs.size > MAX_FLOAT64 else np.float64)
        ids = arrays.get("ids", np.arange(len(probs))).astype(str)
        classes = arrays.get("classes", np.arange(probs.shape[1] if probs.ndim == 2 else 0)).astype(str)
    else:
        frame = _frame(path)
        id_name = id_name if is_index(frame) else str(frame.columns[0])
        ids, classes = frame.iloc[:, 0].to_numpy(str), frame.columns[1:].to_numpy(str)
        try:
            probs = frame.iloc[:, 1:].to_numpy(np.float64)
        except ValueError as error:
            wrong = frame.iloc[:, 1:].apply(pd.to_numeric, errors="coerce").isna().to_numpy()
            row, c = np.argwhere(wrong)[0]
            raise CompError(
                f"{path}: after the ids, columns of probabilities are expected; in line {frame.index[row]}, "
                f"{classes[c]} is {frame.iat[row, c + 1]!r}"
            ) from error
    if ids.ndim != 1 or probs.shape != (len(ids), len(classes)):
        raise CompError(f"{path} has probabilities {probs.shape} for {len(ids)} ids, {len(classes)} classes")
    if not probs.size:
        raise CompError(f"{path} holds no probabilities: {len(ids)} ids, {len(classes)} classes")
    check_unique(ids, path)
    if len(set(classes.tolist())) < len(classes):
        raise CompError(f"{path} has a class twice; its classes are {summarize(classes.tolist())}")
    return Predictions(ids, tuple(classes.tolist()), probs), id_name


def read_targets(
    path: Path, ids: np.ndarray, classes: tuple[str, ...], *, numbers: bool = False
) -> np.ndarray:
    """Return (N, C) uint8 of 0 and 1 for these ids and classes, or float64 `numbers`. The file is a table of
    ids and tags, a table with a 0/1 column per class, or an npz with `targets` and optionally `ids` and
    `classes`. Raise CompError for anything else."""
    if path.suffix == ".npz":
        arrays = _npz(path)
        if "targets" not in arrays:
            raise CompError(f"{path} holds {', '.join(arrays) or 'nothing'}; an array `targets` is expected")
        targets = np.asarray(arrays["targets"])
        names = arrays.get("ids", np.arange(len(targets))).astype(str)
        listed = arrays.get("classes", np.array(classes)).astype(str).tolist()
        order = {name: c for c, name in enumerate(listed)}
        if not len(listed) == len(order) == targets.shape[1] or not set(classes) <= order.keys():
            raise CompError(
                f"{path} has targets {targets.shape} of the classes {summarize(order)}, "
                f"not of {summarize(classes)}"
            )
        targets = targets[:, [order[name] for name in classes]]
    else:
        frame = _frame(path)
        names = frame.iloc[:, 0].to_numpy(str)
        if set(classes) <= set(frame.columns[1:]):
            targets = (
                _numbers(frame[list(classes)], path) if numbers else parse_columns(frame[list(classes)], path)
            )
        elif numbers and frame.shape[1] == 1 + len(classes) == 2:
            targets = _numbers(frame.iloc[:, 1:], path)
        elif not numbers and frame.shape[1] == 2:
            targets = _tags(frame.iloc[:, 1], classes, path)
        else:
            lacking = [name for name in classes if name not in set(frame.columns)]
            raise CompError(f"{path} lacks columns of the probabilities: {summarize(lacking)}")
    if names.shape != (len(targets),):
        raise CompError(f"{path} has ids {names.shape} for {len(targets)} rows")
    check_unique(names, path)
    row = {name: i for i, name in enumerate(names.tolist())}
    if missing := [name for name in ids.tolist() if name not in row]:
        raise CompError(
            f"{path} lacks ids of the probabilities: {summarize(missing)}; "
            f"it has {summarize(names.tolist(), 3)}"
        )
    targets = targets[[row[name] for name in ids.tolist()]]
    if numbers and targets.shape == (len(ids), len(classes)):
        return targets.astype(np.float64)
    is_small = targets.dtype == np.uint8  # np.isin takes ten times the memory
    binary = targets.max(initial=0) <= 1 if is_small else np.isin(targets, (0, 1)).all()
    if targets.shape != (len(ids), len(classes)) or not binary:
        raise CompError(f"{path}: 0/1 for {len(ids)} ids and {len(classes)} classes are expected")
    return targets.astype(np.uint8, copy=False)


def _numbers(frame: pd.DataFrame, path: Path) -> np.ndarray:
    """Return (N, C) numbers; an empty cell is unknown, NaN."""
    texts = frame.astype(str).apply(lambda column: column.str.strip())
    values = texts.where(texts != "", "nan").apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    if len(wrong := np.argwhere(~np.isfinite(values) & ~texts.isin(["", "nan"]).to_numpy())):
        row, c = wrong[0]
        raise CompError(
            f"{path}: numbers are expected; in line {frame.index[row]}, {frame.columns[c]} is "
            f"{frame.iat[row, c]!r}"
        )
    return values


def _tags(given: pd.Series, classes: tuple[str, ...], path: Path) -> np.ndarray:
    """Return (N, C) of 0 and 1 for label strings, with the first separator that gives known classes
    only."""
    if not all(isinstance(text, str) for text in given):
        raise CompError(f"{path}: its second column has values that are not label strings")
    unknown = {}
    for separator in (" ", None, ",", ";", "|", "\t"):
        tags = split_tags([text.strip() for text in given], classes, separator)
        if not (strange := set().union(*tags) - set(classes)):
            return np.array([[name in row for name in classes] for row in map(set, tags)], np.uint8)
        unknown[separator] = sorted(strange)
    raise CompError(
        f"{path} has labels that are not among the classes of the probabilities: {summarize(unknown[' '])}; "
        f"the classes are {summarize(classes)}"
    )


def read_folds_of(path: Path, ids: np.ndarray) -> np.ndarray:
    """Return (N,) str: the fold of each id, from a table with the columns id and fold."""
    frame = read_table(path, ["id", "fold"])
    ids_of(frame, "id", path)
    frame = frame.set_index("id")
    if missing := sorted(set(ids.tolist()) - set(frame.index)):
        raise CompError(f"{path} lacks ids of the probabilities: {summarize(missing)}")
    return frame.loc[ids, "fold"].to_numpy(str)


def _frame(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise CompError(f"{path}: no such file")
    if path.suffix == ".parquet":
        frame = read_parquet(path)
        frame = frame.astype({frame.columns[0]: str})
    else:
        frame = read_table(path, [])
    if frame.shape[1] < 2:
        columns = ", ".join(map(str, frame.columns))
        raise CompError(f"{path} has the columns {columns}; ids and at least one more are expected")
    while is_index(frame) and frame.shape[1] > 2 and not _are_values(frame.iloc[:, 1]):
        frame = frame.iloc[:, 1:]
    if is_index(frame):
        info(f"decide: {path}: its first column has no name and is used as the ids")
    return frame


def _are_values(column: pd.Series) -> bool:
    """Return whether a column has probabilities, or 0 and 1, and so no ids."""
    return bool(pd.to_numeric(column, errors="coerce").between(0, 1).all()) or bool(
        column.astype(str).str.lower().isin(["true", "false", "yes", "no"]).all()
    )


def _npz(path: Path) -> dict[str, np.ndarray]:
    arrays = read_arrays(path, cure="write it again")
    for name, kinds in (("ids", "USiu"), ("classes", "USiu")):
        if name in arrays and (arrays[name].dtype.kind not in kinds or arrays[name].ndim != 1):
            shape = f"{arrays[name].dtype} {arrays[name].shape}"
            raise CompError(f"{path}: {name} are {shape}; a list of texts or numbers is expected")
    for name in ("probs", "targets"):
        if name in arrays and (arrays[name].dtype.kind not in "biuf" or arrays[name].ndim != 2):
            shape = f"{arrays[name].dtype} {arrays[name].shape}"
            raise CompError(f"{path}: {name} are {shape}; numbers (images, classes) are expected")
    return arrays
