"""`comp decide` on the tables of another program."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import comp
from comp.benchmarks import decisions as bench
from comp.cli.main import main
from comp.decisions.metrics import FBeta
from tests.decisions.test_decisions import planetary

CLASSES = [f"label_{c}" for c in "abcdefgh"]


@pytest.fixture
def tables(here: Path) -> tuple[np.ndarray, np.ndarray]:
    probs, targets = planetary(0, 600)
    ids = [f"image_{i}" for i in range(600)]
    frame = pd.DataFrame(probs.astype(float), columns=CLASSES)
    frame.insert(0, "image", ids)
    frame.to_csv("oof.csv", index=False)
    tags = [" ".join(np.array(CLASSES)[row == 1]) for row in targets]
    shuffled = pd.DataFrame({"image": ids, "tags": tags}).sample(frac=1, random_state=0)
    shuffled.to_csv("tags.csv", index=False)
    columns = pd.DataFrame(targets[:, ::-1], columns=CLASSES[::-1])
    columns.insert(0, "image", ids)
    columns.to_csv("columns.csv", index=False)
    np.savez("oof.npz", probs=probs, ids=ids, classes=CLASSES)
    np.savez("truth.npz", targets=targets, ids=ids)
    return probs, targets


def decision(*arguments: str) -> dict:
    assert main(["decide", *arguments, "--force"]) == 0
    return json.loads(Path("decision.json").read_text())


def test_all_forms_of_a_table_give_the_same_decision(tables, capsys: pytest.CaptureFixture[str]):
    probs, targets = tables
    expected = comp.decide(probs.astype(float), targets)
    for oof in ("oof.csv", "oof.npz"):
        for labels in ("tags.csv", "columns.csv", "truth.npz"):
            found = decision("--probs", oof, "--labels", labels)
            assert found["scores"] == pytest.approx(expected.scores, abs=1e-4)
            assert found["rule"] == expected.rule
    printed = capsys.readouterr().out
    assert printed.count(f"as chosen fold by fold      {expected.scores['cross_fitted']:.4f}") == 6
    assert printed.count(f"\n{expected.rule} * ") == 6
    assert Path("decision.png").read_bytes().startswith(b"\x89PNG")


def test_test_probabilities_are_decided_as_by_the_library(tables):
    probs, targets = tables
    decision("--probs", "oof.csv", "--labels", "tags.csv", "--apply", "oof.npz", "--rule", "shrunk+limits")
    answer = pd.read_csv("decision.csv")
    wanted = comp.decide(probs.astype(float), targets, rule="shrunk+limits").predict(probs.astype(float))
    assert (answer[CLASSES].to_numpy() == wanted).mean() > 0.9999
    assert answer["id"].tolist() == [f"image_{i}" for i in range(600)]


def test_the_csv_has_the_form_of_a_sample_submission(tables, fails, capsys: pytest.CaptureFixture[str]):
    arguments = ["--probs", "oof.csv", "--labels", "tags.csv", "--apply", "oof.csv", "--rule", "global"]
    decision(*arguments)
    plain = pd.read_csv("decision.csv")  # the ids keep their column's name
    assert plain.columns.tolist() == ["image", *CLASSES]
    ids = [f"image_{i}" for i in (7, 3, 599)]
    samples = {
        "tags": pd.DataFrame({"name": ids, "tags": ["label_a, label_b", "", "label_c"]}),
        "index": pd.DataFrame({"Id": ids, "Predicted": ["0|3", "7", "1"]}),
        "columns": pd.DataFrame({"image": ids, **dict.fromkeys(reversed(CLASSES), 0), "none": 1}),
    }
    separators = {"tags": ",", "index": "|"}
    wanted = plain.set_index("image").loc[ids]
    for form, sample in samples.items():
        sample.to_csv("sample.csv", index=False)
        decision(*arguments, "--sample", "sample.csv")
        answer = pd.read_csv("decision.csv", keep_default_na=False)
        assert answer.columns.tolist() == sample.columns.tolist() and answer.iloc[:, 0].tolist() == ids
        if form == "columns":
            assert (answer[CLASSES].to_numpy() == wanted.to_numpy()).all()
            assert (answer["none"] == (wanted.sum(axis=1) == 0).to_numpy()).all()
            continue
        names = [str(c) for c in range(8)] if form == "index" else CLASSES
        texts = [separators[form].join(np.array(names)[row == 1]) for row in wanted.to_numpy()]
        assert answer.iloc[:, 1].tolist() == texts
    files = ("decide", *arguments, "--force")
    pd.DataFrame({"id": ["new"], "tags": [""]}).to_csv("sample.csv", index=False)
    assert "ids without probabilities: 1 (new)" in fails(*files, "--sample", "sample.csv")
    pd.DataFrame({"id": ids, "a": 0, "b": 0}).to_csv("sample.csv", index=False)
    assert "has the columns 3 (id, a, b)" in fails(*files, "--sample", "sample.csv")
    assert "--sample goes with --apply" in fails("decide", *arguments[:4], "--sample", "x", "--force")


def test_macro_and_folds_of_ones_own(tables):
    probs, targets = tables
    folds = pd.DataFrame({"id": [f"image_{i}" for i in range(600)], "fold": np.arange(600) % 3})
    folds.to_csv("folds.csv", index=False)
    arguments = ["--probs", "oof.npz", "--labels", "tags.csv", "--beta", "1", "--average", "macro"]
    found = decision(*arguments, "--fold-file", "folds.csv")
    wanted = comp.decide(
        probs.astype(float), targets, FBeta(beta=1.0, average="macro"), folds=(np.arange(600) % 3).astype(str)
    )
    assert found["scores"] == pytest.approx(wanted.scores)


def test_parquet(tables, fails):
    pd.read_csv("oof.csv").to_csv("oof.parquet", index=False)
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        line = fails("decide", "--probs", "oof.parquet", "--labels", "tags.csv")
        assert "parquet needs pyarrow" in line
        return
    pd.read_csv("oof.csv").to_parquet("oof.parquet", index=False)
    assert decision("--probs", "oof.parquet", "--labels", "tags.csv")["n_rows"] == 600


def test_tables_that_do_not_fit_are_refused_in_words(tables, fails):
    frame = pd.read_csv("tags.csv")
    frame[:-3].to_csv("short.csv", index=False)
    frame.assign(tags="swamp").to_csv("other.csv", index=False)
    pd.read_csv("oof.csv").assign(label_a=3.5).to_csv("logits.csv", index=False)
    pd.concat([pd.read_csv("oof.csv")] * 2).to_csv("twice.csv", index=False)
    Path("decision.json").write_text("{}")
    for arguments, message in (
        (("oof.csv", "short.csv"), "lacks ids of the probabilities: 3 ("),
        (("oof.csv", "other.csv"), "not among the classes of the probabilities: 1 (swamp); the classes are"),
        (("logits.csv", "tags.csv"), "are they logits"),
        (("twice.csv", "tags.csv"), "more than once"),
        (("tags.csv", "tags.csv"), "columns of probabilities are expected"),
        (("none.csv", "tags.csv"), "none.csv: no such file"),
        (("truth.npz", "tags.csv"), "an array `probs` is expected"),
    ):
        line = fails("decide", "--probs", arguments[0], "--labels", arguments[1], "--force")
        assert message in line, line
    assert "--force replaces it" in fails("decide", "--probs", "oof.csv", "--labels", "tags.csv")
    assert "--probs FILE with --labels FILE" in fails("decide")


def test_the_bench_searches_as_it_says(capsys: pytest.CaptureFixture[str]):
    probs, targets = bench.simulate(400, 6)
    assert targets.any(1).all() and probs.min() > 0 and probs.max() < 1
    thresholds = bench.search_grid(probs, targets)
    value = FBeta(beta=2.0, average="samples").score(targets, probs > thresholds)
    for c in range(6):  # its last class is at the best of the grid
        moved = thresholds.copy()
        moved[-1] = c / 10
        assert value >= FBeta(beta=2.0, average="samples").score(targets, probs > moved) - 1e-9


def test_nothing_else_is_overwritten(tables, fails):
    arguments = ["--probs", "oof.csv", "--labels", "tags.csv", "--rule", "global"]
    assert main(["decide", *arguments]) == 0
    before = Path("oof.csv").read_bytes()
    line = fails("decide", *arguments, "--to", "oof.json", "--apply", "oof.csv", "--force")
    assert "oof.csv" in line and "--to" in line and Path("oof.csv").read_bytes() == before
    assert "a name that ends in .json" in fails("decide", *arguments, "--to", "x.csv", "--force")
    Path("decision.json").unlink()
    assert "decision.png is there; --force" in fails("decide", *arguments)
    frame = pd.read_csv("oof.csv")
    frame.assign(label_a=7.0).to_csv("logits.csv", index=False)
    line = fails("decide", *arguments, "--apply", "logits.csv", "--to", "new.json")
    assert "logits.csv holds numbers" in line
    assert not list(Path().glob("new.*"))


def test_labels_in_other_forms(tables):
    probs, targets = tables
    expected = decision("--probs", "oof.csv", "--labels", "tags.csv", "--rule", "global")
    np.savez(
        "turned.npz", targets=targets[:, ::-1], ids=[f"image_{i}" for i in range(600)], classes=CLASSES[::-1]
    )
    columns = pd.read_csv("columns.csv")
    columns.assign(**{name: columns[name].astype(bool) for name in CLASSES}).to_csv("bools.csv", index=False)
    for labels in ("turned.npz", "bools.csv"):
        assert decision("--probs", "oof.csv", "--labels", labels, "--rule", "global") == expected


def test_more_tables_that_do_not_fit(tables, fails):
    probs, targets = tables
    columns = pd.read_csv("columns.csv")
    columns.assign(label_a=columns["label_a"].astype(float).where(columns.index > 3)).to_csv(
        "gap.csv", index=False
    )
    np.savez("others.npz", targets=targets[:, 1:], classes=CLASSES[1:])
    np.savez("two.npz", probs=probs, classes=[*CLASSES[:-1], CLASSES[0]])
    folds = pd.DataFrame({"id": ["image_0", *[f"image_{i}" for i in range(600)]], "fold": 0})
    folds.to_csv("folds.csv", index=False)
    for arguments, message in (
        (("oof.csv", "gap.csv"), "than 0 and 1: 1 (label_a); in line 2, label_a is ''"),
        (("oof.csv", "others.npz"), "has targets (600, 7)"),
        (("two.npz", "tags.csv"), "has a class twice"),
        (("oof.csv", "tags.csv", "--fold-file", "folds.csv"), "more than once"),
        (("oof.csv", "tags.csv", "--exclusive", "label_a,swamp"), "--exclusive names 'swamp'"),
    ):
        line = fails("decide", "--probs", arguments[0], "--labels", arguments[1], *arguments[2:])
        assert message in line, line
    groups = ["--exclusive", "label_a,label_b", "--exclusive", "label_e,label_f,label_g"]
    found = decision("--probs", "oof.csv", "--labels", "tags.csv", "--rule", "shrunk+exclusive", *groups)
    assert found["groups"] == [["label_a", "label_b"], ["label_e", "label_f", "label_g"]]
