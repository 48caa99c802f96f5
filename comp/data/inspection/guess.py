"""Guess a competition's TOML from its files: which table holds the labels, which column the ids, where the
images are, and what can't be known. Every value keeps the reason for it."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from comp.config.competition import LabelTable
from comp.data.inspection.contents import Contents
from comp.data.inspection.findings import LABELS_FILE, TEST_FILE, Guess
from comp.data.inspection.id_tables import (
    MIN_SHARE,
    SAMPLE_NAME,
    TEST_NAME,
    TRAIN_NAME,
    IdTable,
    find_test_table,
    labels_in_paths,
    sample_of,
    training_table,
)
from comp.data.inspection.images import UNREAD_ENDINGS, ImageFiles, Match, Split
from comp.data.inspection.label_forms import LabelForm, find_exclusive, find_form, find_groups
from comp.data.inspection.submission import add_metric, add_submission
from comp.data.labels import parse_labels
from comp.errors import CompError, summarize

MAX_NOTES = 5  # lines about files that are not looked into
N_STAND_INS = 20  # training images in place of a test set


def guess(contents: Contents, slug: str | None = None) -> Guess:
    """Return what the files show. Raise CompError if there is no table of labels and no folder a label."""
    found, files = Guess(), ImageFiles(contents.images)
    sample = sample_of(contents, files)
    train = training_table(contents, files, sample)
    if train is None:
        train = _from_folders(contents, found)
    else:
        shown = f"{len(train.frame):,} rows, {train.frame.shape[1]} columns"
        found.said.append(f"table: {train.file} ({shown}): id {train.column}, since {_why(train)}")
    found.table = train.name
    found.add("labels", "csv", train.file)
    found.add("labels", "id", train.column, _why(train))
    twice = len(train.ids) - len(set(train.ids))
    if twice:
        found.lacks(
            f"{train.file} has {twice:,} ids more than once; comp needs one row an image: join the rows of "
            "an image in a table of your own",
            runs=False,
        )
    form = _labels(found, train, sample)
    _groups(found, train, form)
    _images(found, contents, files, train, sample)
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
    if table.share == 0:
        return "its name says so; no image was seen"
    which = "every value names" if table.share == 1 else f"{table.share:.0%} of the values name"
    return f"{which} an image file"


def _from_folders(contents: Contents, found: Guess) -> IdTable:
    """Return a table to be written, of images whose folder, or the start of whose name, is their label. Raise
    CompError if there are none."""
    named = [name for name in contents.tables if TRAIN_NAME.search(name) and not SAMPLE_NAME.search(name)]
    labelled = None if named else labels_in_paths(contents.images)
    if labelled is None:
        raise CompError(_why_no_table(contents))
    folder, labels, how = labelled
    frame = pd.DataFrame({"id": [path.rpartition(".")[0] for path in labels], "label": list(labels.values())})
    frame = frame.drop_duplicates("id")
    endings = sorted({path.rpartition(".")[2] for path in labels})
    folder = folder.rpartition("/")[2] or contents.root
    found.folders = tuple(f"{folder}/{{id}}.{ending}" for ending in endings)
    found.written[LABELS_FILE] = frame.to_csv(index=False)
    found.said.append(
        f"table: none; {how} in {folder}/ is a label, so {LABELS_FILE} is written with an id and a label for "
        f"each of the {len(frame):,} images"
    )
    return IdTable(LABELS_FILE, frame, "id", 1.0)


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
            if files.share([value.rpartition("_")[0] for value in values]) > MIN_SHARE:
                return (
                    f"{name} has a row for each image and label ({values[0]}); comp needs a row an image: "
                    "write such a table, with a column a label, and run comp init again"
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
    header = None if sample is None else [c for c in sample.frame.columns if c != sample.column]
    others = [c for c in train.frame.columns if c != train.column]
    certain, possible = find_groups(train.frame, others)
    form = find_form(train.frame, train.column, header, [c for c in (certain, *possible) if c])
    found.said.append(f"labels: {form.said}")
    for key, value in form.keys.items():
        found.add("labels", key, value, form.said if key in ("column", "classes") else REASONS.get(key, ""))
    if form.problem:
        found.lacks(form.problem, runs=False)
    if form.keys.get("single") or not form.keys:
        return form
    try:
        table = LabelTable.model_validate({"csv": train.file, "id": train.column, **form.keys})
        classes, targets = parse_labels(train.frame, table, Path(train.file))
    except (CompError, ValueError) as error:
        found.lacks(str(error), runs=False)
        return form
    if groups := find_exclusive(classes, targets):
        found.add("labels", "exclusive", groups, "exactly one of each group holds, in this table")
        shown = "; ".join(", ".join(group) for group in groups)
        found.said.append(f"exclusive: exactly one of {shown} in {_nearly(classes, targets, groups)}")
    return form


REASONS = {
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
    others = [c for c in train.frame.columns if c != train.column and c not in form.columns]
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


# --- images -------------------------------------------------------------------------------------------------


def _images(
    found: Guess, contents: Contents, files: ImageFiles, train: IdTable, sample: IdTable | None
) -> None:
    if train.name == LABELS_FILE:
        match = Match(found.folders, (), ())
    else:
        match = _match(files, train.ids, "train", contents)
    test = None
    if sample:
        test = _match(files, sample.ids, "test", contents)
        if not match.templates and test.templates and contents.is_complete:
            match = test
    _say_images(found, "train", match, len(train.ids), contents)
    found.add("images", "train", list(match.templates))
    if test is None or (not test.templates and contents.images):
        test = _without_sample(found, files, contents, train, match)
    else:
        _say_images(found, "test", test, len(sample.ids) if sample else 0, contents)
    found.add("images", "test", list(test.templates))
    if match.channels:
        found.add("images", "channels", list(match.channels), "a file for each channel")
        if set(test.channels) != set(match.channels):
            found.lacks(f"the test images have the channels {', '.join(test.channels) or 'none'}", runs=False)
    for ending in UNREAD_ENDINGS:
        if any(template.endswith(ending) for template in match.templates):
            found.lacks(f"comp doesn't read {ending} files; convert them to PNG or JPEG first", runs=False)


def _match(files: ImageFiles, ids: list[str], split: Split, contents: Contents) -> Match:
    """Return the templates of these ids; if no images were seen, what archives' names let assume."""
    match = files.match(ids, split)
    if match.templates:
        named = (
            t if "/" in t.split("{")[0] or not contents.root else f"{contents.root}/{t}"
            for t in match.templates
        )
        return replace(match, templates=tuple(named))
    if not contents.may_hold_more:
        return match
    folders = [a.rpartition("/")[2].split(".")[0] for a in contents.archives if split in a.lower()]
    ending = "" if re.search(r"\.\w{3,4}$", ids[0]) else ".jpg"
    return Match((f"{folders[0] if folders else split}/{{id}}{ending}",), (), tuple(ids))


