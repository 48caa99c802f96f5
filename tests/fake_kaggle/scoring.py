"""Score submissions."""

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from tests.fake_kaggle.state import Competition, Submission


def judge(competition: Competition, submission: Submission) -> None:
    try:
        submission.public, submission.private = score(competition, submission.path)
    except ValueError as error:
        submission.error = str(error)
    except Exception as error:
        submission.error = f"Evaluation failed: {type(error).__name__}: {error}"
    submission.judged.set()


def score(competition: Competition, path: Path) -> tuple[float | None, float | None]:
    """Return public and private F-beta of a submission by the competition's solution.

    Without a solution, the tags of the sample submission are the truth, and every third row is private. Raise
    ValueError with Kaggle's message for a submission that does not match the sample."""
    if competition.sample is None:
        raise ValueError("The competition has no sample submission")
    sample = read_table(competition.files[competition.sample])
    try:
        table = read_table(path)
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"Evaluation Exception: the file can't be read as CSV ({error})") from error
    key, tags = sample.columns[:2]
    if missing := [c for c in sample.columns if c not in table.columns]:
        raise ValueError(f"Evaluation Exception: Submission must have columns {missing}")
    if len(table) != len(sample):
        raise ValueError(f"Evaluation Exception: Submission must have {len(sample)} rows, not {len(table)}")
    if set(table[key]) != set(sample[key]):
        unknown = sorted(set(table[key]) ^ set(sample[key]))
        raise ValueError(f"Evaluation Exception: Submission has wrong or repeated ids, such as {unknown[0]}")
    if competition.solution is not None:
        truth = pd.read_csv(io.StringIO(competition.solution), dtype=str, keep_default_na=False)
        truth = truth.rename(columns=dict(zip(truth.columns, (key, tags, "Usage"))))
    else:
        thirds = np.arange(len(sample)) % 3
        truth = sample.assign(Usage=np.where(thirds == 2, "Private", "Public"))
    guess = table.set_index(key)[tags].reindex(truth[key])
    names = sorted({t for column in (truth[tags], guess) for text in column for t in str(text).split()})
    target, decided = (_indicator(column, names) for column in (truth[tags], guess))
    scores: list[float | None] = []
    for usage in ("Public", "Private"):
        rows = (truth["Usage"] == usage).to_numpy()
        scores.append(_f_beta(target[rows], decided[rows], competition) if rows.any() else None)
    return scores[0], scores[1]


def _f_beta(target: np.ndarray, decided: np.ndarray, competition: Competition) -> float:
    from sklearn.metrics import fbeta_score

    beta, average = competition.beta, competition.average
    return float(fbeta_score(target, decided, beta=beta, average=average, zero_division=0))


def _indicator(column: Iterable[str], names: list[str]) -> np.ndarray:
    """Return (N, C) of 0 and 1."""
    place = {name: i for i, name in enumerate(names)}
    rows = list(column)
    matrix = np.zeros((len(rows), len(names)), int)
    for i, text in enumerate(rows):
        matrix[i, [place[t] for t in str(text).split()]] = 1
    return matrix


def read_table(path: Path) -> pd.DataFrame:
    """Return a CSV, or the one in a zip, as text cells."""
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if not is_zip:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    with zipfile.ZipFile(path) as archive, archive.open(archive.namelist()[0]) as file:
        return pd.read_csv(file, dtype=str, keep_default_na=False)
