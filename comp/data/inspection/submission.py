"""How a submission is written and scored: the sample submission's columns, and the metric."""

import re

from comp.config.metric import Metric
from comp.data.inspection.findings import Guess
from comp.data.inspection.id_tables import IdTable
from comp.data.inspection.known import METRICS
from comp.data.inspection.label_forms import LabelForm
from comp.data.path_tables import TEST_FILE


def add_submission(found: Guess, train: IdTable, sample: IdTable | None, form: LabelForm) -> None:
    """Add the sample submission, or the list of ids to write in its place."""
    if TEST_FILE in found.written:
        found.written[TEST_FILE] = f"{train.column}\n{found.written[TEST_FILE]}\n"
        found.sample = TEST_FILE
        found.add("submission", "sample", TEST_FILE, "written by comp init")
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
    if not train.long:
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
    elif (n := _n_ranked(sample, others[0], here)) > 1:
        form.n_ranked = n
        return
    if there and here.isdisjoint(there) and not given.get("indices"):
        found.add(
            "labels", "classes", sorted(here), "listed, since the labels in the sample are placeholders"
        )


def _n_ranked(sample: IdTable, column: str, labels: set[str]) -> int:
    """Return how many labels a row of the sample has, the likeliest first; 1 if each is one label."""
    texts = set(sample.frame[column].str.strip()) - {""}
    if not texts or texts & labels or any(" " in label for label in labels):
        return 1
    return max(len(text.split()) for text in texts)


def number_in(sample: IdTable | None, column: str | None) -> str:
    """Return a cell of the sample's column that is a number above 1 with decimals; "" if there is none."""
    if sample is None or column not in sample.frame:
        return ""
    texts = sorted(set(sample.frame[column].str.strip()))
    return next((text for text in texts if re.fullmatch(r"-?0*[1-9]\d*\.\d*[1-9]\d*", text)), "")


def fraction_in(sample: IdTable | None) -> str:
    """Return a cell of the sample between 0 and 1; "" if there is none."""
    if sample is None:
        return ""
    cells = sample.frame.drop(columns=sample.column).head(1000).to_numpy(object).ravel().tolist()
    return next((text for text in sorted(set(cells)) if re.fullmatch(r"0?\.\d*[1-9]\d*", text)), "")


def add_metric(found: Guess, slug: str | None, sample: IdTable | None, form: LabelForm) -> None:
    """Add the metric: of a known competition, or by what an answer is. What is only likely is said."""
    keys, fraction = form.keys, fraction_in(sample)
    is_single, is_binary = keys.get("single"), len(keys.get("classes", ())) == 1
    default = "accuracy" if is_single else "F1 of the label" if is_binary else "samples F2"
    metric, why = METRICS.get(slug or ""), "the competition's"
    if metric:
        found.said.append(f"metric: {Metric.model_validate(metric)}, as the competition's page has it")
    elif form.numbers:
        metric, why = {"name": "rmse"}, "or mae, r2: the competition's page says it"
        found.unknown.append(f"the metric: {form.numbers}, so rmse is assumed")
    elif form.n_ranked:
        metric, why = {"name": "map_at_k", "k": form.n_ranked}, "or top_k_error"
        found.unknown.append(
            f"the metric: the sample has {form.n_ranked} labels a row, the likeliest first, so map_at_k is "
            "assumed"
        )
    elif fraction:
        name, other = ("log_loss", "roc_auc") if "column" in keys else ("roc_auc", "log_loss")
        metric, why = {"name": name}, f"or {other}, average_precision: the competition's page says it"
        found.unknown.append(
            f"the metric: the sample holds {fraction}, so probabilities count; {name} is assumed, {other} is "
            "the other usual one"
        )
    else:
        found.unknown.append(f"the metric: {default} is the default; set what the competition's page says")
    for key, value in (metric or {}).items():
        found.add("metric", key, value, why)
        why = ""
    if metric:
        return
    if is_binary:
        found.add("metric", "beta", 1)
        found.add("metric", "average", "macro", "of the only label")
    elif is_single:
        found.proposals["metric"] += ['average = "macro"  # F-beta instead of accuracy', "beta = 1"]
        if keys.get("indices"):
            found.proposals["metric"].append('name = "quadratic_kappa"  # if the labels are grades')
    else:
        found.proposals["metric"] += ["beta = 2", 'average = "samples"  # or "macro", "micro"']
