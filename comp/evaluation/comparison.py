"""Several finished runs beside each other: scores, errors, and what each took."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comp.artifacts.paths import model_path, oof_path
from comp.artifacts.resumable import read_log
from comp.artifacts.schemas import BlendStamp
from comp.artifacts.stamps import read_safetensors_header, read_stamp
from comp.decisions.answer_rules import AS_IS, fit_answer_rule
from comp.decisions.bootstrap import bootstrap
from comp.decisions.class_scores import OwnScores, own_scores
from comp.decisions.metrics import (
    FBeta,
    average_precisions,
    log_losses,
    mean_average_precision,
)
from comp.decisions.resampling import is_fast
from comp.decisions.scorers import RowScorer, Scorer
from comp.evaluation.joined_runs import JoinedRuns

N_RESAMPLES = 4000
MIN_RESAMPLES = 400  # where scoring takes long
MAX_CELLS = 400_000_000  # resampled answers of metrics by column, about half a minute
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # in model files, but not learned


@dataclass(frozen=True)
class Measure:
    """A score of probabilities or numbers (N, C) to which nothing is fitted."""

    name: str
    sign: int  # 1 where a higher score is better, else -1
    score: Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Pair:
    """The plain mean of two runs."""

    first: int
    second: int
    scores: tuple[float, ...]  # by measure
    gains: tuple[float, ...]  # the same minus the better of the two


@dataclass(frozen=True)
class Comparison:
    sign: int  # 1 where a higher score is better, else -1
    values: list[float]  # (M,) scores by the metric of the first run
    resamples: np.ndarray  # (B, M) scores of bootstrap resamples
    precisions: list[np.ndarray]  # of labels: M times (C,) average precisions
    per_class: list[OwnScores]  # M times (C,)
    correlation: np.ndarray  # (M, M) of errors
    measures: list[Measure]
    pairs: list[Pair]


def compare(joined: JoinedRuns) -> Comparison:
    """Return the runs' scores and errors. Answers are scored by the metric of the first run."""
    probs, decisions, targets, scorer = joined.probs, joined.decisions, joined.targets, joined.scorer
    labels, numbers = scorer.answer == "labels", scorer.answer == "numbers"
    measures = measures_of(scorer, targets)
    return Comparison(
        sign=scorer.sign,
        values=[scorer.score(targets, chosen) for chosen in decisions],
        resamples=bootstrap(decisions, targets, scorer, n_resamples=n_resamples(scorer, probs.size)),
        precisions=[average_precisions(p, targets) for p in probs] if labels else [],
        per_class=[own_scores(scorer, targets, chosen) for chosen in decisions],
        correlation=error_correlation(probs, targets, np.nanstd(targets, 0) if numbers else None),
        measures=measures,
        pairs=_pairs(probs, measures),
    )


def n_resamples(scorer: Scorer, n_cells: int) -> int:
    """Return how many resamples of all answers are scored within about half a minute."""
    if isinstance(scorer, FBeta | RowScorer):
        return N_RESAMPLES
    most = MAX_CELLS // n_cells if is_fast(scorer) else MIN_RESAMPLES
    return min(max(most, MIN_RESAMPLES), N_RESAMPLES)


def measures_of(scorer: Scorer, targets: np.ndarray) -> list[Measure]:
    """Return by what the mean of two runs is measured: of labels mAP and log loss, which need no threshold;
    else the metric, of grades with the expected ones, rounded."""
    if scorer.answer == "labels":
        n_known = np.count_nonzero(~np.isnan(targets))

        def mean_ap(probs: np.ndarray) -> float:
            return mean_average_precision(average_precisions(probs, targets))

        return [
            Measure("mAP", 1, mean_ap),
            Measure("log loss", -1, lambda probs: log_losses(probs, targets).sum() / n_known),
        ]
    graded = scorer.answer == "grades"

    def score(probs: np.ndarray) -> float:
        answers = fit_answer_rule("rounded" if graded else AS_IS, probs, targets, scorer).decide(probs)
        return scorer.score(targets, answers)

    return [Measure(f"{scorer.metric}{', rounded' * graded}", scorer.sign, score)]


def error_correlation(
    members: np.ndarray, targets: np.ndarray, spread: np.ndarray | None = None
) -> np.ndarray:
    """Return (M, M) the Pearson correlation of the errors target - probability over all known cells of
    (M, N, C). Errors of numbers are divided by the `spread` (C,) of their targets. The lower the correlation
    of two runs, the more their mean gains."""
    errors = targets - members
    if spread is not None:
        errors = errors / np.where(spread > 0, spread, 1)
    known = ~np.isnan(targets)
    return np.atleast_2d(np.corrcoef(errors.reshape(len(members), -1)[:, known.ravel()]))


def _pairs(probs: np.ndarray, measures: Sequence[Measure]) -> list[Pair]:
    alone = [[measure.score(each) for each in probs] for measure in measures]
    pairs = []
    for a, b in itertools.combinations(range(len(probs)), 2):
        both = (probs[a] + probs[b]) / 2
        scores = tuple(measure.score(both) for measure in measures)
        better = [max((of[a], of[b]), key=lambda s: m.sign * s) for m, of in zip(measures, alone)]
        pairs.append(Pair(a, b, scores, tuple(s - best for s, best in zip(scores, better))))
    return pairs


@dataclass(frozen=True)
class Cost:
    n_networks: int
    n_parameters: int
    seconds: float  # training time, summed over folds
    memory: int  # bytes, the highest of any fold
    rate: float | None  # trained images per second at the last size; None for several recipes


def cost_of(name: str, made: dict[str, Any]) -> Cost:
    """Return what a run took by its logs; a blend took what its members took together."""
    if "how" in made:
        known = {member: read_stamp(oof_path(member), BlendStamp) for member in made["members"]}
        parts = [cost_of(member, stamp) for member, stamp in known.items() if stamp]
        return Cost(
            sum(part.n_networks for part in parts),
            sum(part.n_parameters for part in parts),
            sum(part.seconds for part in parts),
            max((part.memory for part in parts), default=0),
            None,
        )
    rows = [row for fold in made["folds"] for row in read_log(name, fold)]
    models = [path for fold in made["folds"] if (path := model_path(name, fold)).exists()]
    n_parameters = sum(
        math.prod(shape)
        for path in models
        for key, shape in read_safetensors_header(path)[1].items()
        if not key.endswith(BUFFERS)
    )
    last = [row["images_per_second"] for row in rows if row["size"] == rows[-1]["size"]]
    return Cost(
        len(models),
        n_parameters,
        sum(row["seconds"] for row in rows),
        max((row["memory"] for row in rows), default=0),
        len(last) / sum(1 / rate for rate in last) if last else None,
    )
