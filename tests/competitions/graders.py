"""Graders of submission files, from the definition of each metric and with scikit-learn, without comp. They
know what the test images of a form show."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    f1_score,
    fbeta_score,
    log_loss,
    roc_auc_score,
    root_mean_squared_error,
)

from tests.competitions.forms import Form


@dataclass(frozen=True)
class Grader:
    """What a competition counts: `score` of truth and answers (N, C), read from the file by `layout`: columns
    (one a class), text (labels in one cell), long (a row for each image and class)."""

    metric: str
    score: Callable[[np.ndarray, np.ndarray], float]
    layout: str = "columns"
    answer: str = "probabilities"  # or labels, indices (of labels), ranking, numbers
    joint: str = " "
    greater: bool = True


def mean_auc(truth: np.ndarray, answers: np.ndarray) -> float:
    return float(np.mean([roc_auc_score(t, a) for t, a in zip(truth.T, answers.T)]))


def log_loss_of_columns(weights: Sequence[float] = ()) -> Callable[[np.ndarray, np.ndarray], float]:
    def score(truth: np.ndarray, answers: np.ndarray) -> float:
        values = [log_loss(t, a, labels=[0, 1]) for t, a in zip(truth.T, answers.T)]
        return float(np.average(values, weights=weights or None))

    return score


def log_loss_of_classes(truth: np.ndarray, answers: np.ndarray) -> float:
    shares = answers / answers.sum(1, keepdims=True)
    return float(log_loss(truth.argmax(1), shares, labels=np.arange(truth.shape[1])))


def probabilistic_f1(truth: np.ndarray, answers: np.ndarray) -> float:
    t, p = truth[:, 0].astype(bool), answers[:, 0]
    precision, recall = p[t].sum() / p.sum(), p[t].sum() / t.sum()
    return float(2 * precision * recall / (precision + recall))


def map_at_5(truth: np.ndarray, ranks: np.ndarray) -> float:
    """Of one true label: 1 / its place among the first five. `ranks` (N, C) are places from 1, 0 for none."""
    places = (truth * ranks).sum(1)
    return float(np.mean([1 / place if 0 < place <= 5 else 0.0 for place in places]))


def error_of_the_first(truth: np.ndarray, ranks: np.ndarray) -> float:
    return float(np.mean((truth * ranks).sum(1) != 1))


def f(beta: float, average: str) -> Callable[[np.ndarray, np.ndarray], float]:
    return lambda truth, answers: float(
        fbeta_score(truth, answers, beta=beta, average=average, zero_division=0)
    )


def kappa(truth: np.ndarray, answers: np.ndarray) -> float:
    return float(cohen_kappa_score(truth.argmax(1), answers.argmax(1), weights="quadratic"))


def of_one_label(truth: np.ndarray, answers: np.ndarray) -> float:
    return float(accuracy_score(truth.argmax(1), answers.argmax(1)))


def macro_f1(truth: np.ndarray, answers: np.ndarray) -> float:
    return float(f1_score(truth.argmax(1), answers.argmax(1), average="macro"))


def rmse(truth: np.ndarray, answers: np.ndarray) -> float:
    return float(root_mean_squared_error(truth, answers))


AUC = Grader("ROC AUC", mean_auc)
ACCURACY = Grader("accuracy", of_one_label, "text", "labels")
MACRO_F1 = Grader("macro F1", macro_f1, "text", "labels")
CLASSES = Grader("log loss", log_loss_of_classes, greater=False)
RANKING = Grader("MAP@5", map_at_5, "text", "ranking")

GRADERS = {
    "planet": Grader("samples F2", f(2, "samples"), "text", "labels"),
    "hpa": Grader("macro F1", f(1, "macro"), "text", "indices"),
    "plant-pathology-2021": Grader("samples F1", f(1, "samples"), "text", "labels"),
    "plant-pathology-2020": AUC,
    "ranzcr-clip": AUC,
    "aerial-cactus": AUC,
    "dogs-vs-cats": Grader("log loss", log_loss_of_columns(), greater=False),
    "leaf": CLASSES,
    "cassava": ACCURACY,
    "aptos2019": Grader("quadratic kappa", kappa, "text", "labels"),
    "petfinder-pawpularity": Grader("RMSE", rmse, answer="numbers", greater=False),
    "hotel-id-2021": RANKING,
    "iwildcam-2019": MACRO_F1,
    "plant-seedlings": Grader("micro F1", of_one_label, "text", "labels"),
    "inaturalist-2019": Grader("top-1 error", error_of_the_first, "text", "ranking", greater=False),
    "rsna-breast-cancer": Grader("probabilistic F1", probabilistic_f1),
    "nih-chest-x-rays": AUC,
    "chexpert": AUC,
    "rsna-intracranial-hemorrhage": Grader(
        "weighted log loss", log_loss_of_columns([1, 1, 1, 1, 1, 2]), "long", greater=False
    ),
    "siim-isic-melanoma": AUC,
    "histopathologic-cancer": AUC,
    "dog-breed": CLASSES,
    "imet-2020": Grader("micro F1", f(1, "micro"), "text", "labels"),
    "paddy-disease": ACCURACY,
    "whale-categorization": RANKING,
    "herbarium-2022": MACRO_F1,
    "statoil-iceberg": Grader("log loss", log_loss_of_columns(), greater=False),
    "invasive-species": AUC,
}  # fmt: skip


def asked(form: Form) -> tuple[list[str], np.ndarray]:
    """Return the ids that are answered, and (N, C) their truth."""
    if form.answers is None:
        return form.test_ids, form.truth
    first = {answer: k for k, answer in reversed([*enumerate(form.answers)])}
    ids = list(dict.fromkeys(form.answers))
    return ids, form.truth[[first[i] for i in ids]]


def read(grader: Grader, form: Form, path: Path) -> np.ndarray:
    """Return the answers (N, C) of a file, in the order of `asked`; a missing id or column is an error."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    ids, _ = asked(form)
    rows = table.set_index(table.columns[0])
    assert rows.index.is_unique
    if grader.layout == "long":
        assert len(rows) == len(ids) * len(form.classes)
        cells = rows[rows.columns[0]].astype(float)
        return np.array([[cells[f"{i}_{label}"] for label in form.classes] for i in ids])
    assert sorted(rows.index) == sorted(ids)
    rows = rows.loc[ids]
    if grader.layout == "columns":
        one = len(form.classes) == 1
        return rows[[rows.columns[0]] if one else list(form.classes)].to_numpy(float)
    answers = np.zeros((len(ids), len(form.classes)))
    names = [str(c) for c in range(len(form.classes))] if grader.answer == "indices" else list(form.classes)
    for k, text in enumerate(rows[rows.columns[0]]):
        one = grader.answer == "labels" and form.truth.sum(1).max() == 1  # labels with spaces in them
        for place, label in enumerate([text] if one else text.split(grader.joint), 1):
            if label:
                answers[k, names.index(label)] = place if grader.answer == "ranking" else 1
    return answers


def grade(grader: Grader, form: Form, path: Path) -> tuple[float, float]:
    """Return the score of a submission file, and that of the best constant answer that the training targets
    suggest."""
    _, truth = asked(form)
    score = grader.score(truth, read(grader, form, path))
    shares = np.nanmean(form.targets.astype(float), 0)
    if grader.answer == "ranking":
        constants = [np.argsort(np.argsort(-shares, kind="stable")) + 1.0]
    elif grader.answer == "labels" and form.targets.sum(1).max() == 1:
        constants = list(np.eye(len(shares)))
    elif grader.answer in ("labels", "indices"):
        constants = [(shares >= share).astype(float) for share in shares]
    else:
        constants = [shares]
    scores = [grader.score(truth, np.tile(row, (len(truth), 1))) for row in constants]
    return score, max(scores) if grader.greater else min(scores)
