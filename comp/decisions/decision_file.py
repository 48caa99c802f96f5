"""The content of decision.json."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from comp.decisions.answer_rules import cuts_by_fold
from comp.decisions.decide import Decision
from comp.decisions.rules import FittedRule


def decision_content(
    decision: Decision,
    classes: Sequence[str],
    parts: np.ndarray,
    *,
    one_fold: bool,
    metric: str,
    stamp: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the content of decision.json. `parts` (N,) str are what the rules were cross-fitted by: the
    folds, or fifths at random where `one_fold` alone was held out."""
    choice, chosen = decision.choice, decision.chosen
    by_part = {
        part: {"rule": name, **fitted.as_json(classes)}
        for part, name, fitted in zip(np.unique(parts).tolist(), choice.rules, choice.by_fold)
    }
    cuts = cuts_by_fold(chosen.by_fold)
    if isinstance(decision.fitted, FittedRule):
        assert cuts is not None
        without: dict[str, Any] = {"thresholds_by_fold": dict(zip(classes, cuts.T.tolist()))}
    else:
        without = {} if cuts is None else {"cut_points_by_fold": cuts.tolist()}
        without["classes"] = list(classes)
    rules = {s.rule: {"cross_fitted": s.cross_fitted, "in_sample": s.in_sample} for s in decision.scored}
    return {
        "rule": decision.rule,
        **decision.fitted.as_json(classes),
        "by_fold": {} if one_fold else by_part,
        **({"by_fifth": by_part} if one_fold else {}),
        **without,
        "metric": metric,
        "scores": {**decision.scores, "rules": rules, "sure": decision.win_probabilities},
        "n_rows": len(parts),
        "stamp": stamp,
    }
