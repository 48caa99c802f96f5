"""How a submission is written and scored: the sample submission's columns, and the metric."""

import re

import pandas as pd

from comp.data.inspection.findings import TEST_FILE, Guess
from comp.data.inspection.id_tables import IdTable
from comp.data.inspection.known import METRICS
from comp.data.inspection.label_forms import LabelForm


def add_submission(found: Guess, train: IdTable, sample: IdTable | None, form: LabelForm) -> None:
    """Add the sample submission, or the table to write in its place."""
    if TEST_FILE in found.written:
        ids = found.written[TEST_FILE].split("\n")
        columns = form.keys.get("classes") if "column" not in form.keys else [form.keys["column"]]
        blank = "" if "column" in form.keys else "0"
        frame = pd.DataFrame({train.column: ids, **dict.fromkeys(columns or (), blank)})
        found.written[TEST_FILE] = frame.to_csv(index=False)
        found.sample = TEST_FILE
        found.add("submission", "sample", TEST_FILE, "written by comp init, in the form of the labels")
        if sample is not None:
            found.unknown.append(f"{sample.file}: its ids name no images")
        return
    if sample is None:
        return
    found.sample = sample.name
    shown = ", ".join(map(str, sample.frame.columns[:6])) + (", …" if sample.frame.shape[1] > 6 else "")
    found.said.append(f"sample: {sample.file} ({len(sample.frame):,} rows), columns {shown}")
    found.add("submission", "sample", sample.file)
    if sample.column != train.column:
        found.add("submission", "id", sample.column, "its column of ids")
    for key, value in form.submission.items():
        found.add("submission", key, value, "its name here" if value else "a column for each label")
    _placeholders(found, train, sample, form)


def _placeholders(found: Guess, train: IdTable, sample: IdTable, form: LabelForm) -> None:
    """Look at the labels in the sample: those that no image has are placeholders; several in a row, where an
    image has one, are a ranking."""
    others = [c for c in sample.frame.columns if c != sample.column]
    if len(others) != 1 or "column" not in form.keys or form.submission.get("column") == "":
        return
    given, separator = form.keys, form.keys.get("separator", " ")
    here = set(train.frame[given["column"]].str.strip()) - {"", given.get("none", "")}
    there = set(sample.frame[others[0]].str.strip()) - {"", given.get("none", "")}
    if not given.get("single"):
        here = {tag for text in here for tag in text.split(separator)} - {""}
        there = {tag for text in there for tag in text.split(separator)} - {""}
    elif here.isdisjoint(there) and there and all(set(text.split()) & here or " " in text for text in there):
        n = max(len(text.split()) for text in there)
        found.unknown.append(
            f"the sample has {n} labels a row, the likeliest first (MAP@{n}?); comp writes one"
        )
    if there and here.isdisjoint(there) and not given.get("indices"):
        found.add(
            "labels", "classes", sorted(here), "listed, since the labels in the sample are placeholders"
        )


def add_metric(found: Guess, slug: str | None, sample: IdTable | None, form: LabelForm) -> None:
    """Add the metric of a known competition; of others, say which default counts."""
    is_single, is_binary = form.keys.get("single"), len(form.keys.get("classes", ())) == 1
    default = "accuracy" if is_single else "F1 of the label" if is_binary else "samples F2"
    known = METRICS.get(slug or "")
    cells = set() if sample is None else set(
        sample.frame.drop(columns=sample.column).head(1000).to_numpy(object).ravel().tolist()
    )  # fmt: skip
    fraction = next((text for text in sorted(cells) if re.fullmatch(r"0?\.\d*[1-9]\d*", text)), None)
    if isinstance(known, dict):
        shown = "accuracy" if known["average"] == "accuracy" else f"{known['average']} F{known['beta']}"
        found.said.append(f"metric: {shown}, as the competition's page has it")
        for key, value in known.items():
            found.add("metric", key, value, "the competition's")
    elif known:
        found.lacks(
            f"the metric: the leaderboard counts {known}; comp writes labels, scored here by {default}"
        )
        found.proposals["metric"].append(f"The leaderboard counts {known}, which comp doesn't compute.")
    else:
        found.unknown.append(f"the metric: {default} is the default; set what the competition's page says")
    if fraction and not isinstance(known, dict):
        found.unknown.append(
            f"the sample holds {fraction}: probabilities seem to be expected; comp writes 0 or 1"
        )
    if isinstance(known, dict):
        return
    if is_binary:
        found.add("metric", "beta", 1)
        found.add("metric", "average", "macro", "of the only label")
    else:
        average = 'average = "samples"  # or "macro", "micro"'
        found.proposals["metric"] += (
            ['average = "macro"  # F-beta instead of accuracy', "beta = 1"]
            if is_single
            else ["beta = 2", average]
        )
