"""Guess a competition's TOML from its files: which table holds the labels, which column the ids, where the
images are, and what can't be known. Every value keeps the reason for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comp.config.labels import LABEL, LabelTable
from comp.data.inspection.contents import Contents
from comp.data.inspection.findings import Guess
from comp.data.inspection.id_tables import (
    MIN_SHARE,
    SAMPLE_NAME,
    TRAIN_NAME,
    IdTable,
    LongForm,
    find_long_form,
    labels_in_paths,
    sample_of,
    training_table,
    with_files,
)
from comp.data.inspection.image_sets import add_images
from comp.data.inspection.images import ImageFiles
from comp.data.inspection.label_forms import LabelForm, find_exclusive, find_form, find_groups
from comp.data.inspection.submission import add_metric, add_submission, fraction_in, number_in
from comp.data.labels import parse_labels
from comp.data.long_tables import join_rows
from comp.errors import CompError

MAX_NOTES = 5  # lines about files that are not looked into


def guess(contents: Contents, slug: str | None = None) -> Guess:
    """Return what the files show. Raise CompError if there is no table of labels and no path a label."""
    found, files = Guess(), ImageFiles(contents.images)
    sample, listed = sample_of(contents, files), None
    train = training_table(contents, files, sample)
    if train is None:
        train = _from_paths(contents, found, sample)
    else:
        if sample and train.long:
            sample = find_long_form(sample.name, sample.frame, files) or sample
        elif sample and sample.share == 0 and (linked := with_files(sample, train, contents, files)):
            sample, train, listed = linked
        shown = f"{len(train.frame):,} rows, {train.frame.shape[1]} columns"
        found.said.append(f"table: {train.file} ({shown}): id {train.column}, since {_why(train)}")
        found.table = train.name
        found.add("labels", "csv", train.file)
    found.add("labels", "id", train.column, _why(train))
    form = _labels(found, train, sample)
    if listed and listed.answer:
        why = f"the sample's {sample.column if sample else ''}"
        found.add("labels", "answer_id", listed.answer, why)
        found.said.append(
            f"answers: one for each {listed.answer}, as in the sample; images of one are averaged"
        )
    _groups(found, train, form)
    add_images(found, contents, files, train, sample, listed)
    add_submission(found, train, sample, form)
    add_metric(found, slug, sample, form)
    for name, frame in contents.tables.items():
        if name not in (train.name, sample and sample.name) and set(train.frame) <= set(frame):
            found.unknown.append(
                f"{name} has labels too and is not used; `external` in a recipe trains on it"
            )
    more = len(contents.notes) - MAX_NOTES
    found.unknown += contents.notes[:MAX_NOTES] + (
        [f"{more:,} more files are not looked into"] if more > 0 else []
    )
    return found


def _why(table: IdTable) -> str:
    if not table.name:
        return "the sample's"
    if table.long:
        return f"its values are {table.long.row}"
    if table.files:
        return f"its rows name files, in {table.files}"
    if table.share == 0:
        return "its name says so; no image was seen"
    which = "every value names" if table.share == 1 else f"{table.share:.0%} of the values name"
    return f"{which} an image file"


def _from_paths(contents: Contents, found: Guess, sample: IdTable | None) -> IdTable:
    """Return the labels in paths of images: names of folders, or starts of names. Raise CompError if there
    are none."""
    named = [name for name in contents.tables if TRAIN_NAME.search(name) and not SAMPLE_NAME.search(name)]
    labelled = None if named else labels_in_paths(contents.images)
    if labelled is None:
        raise CompError(_why_no_table(contents))
    folder, labels, template = labelled
    column = sample.column if sample else "id"
    frame = pd.DataFrame({column: [path.rpartition(".")[0] for path in labels], LABEL: list(labels.values())})
    frame = frame.drop_duplicates(column)
    endings = sorted({path.rpartition(".")[2] for path in labels})
    folder = folder.rpartition("/")[2] or contents.root
    found.folders = tuple(f"{folder}/{template}.{ending}" for ending in endings)
    found.in_paths = frame
    how = "the name of each folder" if "/" in template else "the start of each name"
    found.said.append(f"table: none; {how} in {folder}/ is a label ({len(frame):,} images)")
    return IdTable("", frame, column, 1.0)


def _why_no_table(contents: Contents) -> str:
    """Return the message about files of which none is a table of images and labels, with what would help."""
    files = ImageFiles(contents.images)
    for name, frame in contents.tables.items():
        for column in frame.columns:
            values = frame[column].str.strip().tolist()
            if (
                values
                and "/" in values[0]
                and files.share([value.partition("/")[2] for value in values]) > MIN_SHARE
            ):
                first = values[0].partition("/")[0]
                return (
                    f"{name}: the values of {column} begin with {first}/, which is not in this folder; name "
                    f"the folder that {first}/ is in, or remove {first}/ from them"
                )
    tables = ", ".join(f"{n} ({', '.join(map(str, f.columns[:4]))})" for n, f in contents.tables.items())
    images = f"{len(contents.images):,} images" + (
        f", such as {contents.images[0]}" if contents.images else ""
    )
    note = f"; {contents.notes[0]}" if contents.notes else ""
    return (
        f"no table has a column whose values name image files; found {images}, and the tables "
        f"{tables or 'none'}{note}: write a CSV with a row an image, its id and its labels, and run comp "
        "init again"
    )


# --- labels -------------------------------------------------------------------------------------------------


def _labels(found: Guess, train: IdTable, sample: IdTable | None) -> LabelForm:
    header = None
    if sample and not sample.long:
        header = [str(c) for c in sample.frame.columns if c != sample.column]
    others = [c for c in train.frame.columns if c not in (train.column, train.files)]
    certain, possible = find_groups(train.frame, others)
    if train.long:
        form = _long_form(train.long)
    else:
        form = find_form(train.frame, train.column, header, [c for c in (certain, *possible) if c])
    if text := number_in(sample, form.keys.get("column")):
        column = form.keys["column"]
        said, why = f"a number an image, in column {column}", f"the sample holds {text}"
        form = LabelForm(said, {"column": column}, columns=form.columns, numbers=why)
    if not train.name and fraction_in(sample):
        _as_binary(found, form, train, header)
    if not train.long and train.frame[train.column].duplicated().any():
        _as_rows_of_an_id(found, form, train)
    found.said.append(f"labels: {form.said}")
    for key, value in form.keys.items():
        if train.name or key != "column":
            found.add(
                "labels", key, value, form.said if key in ("column", "classes") else REASONS.get(key, "")
            )
    if form.problem:
        found.lacks(form.problem, runs=False)
    if unknown := form.keys.get("unknown"):
        found.unknown.append(
            f"what cells {', '.join(map(repr, unknown))} mean: they are left out as unknown; labels.values "
            "can make them 0 or 1"
        )
    if form.keys.get("single") or form.numbers or train.long or not form.keys:
        return form
    try:
        keys = form.keys if train.name else {key: form.keys[key] for key in form.keys if key != "column"}
        table = LabelTable.model_validate({"csv": train.file or (), "id": train.column, **keys})
        frame = train.frame
        if table.row:
            frame, table = join_rows(frame, table, [], Path(train.file))
        classes, targets = parse_labels(frame, table, Path(train.file))
    except (CompError, ValueError) as error:
        found.lacks(str(error), runs=False)
        return form
    if np.isnan(targets).any():
        return form
    if groups := find_exclusive(classes, targets):
        found.add("labels", "exclusive", groups, "exactly one of each group holds, in this table")
        shown = "; ".join(", ".join(group) for group in groups)
        found.said.append(f"exclusive: exactly one of {shown} in {_nearly(classes, targets, groups)}")
    return form


def _long_form(long: LongForm) -> LabelForm:
    """A row for each image and class."""
    said = f"a row for each image and class, named {long.row}, in {long.column} ({len(long.classes)} classes)"
    keys = {"column": long.column, "row": long.row, "classes": list(long.classes), "empty": True}
    return LabelForm(said, keys, columns=(long.column,))


def _as_rows_of_an_id(found: Guess, form: LabelForm, train: IdTable) -> None:
    """Let the rows of an id be joined; its labels may then be several."""
    form.keys["row"] = "{id}"
    column, frame = str(form.keys.get("column") or ""), train.frame
    n = frame[train.column].duplicated(keep=False).sum()
    found.said.append(f"rows: {n:,} rows share their id with others; they are joined")
    if form.keys.get("single") and (frame.groupby(train.column)[column].nunique() > 1).any():
        del form.keys["single"]
        joints = (text for text in " |;/" if not frame[column].str.contains(text, regex=False).any())
        if (joint := next(joints, " ")) != " ":
            form.keys["separator"] = joint
    if column and (frame[column].str.strip() == "").any():
        form.keys["empty"] = True
        form.keys.pop("single", None)


def _as_binary(found: Guess, form: LabelForm, train: IdTable, header: list[str] | None) -> None:
    """Of two labels of which the sample wants the probability of one, let one be the class."""
    names = sorted(set(train.frame[LABEL]))
    if len(names) != 2 or header is None or len(header) != 1:
        return
    one = header[0] if header[0] in names else names[1]
    form.keys = {"classes": [one], "none": next(name for name in names if name != one)}
    form.submission.pop("column", None)
    if header[0] != LABEL:
        form.submission["column"] = header[0]
    form.said = f"two labels; the sample wants the probability of one, {one}"
    if one != header[0]:
        found.unknown.append(
            f"whether the sample's {header[0]} is the probability of {one}, or of {names[0]}"
        )


REASONS = {
    "row": "rows of one id are joined",
    "single": "exactly one label in each row",
    "indices": "the labels are numbers from 0; `classes` can give them names",
    "empty": "some rows have no label",
    "none": "it stands alone where there is no label",
    "separator": "it makes the fewest different labels",
}


def _nearly(classes: Sequence[str], targets: Any, groups: list[list[str]]) -> str:
    exceptions = max(
        int((targets[:, [list(classes).index(name) for name in group]].sum(1) != 1).sum()) for group in groups
    )
    return "every row" if not exceptions else f"all rows but {exceptions}"


def _groups(found: Guess, train: IdTable, form: LabelForm) -> None:
    others = [c for c in train.frame.columns if c not in (train.column, train.files, *form.columns)]
    certain, possible = find_groups(train.frame, others)
    if unused := [c for c in others if c != certain]:
        found.said.append(f"columns not used: {', '.join(unused[:8])}{', …' if len(unused) > 8 else ''}")
    if certain:
        n = train.frame[certain].nunique()
        found.add("labels", "group", certain, f"{n:,} different: images of one stay in one fold")
        found.said.append(f"group: {certain} ({n:,} different); its images stay in one fold")
    for name in possible:
        n = train.frame[name].nunique()
        found.proposals["labels"].append(
            f'group = "{name}"  # {n:,} different: if the test images have others, keep them in one fold'
        )
        found.unknown.append(
            f"whether images of one {name} belong together ({n:,} different): see labels.group"
        )
