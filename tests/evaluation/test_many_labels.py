"""What the report keeps small and exact with thousands of labels."""

import numpy as np
import pytest

from comp.decisions import metrics
from comp.decisions.metrics import log_losses
from comp.evaluation import label_errors, report_curves
from comp.evaluation.gallery import MAX_PROBS, listed_probs
from comp.evaluation.label_errors import find_label_errors
from comp.evaluation.report_data import calibration, shown_classes

RNG = np.random.default_rng(0)
TARGETS = (RNG.random((400, 30)) < 0.2).astype(np.uint8)
PROBS = (0.6 * TARGETS + 0.4 * RNG.random((400, 30))).astype(np.float32)
PROBS[:5] = 1 - PROBS[:5]  # wrong labels


def test_tables_show_the_most_frequent_labels_and_the_worst_of_the_others():
    n_images, values = np.arange(300)[::-1], np.linspace(0, 1, 300)[::-1]
    shown = shown_classes(n_images, values)
    assert len(shown) == 100 and shown[:60] == list(range(60))
    assert shown[60:] == list(range(259, 299))  # the last label has no image
    assert shown_classes(n_images[:100], values[:100]) == list(range(100))


def test_what_is_computed_in_parts_is_the_same(monkeypatch: pytest.MonkeyPatch):
    errors, losses = find_label_errors(PROBS, TARGETS), log_losses(PROBS, TARGETS)
    assert len(errors[0]) > 5
    bins = calibration(PROBS, TARGETS)
    for module in (metrics, label_errors, report_curves):
        monkeypatch.setattr(module, "CHUNK", 3000)
    assert all(map(np.array_equal, find_label_errors(PROBS, TARGETS), errors))
    assert np.array_equal(log_losses(PROBS, TARGETS), losses)
    again = calibration(PROBS, TARGETS)
    assert again["error"] == pytest.approx(bins["error"]) and len(again["bins"]) == len(bins["bins"])


def test_an_image_lists_its_labels_and_its_highest_probabilities():
    probs = np.linspace(0.001, 0.9, 500).astype(np.float32)
    labels = np.zeros(500, np.uint8)
    labels[3] = 1
    found = listed_probs(probs, labels)
    assert list(found) == [3, *range(500 - MAX_PROBS, 500)] and found[499] == 0.9