def _say_images(found: Guess, split: str, match: Match, n_ids: int, contents: Contents) -> None:
    if len(match.missing) == n_ids and match.templates:
        found.lacks(f"{split} images: none was seen; {match.templates[0]} is assumed")
        return
    templates = match.templates[:3] + (("…",) if len(match.templates) > 3 else ())
    channels = f", channels {', '.join(match.channels)}" if match.channels else ""
    found.said.append(
        f"{split} images: {', '.join(templates)} ({n_ids - len(match.missing):,} ids{channels})"
    )
    if match.missing and contents.is_complete:
        found.lacks(f"no image for {summarize(match.missing)} of the {n_ids:,} {split} ids", runs=False)


def _without_sample(
    found: Guess, files: ImageFiles, contents: Contents, train: IdTable, match: Match
) -> Match:
    """Return the templates of test images that no table lists; the ids become a table to write. Without test
    images some training images stand in."""
    if listed := find_test_table(contents, files, train):
        test = _match(files, listed.ids, "test", contents)
        found.said.append(
            f"test images: {', '.join(test.templates)}, {len(listed.ids):,} ids of {listed.file}; there is "
            f"no sample submission, so {TEST_FILE} is written with them"
        )
        found.written[TEST_FILE] = "\n".join(listed.ids)
        return test
    used = set(train.ids)
    paths = [path for path in contents.images if TEST_NAME.search(path.rpartition("/")[0])]
    if train.name == LABELS_FILE:
        paths = [path for path in paths if "/".join(path.split("/")[-2:]).rpartition(".")[0] not in used]
    with_ending = not match.templates or match.templates[0].endswith("{id}")
    ids = list(dict.fromkeys(Path(p).name if with_ending else Path(p).stem for p in paths))
    test = files.match(ids, "test") if ids and not match.channels else Match((), (), ())
    if test.templates:
        found.said.append(
            f"test images: {', '.join(test.templates)} ({len(ids):,}); no sample submission lists them, so "
            f"{TEST_FILE} is written with their ids"
        )
        found.written[TEST_FILE] = "\n".join(ids)
        return test
    found.lacks(
        f"the test set: there is none. {min(N_STAND_INS, len(train.ids))} training images stand in, so that "
        "all stages run and the cross-fitted score counts; the submission means nothing"
    )
    found.written[TEST_FILE] = "\n".join(train.ids[:N_STAND_INS])
    return match
