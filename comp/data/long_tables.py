"""Tables with several rows an image: a row for each image and class, as `ID_1_any`, or rows of one id, which
are joined."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from comp.config.labels import LabelTable, separator_of
from comp.errors import CompError, summarize


def name_rows(template: str, ids: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Return the names (N * C) of rows of a long table, image by image."""
    return [template.format(**{"id": name, "class": label}) for name in ids for label in classes]


def split_rows(
    names: Sequence[str], template: str, classes: Sequence[str], path: Path
) -> tuple[list[str], list[str]]:
    """Return (the id, the class) of the names of rows, by a template. Without `classes`, any
    text is a class. Raise CompError for a name of another form."""
    form = "|".join(re.escape(name) for name in sorted(classes, key=len, reverse=True)) or "[^/]+?"
    parts = re.split(r"\{(id|class)\}", template)  # text, field, text, field, text
    groups = {"id": "(?P<id>.+)", "class": f"(?P<label>{form})"}
    expression = "".join(groups[part] if i % 2 else re.escape(part) for i, part in enumerate(parts))
    fits = re.compile(expression, re.DOTALL).fullmatch
    found = [fits(name.strip()) for name in names]
    if wrong := [name for name, match in zip(names, found) if match is None]:
        known = f" and the classes {summarize(classes)}" if classes else ""
        raise CompError(f"{path} has rows that don't fit row = {template!r}{known}: {summarize(wrong)}")
    matches = [match for match in found if match]
    return [match["id"] for match in matches], [match["label"] for match in matches]


def join_rows(
    frame: pd.DataFrame, table: LabelTable, needed: Sequence[str], path: Path
) -> tuple[pd.DataFrame, LabelTable]:
    """Return the table with one row an image, and what describes it then. The columns `needed` are equal in
    all rows of an image. Raise CompError where they are not, and where two rows contradict each other.

    A row for each image and class becomes a column for each class. Rows of one id are joined: their labels
    are those of the image."""
    assert table.row
    if table.is_long:
        assert table.column
        ids, labels = split_rows(frame[table.id].tolist(), table.row, table.classes, path)
        codes, names = pd.factorize(np.array(ids, object))
        classes = list(table.classes) or sorted(set(labels))
        columns = pd.Index(classes).get_indexer(pd.Index(labels))
        cells = np.full((len(names), len(classes)), None, object)
        given = frame[table.column].to_numpy(object)
        cells[codes, columns] = given
        if (wrong := cells[codes, columns] != given).any():
            raise CompError(
                f"{path} has rows that contradict each other: {summarize(frame[table.id][wrong].unique())}"
            )
        if len(lacking := np.argwhere(cells == None)):  # noqa: E711
            row, c = lacking[0]
            raise CompError(f"{path} has no row for the class {classes[c]!r} of {names[row]}")
        frame = frame.assign(**{table.id: ids})
        wide = pd.DataFrame(cells, columns=classes)
    else:
        codes, names = pd.factorize(frame[table.id].to_numpy(object))
        wide = _joined_labels(frame, table, codes, len(names), path)
    first = np.unique(codes, return_index=True)[1]
    kept = frame.iloc[first]
    for column in needed:
        if (differs := kept[column].to_numpy(object)[codes] != frame[column].to_numpy(object)).any():
            raise CompError(
                f"{path} has different {column} in the rows of one {table.id}: "
                f"{summarize(frame[table.id][differs].unique())}"
            )
    wide.index = kept.index
    joined = pd.concat([kept.drop(columns=[c for c in wide if c in kept]), wide], axis=1)
    changes = {"column": None, "classes": tuple(wide), "ignore": (), "row": None}
    return joined, table.model_copy(update=changes if table.is_long else {"row": None})


def _joined_labels(
    frame: pd.DataFrame, table: LabelTable, codes: np.ndarray, n: int, path: Path
) -> pd.DataFrame:
    """Return the labels of each image, from the rows with these codes (R,) of images 0 … n - 1."""
    if table.column is None:
        others = {table.id, table.group, table.none, *table.ignore}
        classes = table.classes or [c for c in frame if c not in others]
        columns = [*classes, *filter(None, [table.none])]
        ones = frame[columns].apply(lambda column: column.str.strip().str.lower())
        top = ones.groupby(codes).max()  # of 0 and 1, 0.0 and 1.0, no and yes, false and true
        if table.none:
            top[table.none] = ones[table.none].groupby(codes).min()
        return top
    texts = frame[table.column].str.strip()
    pairs = pd.DataFrame({"image": codes, "text": texts.to_numpy(object)}).drop_duplicates()
    pairs = pairs[pairs["text"] != ""]
    if separator_of(table) is None:
        if (twice := pairs["image"].duplicated()).any():
            rows = np.isin(codes, pairs["image"][twice])
            raise CompError(
                f"{path} has rows of one {table.id} with different labels: "
                f"{summarize(frame[table.id][rows].unique())}; labels.single = true expects one each"
            )
        joint = ""
    else:
        joint = table.separator
    joined = pairs.groupby("image")["text"].agg(joint.join).reindex(range(n), fill_value="")
    return pd.DataFrame({table.column: joined.to_numpy(object)})
