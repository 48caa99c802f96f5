"""The suspects of a run: labels, grades and numbers that may be wrong. What the report needs to correct them,
and the table of `comp suspects`."""

from typing import Any

import numpy as np
import pandas as pd

from comp.data.corrections import describe_corrections, read_corrections, settled
from comp.data.labels import exclusive_groups
from comp.decisions.cut_points import expected_grades
from comp.evaluation.label_errors import (
    Suspects,
    find_grade_errors,
    find_label_errors,
    find_number_errors,
)
from comp.evaluation.results import RunResults


def find_suspects(results: RunResults) -> Suspects:
    """Return (rows, classes, doubts) of labels, grades or numbers that may be wrong, the most suspect first.
    Labels are judged as the networks learned them: corrected. Those that somebody found right or wrong are
    left out."""
    targets = results.targets if results.corrected is None else results.corrected
    if results.scorer.answer == "numbers":
        found = find_number_errors(results.decisions, targets)
    elif results.scorer.answer == "grades":
        found = find_grade_errors(results.probs, targets)
    else:
        found = find_label_errors(results.probs, targets)
    if not results.recipe.competition.labels.corrections:
        return found
    rows, classes, doubts = found
    left = ~settled(results.labels, results.recipe.competition)[results.rows[rows], classes]
    return rows[left], classes[left], doubts[left]


def suspects_table(results: RunResults) -> pd.DataFrame:
    """Return the suspects, the most suspect first: image, label, what is given, what the network says, the
    doubt or deviation, the fold."""
    rows, classes, doubts = find_suspects(results)
    numbers = results.scorer.answer == "numbers"
    given, said = results.targets[rows, classes], results.decisions if numbers else results.probs
    frame = pd.DataFrame(
        {
            "id": results.ids[rows],
            "label": np.array(results.labels.classes, object)[classes],
            "given": given if numbers else given.astype(int),
            "predicted" if numbers else "probability": said[rows, classes],
            "deviation" if numbers else "doubt": doubts,
        }
    )
    if results.scorer.answer == "grades":
        frame["expected"] = expected_grades(results.probs[rows]) if len(rows) else doubts
    return frame.assign(fold=results.folds[rows])


def correcting(results: RunResults) -> dict[str, Any] | None:
    """Return what the page needs to correct labels: the corrections so far as [id, class, value, who, when,
    given]; the labels by their real names, and the groups of those that exclude each other; the run to train
    again, unless it is a blend. None where an answer is for several images."""
    labels, competition = results.labels, results.recipe.competition
    if labels.answer_ids is not None:
        return None
    numbers = results.scorer.answer == "numbers"
    column_of = {name: c for c, name in enumerate(labels.classes)}
    row_of = {name: i for i, name in enumerate(labels.ids.tolist())}
    rows = []
    for one in read_corrections(competition):
        if one.id in row_of and one.label in column_of:
            given = float(str(labels.targets[row_of[one.id], c := column_of[one.label]]))
            rows.append(
                [one.id, c, _text(one.value), one.who, one.when, given if np.isfinite(given) else None]
            )
    found: dict[str, Any] = {
        "competition": f"{competition.name} {labels.fingerprint}",
        "run": results.recipe.name if "how" not in results.made or results.recipe.members else None,
        "labels": list(labels.classes),
        "rows": rows,
        "groups": [] if numbers else [list(g) for g in exclusive_groups(competition.labels, labels.classes)],
        "empty": competition.labels.empty or numbers,
    }
    if (corrected := results.corrected) is not None:
        found["score"] = results.decision["scores"].get("corrected")
        found["changed"] = describe_corrections(results.targets, corrected, competition)
    return found


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"
