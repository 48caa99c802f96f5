"""comp as a library: its names, and decisions that know the names of their labels."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import comp
from tests.decisions.test_decisions import planetary


def test_the_names_are_listed_and_import_is_instant():
    heavy = (
        "import sys, comp; print([m for m in ('numpy', 'pandas', 'torch', 'pydantic') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True).stdout == "[]\n"
    assert set(dir(comp)) == {*comp.__all__, "__version__"}
    for name in comp.__all__:
        assert getattr(comp, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        comp.trian  # noqa: B018


def test_a_decision_is_saved_whole_and_shows_its_labels(here: Path):
    probs, targets = planetary(0, 300)
    classes = [*"abcdefg", "<h>"]
    decision = comp.decide(probs, targets, classes=classes, rule="shrunk")
    decision.save("decision.json")
    loaded = comp.Decision.load("decision.json")
    assert repr(loaded) == repr(decision) and loaded.scores == decision.scores
    pd.testing.assert_frame_equal(loaded.to_frame(), decision.to_frame())
    pd.testing.assert_frame_equal(loaded.rules, decision.rules)
    assert np.array_equal(loaded.predict(probs), decision.predict(probs))
    table = pd.DataFrame(probs, columns=classes)
    assert np.array_equal(loaded.predict(table).to_numpy(), decision.predict(probs))
    assert "&lt;h&gt;" in decision._repr_html_() and f"{decision.scores['cross_fitted']:.4f}" in repr(
        decision
    )
    assert len(decision.plot().axes) == 2  # thresholds, and what they gain
    with pytest.raises(comp.CompError, match="loaded without the probabilities"):
        loaded.plot()
    with pytest.raises(comp.CompError, match="not \\['a'"):
        loaded.predict(table.iloc[:, ::-1])
    truth = pd.DataFrame(targets, columns=classes).iloc[::-1]  # tables are joined by id
    assert comp.decide(table, truth, rule="shrunk").to_frame().equals(decision.to_frame())
