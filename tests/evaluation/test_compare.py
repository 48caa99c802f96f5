"""Runs beside each other: intervals against loops and known truth, and real runs of a small competition."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import comp.decisions.bootstrap
from comp.cli.main import main
from comp.decisions.bootstrap import bootstrap, interval, share_above
from comp.decisions.metrics import FBeta, log_losses
from comp.evaluation.comparison import error_correlation
from tests.conftest import TINY


def answers(rng: np.random.Generator, n: int, wrong: tuple[float, ...]) -> list[np.ndarray]:
    """Targets (n, 4), and for each share of wrong cells decisions (n, 4)."""
    targets = (rng.random((n, 4)) < [0.6, 0.3, 0.2, 0.1]).astype(np.uint8)
    return [targets, *((targets ^ (rng.random(targets.shape) < share)).astype(np.uint8) for share in wrong)]


@pytest.mark.parametrize(
    "metric",
    [
        {"beta": 2.0, "average": "samples"},
        {"beta": 1.0, "average": "samples", "zero_division": 1.0},
        {"beta": 1.0, "average": "macro"},
        {"beta": 0.5, "average": "micro"},
    ],
    ids=str,
)
def test_the_bootstrap_is_that_of_a_loop_over_resamples(metric: dict):
    targets, *decisions = answers(np.random.default_rng(0), 80, (0.1, 0.2, 0.5))
    found = bootstrap(decisions, targets, FBeta(**metric), n_resamples=40, seed=3)
    for copies, scores in zip(np.random.default_rng(3).poisson(1.0, (40, 80)), found):
        rows = np.repeat(np.arange(80), copies)
        wanted = [FBeta(**metric).score(targets[rows], chosen[rows]) for chosen in decisions]
        assert scores == pytest.approx(wanted, abs=1e-6)


def test_resamples_are_drawn_in_pieces_where_rows_are_many(monkeypatch: pytest.MonkeyPatch):
    targets, chosen = answers(np.random.default_rng(0), 50, (0.2,))
    whole = bootstrap([chosen], targets, FBeta(beta=2, average="samples"), n_resamples=21)
    monkeypatch.setattr(comp.decisions.bootstrap, "CHUNK", 200)
    pieces = bootstrap([chosen], targets, FBeta(beta=2, average="samples"), n_resamples=21)
    assert pieces == pytest.approx(whole)


@pytest.mark.parametrize("average", ["samples", "macro"])
def test_intervals_hold_the_truth_as_often_as_they_say(average: str):
    rng = np.random.default_rng(1)
    everything = answers(rng, 200_000, (0.10, 0.14))
    truth = [FBeta(beta=2, average=average).score(everything[0], chosen) for chosen in everything[1:]]
    held = np.zeros((300, 2), bool)  # the first's score, the difference of both
    for trial in held:
        rows = rng.integers(len(everything[0]), size=250)
        targets, *decisions = (matrix[rows] for matrix in everything)
        resamples = bootstrap(
            decisions, targets, FBeta(beta=2, average=average), n_resamples=300, seed=len(rows)
        )
        alone, gain = interval(resamples[:, 0]), interval(resamples[:, 1] - resamples[:, 0])
        trial[:] = alone[0] <= truth[0] <= alone[1], gain[0] <= truth[1] - truth[0] <= gain[1]
    assert (held.mean(0) > 0.90).all() and (held.mean(0) < 0.985).all(), held.mean(0)


def test_errors_that_are_independent_do_not_correlate():
    rng = np.random.default_rng(0)
    targets = (rng.random((4000, 3)) < 0.5).astype(np.uint8)
    noise = rng.uniform(-0.2, 0.2, (2, 4000, 3))
    members = targets + noise[[0, 0, 1]]  # two that err alike
    assert error_correlation(members, targets) == pytest.approx(
        np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]]), abs=0.03
    )
    assert log_losses(np.full((2, 2), 0.25), np.array([[0, 0], [0, 1]])).mean() / 2 == pytest.approx(
        -(3 * np.log(0.75) + np.log(0.25)) / 4
    )
    assert share_above(np.array([0.1, 0.2, -0.1, 0.0])) == 0.625


# --- real runs ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Beside the run `tiny`: `mixed`, trained with --set alone, `mix`, their blend, `one`, a fold alone."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "tiny.toml").write_text(TINY.replace("n_folds", 'views = "identity"\nn_folds'))
    (folder / "second.toml").write_text('extends = "tiny.toml"\nname = "mixed"\n')
    other = [f"--set={value}" for value in ("name=mixed", "mixup=0.4", "phases.1.lr=1e-3", "views=flip_h")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("COMP_DATA", "COMP_RUNS", "COMP_WEIGHTS"):
            patch.delenv(name, raising=False)
        for stage in ("download", "folds", "train", "predict", "blend", "decide"):
            assert main([stage, "tiny.toml"]) == 0
        for stage in ("train", "predict", "blend", "decide"):
            assert main([stage, "tiny.toml", *other]) == 0
        assert main(["blend", "tiny.toml", "second.toml", "--name", "mix", "--how", "mean"]) == 0
        assert main(["decide", "runs/mix/recipe.toml"]) == 0
        shutil.copytree("runs/tiny/fold0", "runs/one/fold0")
        assert main(["blend", "tiny.toml", "--folds", "0", "--set", "name=one"]) == 0
        yield folder


@pytest.fixture
def there(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of them that may be changed."""
    shutil.copytree(runs, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def compared(*names: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["compare", *names]) == 0
    return capsys.readouterr().out


def row(printed: str, *start: str) -> list[str]:
    """The cells of the first line that begins with these."""
    lines = (line.split() for line in printed.splitlines())
    return next(cells[len(start) :] for cells in lines if cells[: len(start)] == list(start))


def test_runs_are_shown_as_their_files_say_they_were(there: Path, capsys: pytest.CaptureFixture[str]):
    (there / "tiny.toml").write_text("no TOML any more")
    printed = compared("tiny", "mixed", "mix", capsys=capsys)
    assert "90 images that all runs held out" in printed
    assert row(printed, "mixup") == ["0", "0.4"] and row(printed, "phases.1.lr") == ["0.003", "0.001"]
    assert row(printed, "blend", "of") == ["tiny,", "mixed"]
    differs = printed.split("what differs")[1].split("\n\n")[0]
    assert "views" in differs and not re.search("epochs|loss|backbone|name", differs)
    for letter, name in zip("ABC", ("tiny", "mixed", "mix")):
        score = json.loads((there / f"runs/{name}/decision.json").read_text())["scores"]["cross_fitted"]
        assert row(printed.split("\nsamples F2")[1], letter, name)[0] == f"{score:.4f}"
    rows = [
        json.loads(line) for fold in (0, 1) for line in (there / f"runs/tiny/fold{fold}/log.jsonl").open()
    ]
    cost = row(printed.split("\ncost")[1], "A", "tiny")
    assert cost[0] == "2" and cost[3] == f"0:{sum(r['seconds'] for r in rows):02.0f}"
    both = compared("mixed", "tiny", "--to", "both.png", capsys=capsys)
    assert row(both, "A", "+", "B")[0] == row(printed, "A", "+", "B")[0]
    assert max(map(len, printed.splitlines())) <= 100
    number = r"[+-]0\.\d{4}"
    for name, verdict in zip(("mixed", "mix"), printed.splitlines()[-2:]):
        said = re.fullmatch(rf"{name}: {number}, 95 % ({number}) to ({number}): (.+)", verdict)
        assert said
        low, high = float(said[1]), float(said[2])
        sure = "better than tiny" if low > 0 else "worse than tiny" if high < 0 else "no difference"
        assert said[3] == sure
    assert (there / "runs/compare-tiny-mixed-mix.png").stat().st_size > 10_000 and Path("both.png").exists()


def test_the_first_runs_metric_and_todays_labels_score(
    there: Path, capsys: pytest.CaptureFixture[str], fails
):
    assert main(["decide", "tiny.toml", "--set", "competition.metric.beta=1", "--force"]) == 0
    score = json.loads(Path("runs/tiny/decision.json").read_text())["scores"]["cross_fitted"]
    printed = compared("tiny", "mixed", capsys=capsys)
    assert "samples F1 cross-fitted" in printed and f"A tiny   {score:.4f}" in printed
    assert "note: mixed was decided for another metric than tiny" in printed
    assert "is there; --force replaces it" in fails(
        "compare", "tiny", "mixed", "--to", "runs/tiny/decision.png"
    )
    assert "a run's name, as in runs" in fails("compare", "tiny", "tiny/")


def test_rows_are_those_that_all_runs_have(there: Path, capsys: pytest.CaptureFixture[str]):
    printed = compared("tiny", "one", capsys=capsys)
    assert "46 images that all runs held out" in printed and "tiny, 44 more images left out" in printed
    assert "one: no decision.json" in printed and "'shrunk'" in printed
    assert row(printed, "folds") == ["0"] and "+0.0000" in row(
        printed.split("correlation of")[1], "A", "+", "B"
    )


def test_what_a_run_lacks_is_said(there: Path, capsys: pytest.CaptureFixture[str]):
    (there / "runs/mixed/decision.json").unlink()
    started = there / "runs/tiny/fold1/started.json"
    content = json.loads(started.read_text())
    started.write_text(json.dumps({**content, "stamp": {**content["stamp"], "mixup": 0.9}}))
    printed = compared("tiny", "mixed", capsys=capsys)
    assert "mixed: no decision.json" in printed and "'shrunk'" in printed
    assert "tiny: fold 1 was trained or predicted again after `comp blend`" in printed


def test_other_folds_are_noted(there: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["folds", "tiny.toml", "--as", "other", "--set", "seed=7"]) == 0
    shutil.copytree("runs/tiny", "runs/seven")
    from comp.artifacts.stamps import digest
    from comp.config.loading import load_recipe
    from comp.data.manifest import read_training

    _, labels, fold_of = read_training(load_recipe("tiny.toml", ["seed=7"]))
    with np.load("runs/seven/oof.npz") as arrays:
        content = dict(arrays)
    made = {**json.loads(str(content["stamp"])), "fold_of": digest(labels.ids, fold_of)}
    np.savez("runs/seven/oof.npz", **{**content, "stamp": json.dumps(made)})
    for path in Path("runs/seven").glob("fold*/started.json"):
        started = json.loads(path.read_text())
        started["recipe"]["seed"] = 7
        path.write_text(json.dumps(started))
    assert "seven has other folds than tiny" in compared("tiny", "seven", capsys=capsys)


def test_runs_that_do_not_fit_are_refused_in_words(there: Path, fails):
    assert "two runs or more" in fails("compare", "tiny")
    assert "tiny is named twice" in fails("compare", "tiny", "tiny.toml")
    line = fails("compare", "tiny", "absent")
    assert "runs/absent/oof.npz is not there" in line and "mix, mixed, one, tiny" in line
    assert "a name that ends in .png" in fails("compare", "tiny", "mixed", "--to", "here.csv")
    with np.load("runs/mixed/oof.npz") as arrays:
        content = dict(arrays)
    np.savez("runs/mixed/oof.npz", **{**content, "classes": content["classes"][::-1]})
    assert "predictions of other classes" in fails("compare", "tiny", "mixed")
    alone = np.isin(content["ids"], np.load("runs/one/oof.npz")["ids"], invert=True)
    np.savez(
        "runs/mixed/oof.npz", **{**content, "ids": content["ids"][alone], "probs": content["probs"][alone]}
    )
    assert "no image was held out in all of one, mixed" in fails("compare", "one", "mixed")
    np.savez("runs/mixed/oof.npz", **content)
    for path in Path("runs/mixed").glob("fold*/started.json"):
        path.write_text(path.read_text().replace('"name": "tiny"', '"name": "huge"'))
    assert "mixed is of huge, tiny of tiny" in fails("compare", "tiny", "mixed")
