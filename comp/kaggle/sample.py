"""The form of a sample submission, found from the sample alone: for decisions about another program's
tables."""

from pathlib import Path

import numpy as np

from comp.artifacts.csv_tables import ids_of, read_table
from comp.config.competition import Competition, columns
from comp.data.labels import split_tags
from comp.errors import CompError, summarize
from comp.kaggle.submission_file import check_submission, submission_text

SEPARATORS = (" ", ",", ";", "|", "\t")


def sample_submission(
    decisions: np.ndarray, ids: np.ndarray, classes: tuple[str, ...], sample: Path, target: Path
) -> str:
    """Return decisions (N, C) of these ids (N,) as a CSV with the sample's ids, order, columns and form.
    Raise CompError for a sample of another form, and where ids of the sample have no decision."""
    competition = _competition_of(sample, classes)
    wanted = ids_of(read_table(sample, []), columns(competition)[0], sample)
    row = {name: i for i, name in enumerate(ids.tolist())}
    if missing := [name for name in wanted.tolist() if name not in row]:
        raise CompError(f"{sample} has ids without probabilities: {summarize(missing)}; predict these too")
    chosen = decisions[[row[name] for name in wanted.tolist()]]
    text = submission_text(chosen, wanted, classes, competition, sample)
    found = check_submission(text, target, competition, classes, wanted)
    assert np.array_equal(found, chosen)  # read back, it says the same
    return text


def _competition_of(sample: Path, classes: tuple[str, ...]) -> Competition:
    """Return a competition whose submissions have the form of the sample: a 0/1 column per class, or one
    column of texts. Their separator is the one with which all of the sample's labels are classes."""
    frame = read_table(sample, [])
    name, *others = frame.columns
    table = {"csv": "labels.csv", "id": name, "classes": classes, "empty": True}
    if set(classes) <= set(others) and len(others) <= len(classes) + 1:
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
    }
    return Competition.model_validate(content)
