"""The images of the report, with heat maps."""

from collections.abc import Sequence
from itertools import chain, zip_longest

import numpy as np


def gallery(
    probs: np.ndarray,
    targets: np.ndarray,
    decisions: np.ndarray,
    losses: np.ndarray,
    suspected: Sequence[int],
    n_most: int,
    seed: int,
) -> np.ndarray:
    """Rows (at most n_most) worth looking at: those with suspected labels; the highest losses and some at
    random, an eighth each; and in turn the worst miss and the worst false alarm of each class, those with
    the most errors first."""
    rng = np.random.default_rng(seed)
    others = [np.argsort(-losses, kind="stable"), rng.permutation(len(probs))]
    chosen = dict.fromkeys([*suspected, *np.ravel([order[: n_most // 8] for order in others]).tolist()])
    queues = []
    missed, alarms = (targets == 1) & (decisions == 0), (targets == 0) & (decisions == 1)
    for wrong, order in ((missed, probs), (alarms, -probs)):
        for c in range(targets.shape[1]):
            rows = np.flatnonzero(wrong[:, c])
            queues.append(rows[np.argsort(order[rows, c], kind="stable")].tolist())
    queues.sort(key=len, reverse=True)
    in_turn = (row for found in zip_longest(*queues) for row in found if row is not None)
    for row in chain(in_turn, others[0].tolist()):
        if len(chosen) >= n_most:
            break
        chosen[row] = None
    return np.array(list(chosen), int)
