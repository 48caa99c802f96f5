"""Groups of duplicates with what is known of their images: names, labels, likeness."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from comp.artifacts.stamps import digest
from comp.data.duplicates import FoundDuplicates
from comp.data.image_files import ImageSet
from comp.safe_text import escape_cell

MIN_GROUP_LIMIT = 10  # train images


@dataclass(frozen=True)
class ComparedSet:
    """A set of images to be compared with others."""

    images: ImageSet
    sizes: Sequence[int]  # pixels: what training or prediction needs
    targets: np.ndarray | None = None  # (N, C) of 0, 1 and NaN (unknown); None: no labels are known


@dataclass(frozen=True)
class Member:
    """An image that has a duplicate."""

    images: ImageSet
    row: int
    labels: frozenset[str] | None  # None: unknown
    likeness: float

    @property
    def id(self) -> str:
        return str(self.images.ids[self.row])


Group = list[Member]


def fingerprints_of_sets(
    fingerprint: str, train_ids: np.ndarray, test_ids: np.ndarray, extras: Mapping[str, str]
) -> dict[str, str]:
    """Return by name the fingerprint of each set of images: train and test, by that of the competition's
    files, and `extras`, the sets from elsewhere."""
    return {"train": digest(fingerprint, train_ids), "test": digest(fingerprint, test_ids), **extras}


def group_limit(n_train: int) -> int:
    """Return how many train images a group may have, so that folds can be even: a tenth of all, or 10."""
    return max(MIN_GROUP_LIMIT, n_train // 10)


def collect_groups(
    found: FoundDuplicates, sets: Sequence[ComparedSet], classes: Sequence[str]
) -> list[Group]:
    """Return the groups of two images or more, the most urgent first."""
    groups: dict[int, Group] = {}
    start = 0
    for part in sets:
        rows = slice(start, start := start + len(part.images.ids))
        for row in np.flatnonzero(found.likeness[rows]).tolist():
            labels = None
            if part.targets is not None:
                labels = frozenset(classes[c] for c in np.flatnonzero(part.targets[row] == 1).tolist())
            member = Member(part.images, row, labels, float(found.likeness[rows][row]))
            groups.setdefault(int(found.group[rows][row]), []).append(member)
    return sorted(groups.values(), key=lambda group: (-_urgency(group), -len(group)))


def labels_differ(group: Group) -> bool:
    """Return whether images of a group have different labels."""
    return len({member.labels for member in group} - {None}) > 1


def set_names(group: Group) -> tuple[str, ...]:
    """Return the names of the sets that a group's images are in."""
    return tuple(dict.fromkeys(member.images.name for member in group))


def _urgency(group: Group) -> int:
    return 2 * (len(set_names(group)) > 1) + labels_differ(group)


def groups_csv(groups: Sequence[Group]) -> str:
    """Return the table of groups (split, id, group, likeness) as CSV."""
    rows = [
        (member.images.name, escape_cell(member.id), number, f"{member.likeness:.4f}")
        for number, group in enumerate(groups, 1)
        for member in group
    ]
    frame = pd.DataFrame(rows, columns=["split", "id", "group", "likeness"])
    return frame.to_csv(index=False, lineterminator="\n")


def summarize_groups(groups: Sequence[Group], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each combination of sets: each set alone, the first two, and any others that occur."""
    combinations: dict[tuple[str, ...], list[Group]] = {(name,): [] for name in names}
    combinations[tuple(names[:2])] = []
    for group in groups:
        combinations.setdefault(set_names(group), []).append(group)
    return [
        {
            "sets": sets,
            "groups": len(found),
            "images": sum(map(len, found)),
            "labels_differ": sum(map(labels_differ, found)),
        }
        for sets, found in combinations.items()
    ]
