"""Groups of images that stay in one fold: by a column, by a part of the ids, or because they have one
answer."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from comp.config.labels import LabelTable
from comp.errors import CompError, summarize

NO_GROUP_TEXTS = ("", "nan", "none", "null", "n/a", "#n/a", "<na>")  # in lower case
UNGROUPED_PREFIX = " "  # " <id>" is the group of an image without one; no other group begins so


def fold_groups(
    frame: pd.DataFrame, ids: np.ndarray, answer_ids: np.ndarray | None, table: LabelTable, path: Path
) -> np.ndarray | None:
    """Return (N,) str: the group of each image, None if there are none. An image without a group is a group
    of its own. Images of one answer are in one group."""
    if table.group is None and table.group_pattern is None:
        return answer_ids
    texts = [cell.strip() for cell in (ids.tolist() if table.group is None else frame[table.group])]
    if table.group_pattern is not None:
        texts = _matched(texts, table.group_pattern, ids, path)
    groups = np.array(
        [f"{UNGROUPED_PREFIX}{i}" if t.lower() in NO_GROUP_TEXTS else t for t, i in zip(texts, ids.tolist())],
        str,
    )
    return groups if answer_ids is None else join_groups(groups, answer_ids)


def _matched(texts: list[str], pattern: str, ids: np.ndarray, path: Path) -> list[str]:
    """Return what the pattern finds in each text: its group in parentheses, or all. An empty text stays."""
    found = [re.search(pattern, text) if text else None for text in texts]
    if wrong := [i for i, text, match in zip(ids.tolist(), texts, found) if text and match is None]:
        raise CompError(f"{path}: labels.group_pattern = {pattern!r} finds nothing for {summarize(wrong)}")
    return [match[match.re.groups] or "" if match else "" for match in found]


def join_groups(groups: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return (N,) str: groups such that rows with the same value in either are in one, named by the first."""
    first, at = np.unique(groups, return_index=True)[1], np.unique(groups, return_inverse=True)[1]
    other = np.unique(others, return_inverse=True)[1]
    n = len(first)
    graph = coo_array((np.ones(len(at), np.uint8), (at, n + other)), (n + other.max() + 1,) * 2)
    part_of = connected_components(graph, directed=False)[1][at]
    return groups[np.unique(part_of, return_index=True)[1]][np.unique(part_of, return_inverse=True)[1]]
