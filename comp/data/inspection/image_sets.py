"""The templates of the training and the test images of a competition that is looked at."""

import re
from dataclasses import replace
from pathlib import Path

from comp.data.inspection.contents import Contents
from comp.data.inspection.findings import Guess
from comp.data.inspection.id_tables import TEST_NAME, IdTable, find_test_table
from comp.data.inspection.images import ImageFiles, Match, Split
from comp.data.path_tables import TEST_FILE
from comp.errors import summarize

N_STAND_INS = 20  # training images in place of a test set


def add_images(
    found: Guess,
    contents: Contents,
    files: ImageFiles,
    train: IdTable,
    sample: IdTable | None,
    listed: IdTable | None,
) -> None:
    if train.name:
        match = _match(files, train, "train", contents)
    else:
        match = Match(found.folders, (), ())
    test, tested = None, listed or sample
    if tested:
        test = _match(files, tested, "test", contents)
        if not match.templates and test.templates and contents.is_complete:
            match = test
    _say_images(found, "train", match, len(train.ids), contents)
    found.add("images", "train", list(match.templates))
    if test is None or (not test.templates and contents.images):
        test = _without_sample(found, files, contents, train, match)
    else:
        _say_images(found, "test", test, len(tested.ids) if tested else 0, contents)
    found.add("images", "test", list(test.templates))
    if listed:
        found.add("images", "table", listed.file, "the table of the test images")
    if match.channels:
        found.add("images", "channels", list(match.channels), "a file for each channel")
        if set(test.channels) != set(match.channels):
            found.lacks(f"the test images have the channels {', '.join(test.channels) or 'none'}", runs=False)


def _match(files: ImageFiles, table: IdTable, split: Split, contents: Contents) -> Match:
    """Return the templates of a table's ids; if no images were seen, what archives' names let assume."""
    frame = table.frame.drop(columns=table.column)
    ids = table.frame[table.files].str.strip().tolist() if table.files else table.ids
    match = files.match(ids, split, frame)
    if table.files:
        named = (template.replace("{id}", f"{{{table.files}}}") for template in match.templates)
        match = replace(match, templates=tuple(named))
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
    """Return the templates of test images that no sample submission lists. Without test images some training
    images stand in."""
    if listed := find_test_table(contents, files, train):
        test = _match(files, listed, "test", contents)
        found.said.append(
            f"test images: {', '.join(test.templates)}, {len(listed.ids):,} ids of {listed.file}; there is "
            "no sample submission"
        )
        found.add("images", "table", listed.file, "the table of the test images")
        return test
    used = set(train.ids)
    paths = [path for path in contents.images if TEST_NAME.search(path.rpartition("/")[0])]
    if not train.name:
        paths = [path for path in paths if "/".join(path.split("/")[-2:]).rpartition(".")[0] not in used]
    with_ending = not match.templates or match.templates[0].endswith("{id}")
    ids = list(dict.fromkeys(Path(p).name if with_ending else Path(p).stem for p in paths))
    test = files.match(ids, "test") if ids and not match.channels else Match((), (), ())
    if test.templates:
        found.said.append(
            f"test images: {', '.join(test.templates)} ({len(ids):,}); no sample submission lists them"
        )
        return test
    found.lacks(
        f"the test set: there is none. {min(N_STAND_INS, len(train.ids))} training images stand in, so that "
        "all stages run and the cross-fitted score counts; the submission means nothing"
    )
    found.written[TEST_FILE] = "\n".join(train.ids[:N_STAND_INS])
    return match if train.name else replace(match, templates=tuple(map(_by_path, match.templates)))


def _by_path(template: str) -> str:
    """Return the template of the same files by ids that are paths: train/{id}.png for
    train/{label}/{id}.png."""
    return f"{template[: template.index('{')]}{{id}}{template[template.rindex('}') + 1 :]}"
