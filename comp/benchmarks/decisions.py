"""`comp bench decide`: compare threshold searches, and score rules on rows that they were not fitted on. The
data are simulated, with the sizes of three competitions, or tables of the user."""

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from comp.compute.devices import peak_memory
from comp.console import info, size_text, table
from comp.data.tables import read_probs, read_targets
from comp.decisions.calibration import sigmoid
from comp.decisions.decide import decide
from comp.decisions.expected_fbeta import expected_decisions
from comp.decisions.metrics import FBeta
from comp.decisions.rule_search import SearchSettings
from comp.decisions.thresholds import class_thresholds

F2 = FBeta(2.0, "samples")
PLANET, PROTEINS, IMET = (40_479, 17), (31_072, 28), (110_000, 1_103)  # images, classes
N_TEST = 61_191
N_HALVES = 24


def run(*, probs: str | None, labels: str | None, large: bool) -> None:
    info(
        f"bench: {platform.processor() or platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}"
    )
    if probs and labels:
        found = read_probs(Path(probs))
        pair = found.probs.astype(np.float32), read_targets(Path(labels), found.ids, found.classes)
        title = probs
    else:
        pair, title = simulate(*PLANET), "simulated like Planet"
    compare_searches(*pair, title)
    time_other_work()
    score_halves(*pair, title)
    if large:
        time_imet()


def simulate(n: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return simulated probabilities and targets, (n, n_classes) each, of labels from frequent to rare. Use
    them to measure times, not to judge rules."""
    rng = np.random.default_rng(seed)
    share = np.geomspace(0.9, 3.0 / n_classes / 50, n_classes)
    targets = np.zeros((n, n_classes), np.uint8)
    probs = np.zeros((n, n_classes), np.float32)
    for c in range(n_classes):
        targets[:, c] = rng.random(n) < share[c]
        logits = (
            1.7 * (2.0 * targets[:, c] - 1) + rng.normal(0, 1.3, n) + np.log(share[c] / (1 - share[c])) / 2
        )
        probs[:, c] = sigmoid(logits)
    targets[~targets.any(1), 0] = 1
    return probs, targets


def measure_seconds(work: Callable[[], Any], repeats: int = 5) -> tuple[float, Any]:
    """Return (median seconds, last result)."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds)), result


def search_grid(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return thresholds by the popular grid search: start at 0.2, then give each class in turn the best of
    0.00, 0.01, … 0.99."""
    columns, true = np.ascontiguousarray(probs.T), np.ascontiguousarray(targets.T.astype(bool))
    thresholds = np.full(probs.shape[1], 0.2)
    for c in range(probs.shape[1]):
        scores = []
        for step in range(100):
            thresholds[c] = step / 100
            scores.append(F2.score_columns(columns, true, thresholds))
        thresholds[c] = int(np.argmax(scores)) / 100
    return thresholds


def search_tpe(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    columns, true = np.ascontiguousarray(probs.T), np.ascontiguousarray(targets.T.astype(bool))
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))

    def value(trial: optuna.Trial) -> float:
        thresholds = np.array([trial.suggest_float(f"t{c}", 0.0, 1.0) for c in range(len(columns))])
        return F2.score_columns(columns, true, thresholds)

    study.optimize(value, n_trials=500)
    return np.array([study.best_params[f"t{c}"] for c in range(len(columns))])


def compare_searches(probs: np.ndarray, targets: np.ndarray, title: str) -> None:
    info(f"bench: thresholds for samples F2, {len(probs):,} x {probs.shape[1]}, {title}")
    exact, best = measure_seconds(lambda: class_thresholds(probs, targets, F2))
    rows = []
    for name, work, repeats in (
        ("exact coordinate ascent", None, 0),
        ("100-step grid", lambda: search_grid(probs, targets), 1),
        ("Optuna TPE, 500 trials", lambda: search_tpe(probs, targets), 1),
    ):
        seconds, thresholds = (exact, best) if work is None else measure_seconds(work, repeats)
        value = F2.score(targets, probs > thresholds)
        rows.append([name, f"{seconds:.3f} s", f"{seconds / exact:.0f}", f"{value:.5f}"])
    table(["search", "time", "times exact", "in-sample F2"], rows)


def time_other_work() -> None:
    rows = []
    probs, targets = simulate(*PROTEINS)
    seconds, _ = measure_seconds(lambda: class_thresholds(probs, targets, FBeta(1.0, "macro")))
    rows.append([f"exact thresholds, macro F1, {PROTEINS[0]:,} x {PROTEINS[1]}", f"{seconds:.3f} s"])
    probs, targets = simulate(N_TEST, PLANET[1])
    seconds, _ = measure_seconds(lambda: expected_decisions(probs, F2), 3)
    rows.append([f"expected-F2 decoding, {N_TEST:,} x {PLANET[1]}", f"{seconds:.3f} s"])
    seconds, _ = measure_seconds(lambda: decide(probs[: PLANET[0]], targets[: PLANET[0]]), 1)
    rows.append([f"rule auto, complete, {PLANET[0]:,} x {PLANET[1]}", f"{seconds:.3f} s"])
    table(["work", "time"], rows)


def score_halves(probs: np.ndarray, targets: np.ndarray, title: str) -> None:
    """Print scores of rules fitted on one half of the rows and scored on the other."""
    columns: dict[str, list[float]] = {}
    for seed in range(N_HALVES):
        order = np.random.default_rng(seed).permutation(len(probs))
        seen, rest = order[: len(order) // 2], order[len(order) // 2 :]
        decision = decide(probs[seen], targets[seen], settings=SearchSettings(seed=seed))

        def score(decisions: np.ndarray, rest: np.ndarray = rest) -> float:
            return F2.score(targets[rest], decisions)

        held_out = score(decision.predict(probs[rest]))
        grid = score(probs[rest] > search_grid(probs[seen], targets[seen]))
        per_class = next((w for w in decision.scored if w.rule == "per-class"), None)
        found = {"auto": held_out, "100-step grid": grid}
        if per_class:
            found["exact"] = score(per_class.fitted.decide(probs[rest], F2))
        found["auto - grid"] = held_out - grid
        found["auto's cross-fitted - held-out"] = decision.scores["cross_fitted"] - held_out
        for name, value in found.items():
            columns.setdefault(name, []).append(value)
    info(f"bench: samples F2 on the held-out half, {N_HALVES} random splits, {title}")
    rows = [
        [name, f"{np.mean(values):+.5f}", f"{np.std(values):.5f}", f"{min(values):+.5f}"]
        for name, values in columns.items()
    ]
    table(["", "mean", "deviation", "lowest"], rows)


def time_imet() -> None:
    probs, targets = simulate(*IMET)
    seconds, thresholds = measure_seconds(lambda: class_thresholds(probs, targets, F2), 1)
    memory = peak_memory()
    table(
        ["work", "time", "peak memory"],
        [[f"exact thresholds, samples F2, {IMET[0]:,} x {IMET[1]:,}", f"{seconds:.1f} s", size_text(memory)]],
    )
