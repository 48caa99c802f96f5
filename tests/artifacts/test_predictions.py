from pathlib import Path

import numpy as np
import pytest

from comp.artifacts import predictions
from comp.artifacts.predictions import Predictions, load, mean_of_folds, save


def drawn() -> Predictions:
    probs = np.random.default_rng(0).random((50, 4)).astype(np.float32) ** 8
    probs[0] = 0, 1, 1e-9, 1 - 1e-7
    return Predictions(np.array([f"a{i}" for i in range(50)]), tuple("wxyz"), probs)


def test_large_predictions_are_stored_in_16_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = drawn()
    save(tmp_path / "small.npz", given, {})
    assert np.array_equal(load(tmp_path / "small.npz", "wxyz").probs, given.probs)
    monkeypatch.setattr(predictions, "MAX_FLOAT32", 100)
    save(tmp_path / "large.npz", given, {})
    assert np.load(tmp_path / "large.npz")["probs"].dtype == np.float16
    found = load(tmp_path / "large.npz", "wxyz").probs
    assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
    assert (np.abs(found - given.probs) <= np.maximum(given.probs * 2.0**-11, 2.0**-25)).all()


def test_means_of_large_predictions_are_those_of_small_ones(monkeypatch: pytest.MonkeyPatch):
    parts = [np.random.default_rng(i).random((50, 4)).astype(np.float32) for i in range(5)]
    exact = mean_of_folds(parts)
    assert np.array_equal(exact, np.mean(np.float64(parts), 0).astype(np.float32))
    monkeypatch.setattr(predictions, "MAX_FLOAT32", 100)
    kept = [part.copy() for part in parts]
    assert np.abs(mean_of_folds(parts) - exact).max() <= 2e-7
    assert all(map(np.array_equal, parts, kept))
