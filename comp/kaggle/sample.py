"""The form of a sample submission, found from the sample alone: for decisions about another program's
tables."""

from pathlib import Path

import numpy as np

from comp.artifacts.csv_tables import ids_of, read_table
from comp.config.competition import Competition, columns
from comp.config.metric import NEEDS_ONE_LABEL, Metric
from comp.data.tags import split_tags
from comp.decisions.scorers import first_classes
from comp.errors import CompError, summarize
from comp.kaggle.submission_file import check_submission, submission_text

SEPARATORS = (" ", ",", ";", "|", "\t")


def sample_submission(
    answers: np.ndarray,
    ids: np.ndarray,
    classes: tuple[str, ...],
    sample: Path,
    target: Path,
    metric: Metric = Metric(),  # noqa: B008  (frozen)
) -> str:
    """Return answers (N, C) for these ids (N,) as a CSV with the sample's ids, order, columns and form. The
    metric says what they are. Raise CompError for a sample of another form, and where ids of the sample have
    no answer."""
    competition = _competition_of(sample, classes, metric)
    wanted = ids_of(read_table(sample, []), columns(competition)[0], sample)
    row = {name: i for i, name in enumerate(ids.tolist())}
    if missing := [name for name in wanted.tolist() if name not in row]:
        raise CompError(f"{sample} has ids without probabilities: {summarize(missing)}; predict these too")
    chosen = answers[[row[name] for name in wanted.tolist()]]
    text = submission_text(chosen, wanted, classes, competition, sample)
    found = check_submission(text, target, competition, classes, wanted)
    if metric.kind == "ranking":
        assert np.array_equal(first_classes(found, metric.k), first_classes(chosen, metric.k))
    else:
        said = chosen if chosen.dtype == np.uint8 else chosen.astype(np.float32)
        assert np.array_equal(found.astype(said.dtype), said)  # read back, it says the same
    return text


def _competition_of(sample: Path, classes: tuple[str, ...], metric: Metric) -> Competition:
    """Return a competition whose submissions have the form of the sample: a column per class, or one column
    of texts. Their separator is the one with which all of the sample's labels are classes."""
    frame = read_table(sample, [])
    name, *others = frame.columns
    table = {"csv": "labels.csv", "id": name, "classes": classes, "empty": True}
    if metric.name in NEEDS_ONE_LABEL:
        table |= {"single": True, "empty": False}
    if len(others) == len(classes) == 1 and metric.kind != "ranking":
        pass
    elif set(classes) <= set(others) and len(others) <= len(classes) + 1:
        table |= {"none": next((c for c in others if c not in classes), None)}
    elif len(others) == 1:
        texts = [text.strip() for text in frame[others[0]]]
        marks = [mark for mark in SEPARATORS if not any(mark in c for c in classes)] or [" "]
        found = {mark: set().union(*split_tags(texts, classes, mark)) for mark in marks}
        indices = {str(i) for i in range(len(classes))}
        by_name = [mark for mark, tags in found.items() if tags <= set(classes)]
        by_index = [mark for mark, tags in found.items() if tags and tags <= indices]
        table |= {"column": others[0], "separator": (by_name or by_index or marks)[0]}
        table |= {"indices": bool(by_index and not by_name)}
    else:
        raise CompError(
            f"{sample} has the columns {summarize(frame.columns)}; ids and one column of labels, or a column "
            f"for each of {summarize(classes)}, are expected"
        )
    images = {"train": "{id}", "test": "{id}"}
    content = {
        "name": "sample",
        "labels": table,
        "images": images,
        "submission": {"sample": str(sample.name)},
        "metric": metric.model_dump(mode="json"),
    }
    return Competition.model_validate(content)
