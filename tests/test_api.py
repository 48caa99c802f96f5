"""comp as a library: the run that the stages made, as tables; and decisions with the names of their labels."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import comp
from comp.cli.main import main
from tests.conftest import TINY
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
    assert len(decision.plot().axes) == 8
    with pytest.raises(comp.CompError, match="loaded without the probabilities"):
        loaded.plot()
    with pytest.raises(comp.CompError, match="not \\['a'"):
        loaded.predict(table.iloc[:, ::-1])
    truth = pd.DataFrame(targets, columns=classes).iloc[::-1]  # tables are joined by id
    assert comp.decide(table, truth, rule="shrunk").to_frame().equals(decision.to_frame())


def test_a_run_holds_what_its_stages_made(here: Path, fails):
    (here / "tiny.toml").write_text(TINY.replace("n_folds", 'views = "flip_h"\nn_folds'))
    run = comp.run("tiny.toml")
    assert run.recipe == comp.load_run("tiny").recipe
    pd.testing.assert_index_equal(run.oof.index, run.targets.index)
    assert run.oof.shape == (90, 11) and run.test.shape == (60, 11)
    assert tuple(run.oof.columns) == run.classes == tuple(run.targets.columns)
    assert sorted(run.folds.unique()) == [0, 1] and run.folds.index.equals(run.targets.index)
    assert run.history[["fold", "epoch"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    (row,) = run.ledger.to_dict("records")
    assert row["cross_fitted"] == run.decision.scores["cross_fitted"]
    submitted = pd.read_csv(run.submission, keep_default_na=False).set_index("image_name")["tags"]
    decided = run.decision.predict(run.test)
    assert [" ".join(decided.columns[labels == 1]) for labels in decided.to_numpy()] == submitted.tolist()
    assert run.report().stat().st_size > 100_000 and run.decision.plot().axes
    files = [str(here / f"data/tiny/drawn/test-jpg/{name}.jpg") for name in run.test.index[:3]]
    by_path = run.predict(files)
    assert by_path.index.tolist() == files
    assert by_path.to_numpy() == pytest.approx(run.test[:3].to_numpy(), abs=1e-5)
    arrays = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    assert run.predict(arrays).to_numpy() == pytest.approx(by_path.to_numpy(), abs=0.02)
    assert len(run.predict(files[0])) == len(run.predict(arrays[0])) == 1
    for call, message in (
        (lambda: comp.train("tiny", folds=[2]), "numbers from 0 to 1"),
        (lambda: comp.train("tiny.toml").predict([np.zeros((8, 8))]), "uint8 \\(height, width, 3\\)"),
        (lambda: comp.load_run("tine"), "there are 1 \\(tiny\\)"),
        (lambda: comp.train(comp.load_recipe("tiny.toml", {"mixup": 0.3})), "mixup = 0.0, not 0.3"),
    ):
        with pytest.raises(comp.CompError, match=message):
            call()
    assert "mixup = 0.0, not 0.3" in fails("train", "tiny.toml", "--set", "mixup=0.3")  # frozen by both
    assert main(["decide", "tiny"]) == 0 and comp.decide("tiny").name == "tiny"
