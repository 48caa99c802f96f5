import json
import shutil
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from scipy.stats import rankdata, spearmanr

from comp import console
from comp.cli.main import main
from comp.decisions.blending import METHODS, Blender, best_blend, fit_blend
from comp.decisions.calibration import logit, sigmoid
from comp.decisions.metrics import FBeta
from comp.decisions.rule_search import SearchSettings
from tests.decisions.test_decisions import planetary

F2, SETTINGS = FBeta(), SearchSettings(name="weights")


@pytest.fixture(scope="module")
def members() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three members that know something of their own each, one that knows nothing, the truth, the folds."""
    probs, targets = planetary(0, 1200)
    rng = np.random.default_rng(0)
    noisy = [sigmoid(logit(probs) + rng.normal(0, 1.5, probs.shape)) for _ in range(3)]
    return np.stack([*noisy, rng.random(probs.shape)]).astype(np.float32), targets, np.arange(1200) % 4


def test_means_are_means(members):
    probs, targets, _ = members
    apply, weights = fit_blend("mean", probs, targets, F2, SETTINGS)
    assert apply(probs) == pytest.approx(probs.mean(0)) and weights == pytest.approx(0.25)
    apply, _ = fit_blend("logits", probs[:2], targets, F2, SETTINGS)
    assert logit(apply(probs[:2])) == pytest.approx(logit(probs[:2]).mean(0), abs=1e-6)


def test_ranks_are_averaged_and_a_member_alone_stays_as_it_is(members):
    probs, targets, _ = members
    apply, _ = fit_blend("ranks", probs[:1], targets, F2, SETTINGS)
    assert apply(probs[:1]) == pytest.approx(probs[0], abs=1e-6)
    apply, weights = fit_blend("ranks", probs, targets, F2, SETTINGS)
    assert weights is not None and 2 <= (weights > 0).sum() <= 3
    ranks = rankdata(probs, axis=1) / (len(targets) + 1)  # the ends 0 and 1 are ranks too
    mean = np.tensordot(weights, ranks, 1)
    for c in range(targets.shape[1]):
        assert spearmanr(apply(probs)[:, c], mean[:, c]).statistic == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("method", ["greedy", "ranks", "weights", "stack"])
def test_what_is_fitted_beats_the_mean_with_a_member_that_knows_nothing(members, method: str):
    probs, targets, folds = members
    blender = Blender(probs, targets, folds, F2, SETTINGS, min_labels=1)
    mean, fitted = blender.blend("mean"), blender.blend(method)
    assert fitted.scored.cross_fitted > mean.scored.cross_fitted + 0.005
    if fitted.weights is not None:
        assert fitted.weights.sum() == pytest.approx(1) and fitted.weights[3] == min(fitted.weights)
    assert best_blend([mean, fitted], targets, F2) is fitted


@pytest.mark.parametrize("method", METHODS)
def test_no_fold_is_blended_by_what_was_fitted_on_it(members, method: str):
    probs, targets, folds = members
    before = Blender(probs, targets, folds, F2, SETTINGS).blend(method).oof
    changed = targets.copy()
    changed[folds == 1] = 1 - changed[folds == 1]
    after = Blender(probs, changed, folds, F2, SETTINGS).blend(method).oof
    assert (before[folds == 1] == after[folds == 1]).all()


@pytest.fixture
def two(here: Path, submitted: Path) -> Path:
    """The tiny recipe, and another one that says nearly the same."""
    shutil.copytree(submitted, here, dirs_exist_ok=True, symlinks=True)
    (here / "other.toml").write_text('extends = "tiny.toml"\n')
    (here / "runs/other").mkdir()
    rng = np.random.default_rng(0)
    for name in ("oof.npz", "test.npz"):
        with np.load(here / "runs/tiny" / name) as arrays:
            content = dict(arrays)
        order = rng.permutation(len(content["ids"]))  # rows are joined by id
        noise = rng.normal(0, 0.5, content["probs"].shape)
        content["probs"] = sigmoid(logit(content["probs"]) + noise).astype(np.float32)[order]
        content["ids"] = content["ids"][order]
        np.savez(here / "runs/other" / name, **content)
    return here


def test_a_blend_of_recipes_goes_on_to_a_submission(
    two: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.0)
    assert main(["blend", "tiny.toml", "other.toml", "--name", "mix"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("blend: mix, tiny, other, 90 held-out images\nblends: 1 of 25, ")
    assert "\nblends: 24 of 25, " in printed and "blends: 26" not in printed
    assert all(method in printed for method in METHODS) and "gain to the mean" in printed
    mix = "runs/mix/recipe.toml"
    for stage in ("decide", "submit"):
        assert main([stage, mix]) == 0
    (path,) = (two / "submissions").glob("mix-*.csv")
    sample = pd.read_csv(two / "files/sample_submission.csv")
    assert pd.read_csv(path)["image_name"].tolist() == sample["image_name"].tolist()
    assert json.loads((two / "runs/mix/decision.json").read_text())["n_rows"] == 90
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(two / "runs/mix/study.log"))
    )
    names = [study.study_name for study in optuna.get_all_study_summaries(storage)]
    assert len([name for name in names if name.startswith("weights ")]) == 3  # all rows, without each fold
    assert main(["blend", "tiny.toml", "other.toml", "--name", "mix"]) == 0
    assert "mix done already" in capsys.readouterr().out
    assert "made with how" in _fails(
        ["blend", "tiny.toml", "other.toml", "--name", "mix", "--how", "mean"], capsys
    )


def test_members_that_do_not_fit_are_refused_in_words(two: Path, fails):
    (two / "folds5.toml").write_text('extends = "tiny.toml"\nn_folds = 5\n')
    shutil.copytree(two / "runs/other", two / "runs/folds5")
    assert "what was held out in one was trained on in the other" in fails(
        "blend", "tiny.toml", "folds5.toml"
    )
    with np.load(two / "runs/other/oof.npz") as arrays:
        content = dict(arrays)
    kept, made = content["stamp"], json.loads(str(content["stamp"]))
    np.savez(two / "runs/other/oof.npz", **{**content, "stamp": json.dumps({**made, "fold_of": "0" * 16})})
    assert "was blended with other folds than now" in fails("blend", "tiny.toml", "other.toml")
    np.savez(two / "runs/other/oof.npz", **{**content, "stamp": kept})
    (two / "empty.toml").write_text('extends = "tiny.toml"\n')
    assert "no predictions of empty" in fails("blend", "tiny.toml", "empty.toml")
    assert "named twice" in fails("blend", "tiny.toml", "tiny.toml")
    assert "a member's name" in fails("blend", "tiny.toml", "other.toml", "--name", "tiny")
    with np.load(two / "runs/other/oof.npz") as arrays:
        content = dict(arrays)
    np.savez(
        two / "runs/other/oof.npz", **{k: v[1:] if k in ("ids", "probs") else v for k, v in content.items()}
    )
    assert "lacks ids: 1 (" in fails("blend", "tiny.toml", "other.toml")
    np.savez(two / "runs/other/oof.npz", **{**content, "classes": content["classes"][::-1]})
    assert "predictions of other classes" in fails("blend", "tiny.toml", "other.toml")


def _fails(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(arguments) == 1
    return capsys.readouterr().err


def test_folds_that_were_replaced_are_noticed(two: Path, fails):
    path = two / "folds/tiny-k2-s42.csv"
    table = pd.read_csv(path)
    table["fold"] = 1 - table["fold"]
    table.to_csv(path, index=False)
    assert "is of other folds than now" in fails("blend", "tiny.toml")
    assert "was blended with other folds" in fails("decide", "tiny.toml", "--force")


def test_another_metric_makes_another_blend(two: Path, fails):
    assert main(["blend", "tiny.toml", "other.toml", "--name", "mix", "--how", "mean"]) == 0
    changed = ["--set", "competition.metric.average=macro"]
    line = fails("blend", "tiny.toml", "other.toml", "--name", "mix", "--how", "mean", *changed)
    assert "was made with metric.average" in line
