"""The two submissions to end a competition with: the best cross-fitted one, and one that errs differently."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from comp.artifacts.csv_tables import read_table
from comp.artifacts.paths import submission_path
from comp.errors import CompError
from comp.kaggle.ledger import Row, sign_of


@dataclass(frozen=True)
class Pick:
    row: Row
    reason: str


def pick_two(rows: Sequence[Row]) -> list[Pick]:
    """Return the two submissions of one competition to end with, one where no other differs from it, or
    none where none has a score and a CSV.

    `rows` are of the ledger. The first has the best cross-fitted score. The second is the best of the half
    that is least like it, by the share of test images with other answers or, of numbers, by their mean
    difference: where the first fails on the hidden part, a copy of it would fail too."""
    usable = {
        row["name"]: row
        for row in rows
        if row["cross_fitted"] and row["status"] != "error" and submission_path(row["name"]).exists()
    }
    if not usable:
        return []
    best, *others = sorted(usable.values(), key=lambda row: -sign_of(row) * float(row["cross_fitted"]))
    first = Pick(best, "the best cross-fitted score")
    differences = {row["name"]: _difference(best["name"], row["name"]) for row in others}
    others = [row for row in others if differences[row["name"]].amount > 0]
    if not others:
        return [first]
    least = float(np.median([differences[row["name"]].amount for row in others]))
    far = [row for row in others if differences[row["name"]].amount >= least]
    among = f"the best of the {len(far)} least like it" if len(far) > 1 else "the one least like it"
    difference = differences[far[0]["name"]]
    return [first, Pick(far[0], f"{among}: {difference}")]


@dataclass(frozen=True)
class _Difference:
    """How much two submissions differ."""

    amount: float
    of_numbers: bool = False

    def __str__(self) -> str:
        if self.of_numbers:
            return f"their numbers differ by {self.amount:.2g} in the mean"
        return f"{self.amount:.1%} of the test images have other labels"


def _difference(first: str, second: str) -> _Difference:
    """Return how much the answers of two submissions differ. Raise CompError unless both are for the same
    images."""
    tables = [read_table(submission_path(name), []) for name in (first, second)]
    ids = [table.iloc[:, 0].tolist() for table in tables]
    if ids[0] != ids[1] or list(tables[0].columns) != list(tables[1].columns):
        raise CompError(
            f"{submission_path(second)} has other images or columns than {submission_path(first)}; "
            "remove its row from the ledger if it is of another test set"
        )
    cells = [table.iloc[:, 1:].apply(pd.to_numeric, errors="coerce").to_numpy() for table in tables]
    if all(np.isfinite(each).all() and not np.equal(each, np.round(each)).all() for each in cells):
        return _Difference(float(np.abs(cells[0] - cells[1]).mean()), of_numbers=True)
    return _Difference(float((tables[0].to_numpy() != tables[1].to_numpy()).any(1).mean()))
