"""In which form a table has its labels: tags, one label a row, 0/1 columns; and what follows from them, such
as groups of labels that exclude each other."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from comp.data.columns import ZERO_OR_ONE

SEPARATORS = {" ": "spaces", ",": "commas", "|": "|", ";": "semicolons"}
LABEL_NAME = re.compile(r"label|tag|target|class|categor|diagnos|species|breed|finding|attribute|type", re.I)
NO_LABEL = re.compile(r"no[ _-]?(finding|label|tag|class)s?|none|nothing", re.IGNORECASE)
MAX_GRADES = 50  # different whole numbers; more of them may be numbers to predict
MIN_GROUPS = 5  # different values of a column that may hold groups of images
MIN_ROWS = 30  # of a table whose labels exclude each other by more than chance
SHARE_OF_EXCEPTIONS = 0.001  # rows that may break a group: Planet has one such row
MAX_GROUP, MAX_CLASSES = 12, 200  # labels of a group, and of a table in which groups are looked for
MAX_STEPS = 2000  # of the search for groups
UNKNOWN_CELLS = ("", "-1", "-1.0", "nan")


@dataclass
class LabelForm:
    """The keys of [labels] and [submission] that describe the labels, and what was seen."""

    said: str
    keys: dict[str, Any] = field(default_factory=dict)
    submission: dict[str, Any] = field(default_factory=dict)
    columns: tuple[str, ...] = ()  # that hold labels
    problem: str = ""  # what comp can't take
    n_ranked: int = 0  # labels of a row of the sample, the likeliest first
    numbers: str = ""  # why they seem to be numbers to predict


def find_form(
    frame: pd.DataFrame, id_column: str, sample: Sequence[str] | None, others: Sequence[str]
) -> LabelForm:
    """Return the form of a table's labels. `sample` are the columns of the sample submission besides its ids,
    None if there is no sample; `others` are columns that hardly hold labels, such as groups."""
    candidates = [name for name in frame.columns if name != id_column]
    header = list(sample or [])
    if len(header) > 1 and set(header) <= set(candidates):
        return _columns_form(frame, header)
    if len(header) > 1:
        for name in candidates:
            if set(frame[name].str.strip()) <= set(header):
                return _classes_in_sample(frame, name, header)
    if len(header) == 1 and header[0] in candidates:
        return _column_form(frame, header[0], None)
    plain = [name for name in candidates if name not in others]
    zero_one = [name for name in plain if is_zero_one(frame[name])]
    if not header and len(zero_one) > 1 and len(zero_one) >= len(plain) - 1:
        return _columns_form(frame, zero_one)
    partly = [name for name in plain if _is_partly_known(frame[name])]
    if not header and len(partly) > 2 and len(partly) >= len(plain) / 3:
        return _columns_form(frame, partly)
    if choice := _label_column(frame, plain):
        return _column_form(frame, choice, header[0] if len(header) == 1 else None)
    return LabelForm(
        "no column of labels was found", problem=f"none of {', '.join(candidates)} looks like labels"
    )


def _label_column(frame: pd.DataFrame, names: Sequence[str]) -> str | None:
    """Return the column that is most likely to hold the labels: by its name, or else the one with the fewest
    different values that repeat."""
    repeated = [name for name in names if 1 < frame[name].nunique() < max(3, 0.9 * len(frame))]
    if "category_id" in repeated:  # of COCO
        return "category_id"
    by_name = [name for name in repeated if LABEL_NAME.search(name)]
    text = [name for name in repeated if not _are_numbers(frame[name])]
    choice = by_name or text or repeated or list(names)[:1]
    return min(choice, key=lambda name: frame[name].nunique()) if choice else None


def is_zero_one(column: pd.Series) -> bool:
    """Return whether the cells are 0 and 1, or true and false."""
    values = {re.sub(r"\.0*$", "", text.strip().lower()) for text in column.unique()}
    return bool(values) and values <= set(ZERO_OR_ONE)


def _is_partly_known(column: pd.Series) -> bool:
    """Return whether the cells are 0 and 1, and some that may mean unknown."""
    values = {re.sub(r"\.0*$", "", text.strip()) for text in column.unique()}
    return {"1"} < values <= {"0", "1", *UNKNOWN_CELLS}


def _are_numbers(column: pd.Series) -> bool:
    return bool(pd.to_numeric(column, errors="coerce").notna().all())


# --- forms --------------------------------------------------------------------------------------------------


def _columns_form(frame: pd.DataFrame, names: list[str]) -> LabelForm:
    """A column for each label."""
    if wrong := [name for name in names if not is_zero_one(frame[name])]:
        found = ", ".join(repr(text) for text in sorted(set(frame[wrong[0]]))[:5])
        odd = {text.strip() for name in wrong for text in frame[name]} - {"0", "1", "0.0", "1.0"}
        keys: dict[str, Any] = {"classes": names}
        if odd <= set(UNKNOWN_CELLS):
            return LabelForm(
                f"0/1 columns ({_listed(names)}), some cells are {', '.join(map(repr, sorted(odd)))}",
                {**keys, "unknown": sorted(odd), "empty": True}, columns=tuple(names),
            )  # fmt: skip
        if all(_are_numbers(frame[name]) for name in wrong):
            return LabelForm(
                f"numbers, in {_listed(names)}", keys, columns=tuple(names),
                numbers=f"{_listed(wrong)} hold numbers ({found})",
            )  # fmt: skip
        return LabelForm(
            f"a column a label ({_listed(names)}), but not of 0 and 1",
            keys,
            columns=tuple(names),
            problem=f"{_listed(wrong)} hold something else than 0 and 1 ({found}), which comp doesn't take "
            "as labels",
        )
    ones = (
        frame[names].apply(lambda c: c.str.strip().str.lower().isin(["1", "1.0", "true", "yes"])).to_numpy()
    )
    n_labels = ones.sum(1)
    span = _span(n_labels.tolist())
    keys = {"classes": names}
    if len(names) > 1 and (n_labels == 1).all():
        return LabelForm(
            f"0/1 columns ({_listed(names)}), exactly one of them 1 in each row",
            {**keys, "single": True}, columns=tuple(names),
        )  # fmt: skip
    for i, name in enumerate(names):
        if (
            len(names) > 2
            and NO_LABEL.fullmatch(name)
            and (ones[:, i] == (np.delete(ones, i, 1).sum(1) == 0)).all()
        ):
            keys = {"classes": [other for other in names if other != name], "none": name}
    if (n_labels == 0).any() and len(names) > 1:
        keys["empty"] = True
    said = f"0/1 columns ({_listed(names)}), {span}" if len(names) > 1 else f"the 0/1 column {names[0]}"
    return LabelForm(said, keys, columns=tuple(names))


def _classes_in_sample(frame: pd.DataFrame, name: str, header: list[str]) -> LabelForm:
    """One label a row, and a column for each label in the sample submission."""
    return LabelForm(
        f"one label an image, in column {name} ({len(header)} different, the columns of the sample)",
        {"column": name, "single": True, "classes": header}, {"column": ""}, (name,),
    )  # fmt: skip


def _column_form(frame: pd.DataFrame, name: str, in_sample: str | None) -> LabelForm:
    """All labels in one column. `in_sample` is its name in the sample submission, if that is another."""
    texts = frame[name].str.strip()
    values = sorted(set(texts) - {""})
    submission = {"column": in_sample} if in_sample else {}
    if is_zero_one(texts) and len(values) > 1 and not in_sample:
        return _columns_form(frame, [name])
    keys: dict[str, Any] = {"column": name}
    if why := _numbers(frame[name], name):
        return LabelForm(f"a number an image, in column {name}", keys, submission, (name,), numbers=why)
    separator, tags = best_separator(texts)
    names = sorted({tag for row in tags for tag in row})
    if separator is None and "" not in set(texts):
        if _are_positions(names):
            keys["indices"] = True
        if len(names) == len(texts) > 2:
            return LabelForm(
                f"another text in each row of column {name}",
                keys,
                submission,
                (name,),
                "each label occurs once",
            )
        return LabelForm(
            f"one label an image, in column {name} ({len(names)} different)",
            {**keys, "single": True},
            submission,
            (name,),
        )
    sizes = [len(row) for row in tags]
    if separator not in (None, " "):
        keys["separator"] = separator
    if _are_positions(names):
        keys["indices"] = True
    alone = {row[0] for row in tags if len(row) == 1} - {tag for row in tags if len(row) > 1 for tag in row}
    if none := [tag for tag in sorted(alone) if NO_LABEL.fullmatch(tag)]:
        keys["none"] = none[0]
        names.remove(none[0])
    elif min(sizes) == 0:
        keys["empty"] = True
    how = f"tags separated by {SEPARATORS[separator]}" if separator else "at most one tag"
    rest = f", {none[0]!r} for none" if none else ""
    said = f"{how} in column {name} ({len(names)} different, {_span(sizes)}{rest})"
    return LabelForm(said, keys, submission, (name,))


def best_separator(texts: pd.Series) -> tuple[str | None, list[list[str]]]:
    """Return the separator that makes the fewest different tags of the texts, and each text's tags. It is
    None if no separator makes fewer tags than there are texts: then each text is one label."""
    values = sorted(set(texts) - {""})
    best: str | None = None
    fewest = len(values)
    for separator in SEPARATORS:
        tags = {tag.strip() for text in values for tag in text.split(separator)} - {""}
        several = any(len(_split(text, separator)) > 1 for text in values)
        if several and len(tags) < fewest:
            best, fewest = separator, len(tags)
    return best, [_split(text, best) for text in texts]


def _split(text: str, separator: str | None) -> list[str]:
    return [tag.strip() for tag in (text.split(separator) if separator else [text]) if tag.strip()]


def _are_positions(names: Sequence[str]) -> bool:
    """Return whether the labels are the numbers 0, 1, … without a gap, or with few."""
    if not all(re.fullmatch(r"0|[1-9]\d{0,3}", name) for name in names):
        return False
    return len(names) > 1 and min(map(int, names)) == 0 and max(map(int, names)) < 1.2 * len(names)


def _numbers(column: pd.Series, name: str) -> str:
    """Return why a column seems to hold numbers to predict instead of labels, or ""."""
    values = pd.to_numeric(column, errors="coerce")
    if values.isna().any():
        return ""
    distinct = values.unique()
    if (distinct % 1 != 0).any():
        return f"{name} holds numbers such as {distinct[distinct % 1 != 0][0]:g}"
    span = distinct.max() - distinct.min() + 1
    is_code = re.search(r"id$|categor|class|code", name, re.IGNORECASE)
    if len(distinct) > MAX_GRADES and len(distinct) > 0.8 * span and not is_code:
        return (
            f"{name} holds the numbers {distinct.min():g} to {distinct.max():g}, which look like something "
            "measured"
        )
    return ""


def _span(sizes: Sequence[int]) -> str:
    low, high = min(sizes), max(sizes)
    return f"{low} an image" if low == high else f"{low} to {high} an image"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4])
    return f"{len(names)}: {shown}, …" if len(names) > 4 else shown


# --- groups of labels ---------------------------------------------------------------------------------------


def find_exclusive(classes: Sequence[str], targets: np.ndarray) -> list[list[str]]:
    """Return groups of labels of which exactly one holds in nearly every row of `targets` (N, C) of 0 and 1.

    A group is built up: the first row that it does not cover gets one of its labels, if that label never
    occurs together with those of the group."""
    if len(targets) < MIN_ROWS or len(classes) > MAX_CLASSES:
        return []
    patterns, counts = np.unique(targets.astype(bool), axis=0, return_counts=True)
    order = np.argsort(-counts)
    patterns, counts = patterns[order], counts[order]
    allowed = int(SHARE_OF_EXCEPTIONS * len(targets))
    together = (patterns.T * counts) @ patterns  # (C, C): rows in which both hold
    found: dict[tuple[int, ...], None] = {}

    steps = iter(range(MAX_STEPS))

    def extend(group: tuple[int, ...]) -> None:
        covered = patterns[:, list(group)].any(1)
        if counts[~covered].sum() <= allowed:
            if len(group) > 1:
                found.setdefault(tuple(sorted(group)))
            return
        if len(group) == MAX_GROUP or next(steps, None) is None:
            return
        first = patterns[np.flatnonzero(~covered)[0]]
        for label in np.flatnonzero(first):
            if all(together[label, other] <= allowed for other in group):
                extend((*group, int(label)))

    extend(())
    chosen: list[tuple[int, ...]] = []
    for group in sorted(found, key=len):
        if not any(set(group) & set(other) for other in chosen):
            chosen.append(group)
    return [[classes[i] for i in group] for group in chosen]


def find_groups(frame: pd.DataFrame, columns: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return (the column whose equal values belong together for certain, columns that may be such a column):
    patients are certain, if there are enough of them for folds; sites are not."""
    certain: list[str] = []
    possible: list[str] = []
    for name in columns:
        values = Counter(text for text in frame[name].str.strip() if text)
        if not 1 < len(values) < 0.95 * len(frame) or is_zero_one(frame[name]):
            continue
        if re.search(r"patient|subject|person|individual|participant", name, re.I) and re.search(
            r"id|^patient$|^subject$|name|num", name, re.I
        ):
            (certain if len(values) >= 10 else possible).append(name)
        elif re.search(
            r"site|location|case|study|hospital|scene|station|slide|plot|series|seq_?id|camera|donor|batch|plate|"
            r"well|group|chain|source|lesion|photographer",
            name,
            re.I,
        ):
            possible += [name] if len(values) >= MIN_GROUPS else []
    return (certain[0] if certain else None), [*certain[1:], *possible]
