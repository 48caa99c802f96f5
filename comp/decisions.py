"""From probabilities to labels: thresholds, how they are fitted, and how honestly they are scored."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from comp.config import Metric
from comp.metrics import fbeta, score


def decide(probs: np.ndarray, thresholds: np.ndarray, *, allow_empty: bool) -> np.ndarray:
    """0/1 matrix (N, C): probabilities above their class's threshold (C,). Where images without labels are
    not allowed, an empty row takes the label that is nearest to its threshold, as a ratio."""
    decisions = (probs > thresholds).astype(np.uint8)
    if not allow_empty:
        empty = np.flatnonzero(~decisions.any(1))
        decisions[empty, np.argmax(probs[empty] / np.maximum(thresholds, 1e-6), axis=1)] = 1
    return decisions


def fit_global(probs: np.ndarray, targets: np.ndarray, metric: Metric) -> np.ndarray:
    """One threshold for all classes, the best of 0.01, 0.02, … 0.99; the middle one of equals."""
    grid = np.arange(1, 100) / 100
    scores = np.array([fbeta(targets, probs > t, beta=metric.beta, average=metric.average) for t in grid])
    best = np.flatnonzero(scores >= scores.max() - 1e-12)
    return np.full(probs.shape[1], grid[best[len(best) // 2]])


def fit_exact(
    probs: np.ndarray, targets: np.ndarray, metric: Metric, start: np.ndarray, sweeps: int = 10
) -> np.ndarray:
    """Per-class thresholds (C,) by exact coordinate ascent from `start` (C,).

    With all other classes fixed, moving the cut through a class's sorted probabilities changes the metric by
    a prefix sum, so the best cut is found exactly; sweeps end when none improves. For "macro" one sweep is
    the optimum."""
    thresholds = start.astype(float)
    chosen, true = probs > thresholds, targets.astype(bool)
    order = np.argsort(-probs, axis=0, kind="stable")
    for _ in range(sweeps):
        improved = False
        for c in range(probs.shape[1]):
            falling = probs[order[:, c], c].astype(float)
            scores = _scores_of_cuts(true, chosen, c, order[:, c], metric)
            scores[1:-1][falling[1:] == falling[:-1]] = -np.inf  # equal probabilities can't be separated
            scores[np.count_nonzero(falling > 0) + 1 :] = -np.inf  # nor can 0 be above a threshold
            k = int(np.argmax(scores))
            if scores[k] > scores[chosen[:, c].sum()] + 1e-12:
                above = falling[k - 1] if k else 1.0
                below = falling[k] if k < len(falling) else 0.0
                thresholds[c] = (above + below) / 2
                chosen[:, c] = probs[:, c] > thresholds[c]
                improved = True
        if not improved:
            break
    return thresholds


def _scores_of_cuts(
    true: np.ndarray, chosen: np.ndarray, c: int, order: np.ndarray, metric: Metric
) -> np.ndarray:
    """(N + 1,): the metric if the first k rows of `order` are given class c, and the other classes stay as
    they are."""
    beta, k = metric.beta, np.arange(len(order) + 1)
    if metric.average == "samples":
        n_true = true.sum(1)
        hits = (true & chosen).sum(1) - (true[:, c] & chosen[:, c])
        n_chosen = chosen.sum(1) - chosen[:, c]
        without = score(hits, n_chosen, n_true, beta)
        gain = score(hits + true[:, c], n_chosen + 1, n_true, beta) - without
        return np.concatenate([[0.0], np.cumsum(gain[order])]) / len(order) + without.mean()
    hits_of_c = np.concatenate([[0], np.cumsum(true[order, c])])
    if metric.average == "macro":
        return score(hits_of_c, k, true[:, c].sum(), beta)
    other_hits = (true & chosen).sum() - (true[:, c] & chosen[:, c]).sum()
    other_chosen = chosen.sum() - chosen[:, c].sum()
    return score(other_hits + hits_of_c, other_chosen + k, true.sum(), beta)


def fit_optuna(
    probs: np.ndarray,
    targets: np.ndarray,
    metric: Metric,
    *,
    n_trials: int,
    seed: int,
    study_path: Path,
    name: str,
) -> np.ndarray:
    """Per-class thresholds (C,) that Optuna's TPE finds, started from the best global threshold and from the
    exact coordinate ascent. The study `name` is kept in the journal file `study_path`, which optuna-dashboard
    opens; a whole one is not done again, and one that was cut off is begun anew."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(study_path)))
    if name in {study.study_name for study in storage.get_all_studies()}:
        study = optuna.load_study(study_name=name, storage=storage)
        if sum(trial.state.is_finished() for trial in study.trials) >= n_trials:
            return np.array([study.best_params[f"t{c}"] for c in range(probs.shape[1])])
        optuna.delete_study(study_name=name, storage=storage)  # cut off; a whole one is the same every time
    sampler = optuna.samplers.TPESampler(seed=seed)
    study = optuna.create_study(study_name=name, storage=storage, direction="maximize", sampler=sampler)
    classes = range(probs.shape[1])
    common = fit_global(probs, targets, metric)
    exact = fit_exact(probs, targets, metric, common)
    for start in (common, exact):
        study.enqueue_trial({f"t{c}": float(start[c]) for c in classes})
    by_class, true = np.ascontiguousarray(probs.T, float), np.ascontiguousarray(targets.T.astype(bool))

    def objective(trial: optuna.Trial) -> float:
        thresholds = np.array([trial.suggest_float(f"t{c}", 0.0, 1.0) for c in classes])
        return _score_by_class(by_class, true, thresholds, metric)

    study.optimize(objective, n_trials=max(n_trials, 2))
    return np.array([study.best_params[f"t{c}"] for c in classes])


def _score_by_class(by_class: np.ndarray, true: np.ndarray, thresholds: np.ndarray, metric: Metric) -> float:
    """The metric of contiguous (C, N) arrays: class after class in small integers, several times as fast as
    by row."""
    chosen = by_class > thresholds[:, None]
    axis, kind = (0, np.int16) if metric.average == "samples" else (1, np.int64)
    hits, n_chosen, n_true = (m.sum(axis, dtype=kind) for m in (chosen & true, chosen, true))
    if metric.average == "micro":
        hits, n_chosen, n_true = hits.sum(), n_chosen.sum(), n_true.sum()
    return float(np.mean(score(hits, n_chosen, n_true, metric.beta)))


def cross_fitted(
    probs: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
    fit: Callable[[np.ndarray, int], np.ndarray],
    allow_empty: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Decisions (N, C) in which each fold is decided with thresholds fitted on all the others, and those
    thresholds (n_folds, C). `fit` is given the mask (N,) of the rows it may see, and the number of the fold
    it may not."""
    decisions = np.zeros(targets.shape, np.uint8)
    fitted = []
    for fold in np.unique(folds):
        held_out = folds == fold
        thresholds = fit(~held_out, int(fold))
        decisions[held_out] = decide(probs[held_out], thresholds, allow_empty=allow_empty)
        fitted.append(thresholds)
    return decisions, np.array(fitted)
