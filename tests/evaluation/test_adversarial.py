"""Adversarial validation: no shift is found where there is none, a planted one is, and its weights train."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from comp.artifacts.paths import model_path
from comp.artifacts.stamps import read_stamp
from comp.batches.preprocessing import Preprocess
from comp.cli.main import main
from comp.commands.adversarial import rows_of, verdict
from comp.config.loading import load_recipe
from comp.data.manifest import read_training
from comp.data.weight_table import read_weights
from comp.errors import CompError
from comp.evaluation.adversarial import MAX_WEIGHT, effective_number, mean_auc, separate, weights_of
from comp.evaluation.features import read_features, resized_images
from comp.kaggle.kernels.build import collect_training_inputs
from comp.models import network as models
from comp.models.features import pooled_features
from comp.models.heads import FeatureHead, WithFeatures
from tests.conftest import OWN, TINY

CPU = torch.device("cpu")


def drawn(n: int, shift: float = 0.0, *, seed: int, n_features: int = 20) -> np.ndarray:
    """Features (n, F), normal; the first is moved by `shift`."""
    x = np.random.default_rng(seed).normal(size=(n, n_features)).astype(np.float32)
    x[:, 0] += shift
    return x


def separated(shift: float) -> list:
    return [
        separate(drawn(300, seed=k), drawn(200, shift, seed=100 + k), seed=0, where=f"fold {k}")
        for k in range(3)
    ]


def test_without_a_shift_the_interval_holds_a_half_and_weights_are_near_1():
    found = separated(0.0)
    mean, low, high = mean_auc(np.stack([part.aucs for part in found]))
    assert low < 0.5 < high and high - low < 0.2
    weights = weights_of(np.concatenate([part.p_test for part in found]))
    assert effective_number(weights) > 0.95 * len(weights)


def test_a_planted_shift_has_the_auc_of_two_normal_distributions_and_the_weights_of_their_ratio():
    found = separated(1.0)
    mean, low, high = mean_auc(np.stack([part.aucs for part in found]))
    assert low < norm.cdf(1 / np.sqrt(2)) < high and low > 0.6
    x = np.concatenate([drawn(300, seed=k) for k in range(3)])[:, 0].astype(float)
    p_test = np.concatenate([part.p_test for part in found])
    true = np.exp(x - 0.5)
    assert np.corrcoef(np.log(true), np.log(p_test / (1 - p_test)))[0, 1] > 0.85
    weights = weights_of(p_test)
    assert weights.mean() == pytest.approx(1)
    assert abs(np.average(x, weights=weights) - 1.0) < 0.2  # weighted, training images are as test ones
    assert effective_number(weights) == pytest.approx(len(x) * np.exp(-1), rel=0.25)


def test_the_auc_of_each_part_is_that_of_scikit_learn():
    train, test = drawn(60, seed=1), drawn(40, 0.7, seed=2)
    model = make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000)
    )
    parts = StratifiedKFold(5, shuffle=True, random_state=3)
    x, y = np.concatenate([train, test]).astype(float), np.repeat([0, 1], [60, 40])
    expected = cross_val_score(model, x, y, scoring="roc_auc", cv=parts)
    np.testing.assert_allclose(separate(train, test, seed=3, where="here").aucs, expected)


def test_images_of_a_group_are_never_on_both_sides_of_a_split():
    """Groups that look alike, each of one set: by their images alone they are told apart."""
    groups = np.array([f"{i // 10}" for i in range(400)])
    looks = np.random.default_rng(0).normal(size=(40, 20)).astype(np.float32)
    x = drawn(400, seed=0) * 0.1 + looks.repeat(10, 0)
    alone = separate(x[:200], x[200:], seed=0, where="here").aucs
    grouped = separate(x[:200], x[200:], groups, seed=0, where="here").aucs
    assert alone.mean() > 0.7 and mean_auc(grouped[None])[1] < 0.5
    with pytest.raises(CompError, match="fold 1: 200 training and 9 test images; at least 10"):
        separate(x[:200], x[:9], seed=0, where="fold 1")
    with pytest.raises(CompError, match="fold 1: too few groups"):
        separate(x[:200], x[200:], groups.astype("U1"), seed=0, where="fold 1")


def test_weights_are_cut_and_have_a_mean_of_1():
    weights = weights_of(np.array([0.0, 0.5, 2 / 3, 1.0]))
    np.testing.assert_allclose(weights / weights[1], [1 / MAX_WEIGHT, 1, 2, MAX_WEIGHT])
    assert weights.sum() == pytest.approx(4)
    assert effective_number(np.array([1.0, 1, 0, 0])) == 2


def test_only_an_interval_that_is_above_the_limit_is_a_warning():
    assert verdict(0.61, 0.7).startswith("warning")
    assert "a little" in verdict(0.55, 0.65)
    assert "too few" in verdict(0.3, 0.7)
    assert verdict(0.48, 0.55) == "no difference between training and test images is shown"


# --- features


SIDES = {"test_resnet": 32, "test_vit": 160, "own.py:Net": 32}  # pixels; a vit has one size


@pytest.mark.parametrize("backbone", SIDES)
def test_pooled_features_are_what_the_head_reads(backbone: str, here: Path):
    recipe = load_recipe("tiny.toml", ["precision=fp32", "predict_batch_size=16"])
    code = {"own.py": OWN}
    spec = models.ModelSpec(backbone, ("a", "b", "c"), 3, SIDES[backbone], (0.4,) * 3, (0.2,) * 3)
    model = models.create(spec, pretrained=False, code=code).eval()
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    rows, counted = np.arange(19, -1, -1), []
    found = pooled_features(recipe, model, spec, images, rows, CPU, counted.append)
    head = model.head if backbone.startswith("own") else model.get_classifier()
    with torch.no_grad():
        x = Preprocess(spec.mean, spec.std, spec.size)(torch.from_numpy(images[rows]))
        np.testing.assert_allclose(head(torch.from_numpy(found)), model(x), atol=1e-4)
    assert counted == [16, 4] and found.dtype == np.float32
    beside = WithFeatures(model, FeatureHead((0.0,), (1.0,), 3))
    again = pooled_features(recipe, beside, spec, images, rows, CPU, counted.append)
    np.testing.assert_array_equal(found, again)
    with pytest.raises(CompError, match="no linear layer"):
        pooled_features(recipe, nn.Flatten(), spec, images, rows, CPU, counted.append)


# --- the command


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the networks of the tiny competition, hardly trained."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("COMP_DATA", "COMP_RUNS", "COMP_WEIGHTS"):
            patch.delenv(name, raising=False)
        (folder / "tiny.toml").write_text(TINY)
        for stage in ("download", "folds", "train"):
            assert main([stage, "tiny.toml"]) == 0
    return folder


@pytest.fixture
def inside(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(trained)
    return trained / "runs" / "tiny"


def test_every_held_out_image_has_a_weight_and_the_same_command_answers_at_once(
    inside: Path, capsys: pytest.CaptureFixture[str]
):
    capsys.readouterr()
    assert main(["adversarial", "tiny.toml"]) == 0
    first = capsys.readouterr().out
    assert "90 held-out and 60 test images, 2 networks" in first
    assert "0.5 is no difference" in first and "warning" not in first
    frame = pd.read_csv(inside / "adversarial.csv", dtype={"id": str})
    folds = pd.read_csv("folds/tiny-k2-s42.csv", dtype={"id": str})
    merged = frame.merge(folds, on="id", validate="one_to_one")
    assert len(merged) == 90 and (merged["fold_x"] == merged["fold_y"]).all()
    assert frame["weight"].mean() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(frame["weight"], weights_of(frame["p_test"].to_numpy()), rtol=1e-3)
    assert (inside / "adversarial.png").read_bytes().startswith(b"\x89PNG")
    before = (inside / "adversarial.csv").read_bytes()
    assert main(["adversarial", "tiny.toml"]) == 0
    again = capsys.readouterr().out
    assert (
        "done already" in again
        and again.splitlines()[1:] == first[first.index("adversarial: AUC") :].splitlines()
    )
    (inside / "adversarial.json").unlink()
    assert main(["adversarial", "tiny.toml"]) == 0
    assert (inside / "adversarial.csv").read_bytes() == before


def test_brighter_test_images_are_told_apart(inside: Path):
    recipe = load_recipe("tiny.toml")
    data, labels, fold_of = read_training(recipe)
    caches = resized_images(recipe, data, labels, build=True)
    assert caches is not None and caches == resized_images(recipe, data, labels, build=False)
    rows = rows_of(recipe, fold_of, 60, [0, 1])
    assert not set(rows[0][1]) & set(rows[1][1])  # each test image is shown to one network
    brighter = np.load(caches["test"])
    np.save(inside / "brighter.npy", np.clip(brighter.astype(int) + 60, 0, 255).astype(np.uint8))
    found = read_features(recipe, {**caches, "test": inside / "brighter.npy"}, rows, lambda n: None)
    aucs = [separate(of.train, of.test, seed=0, where="here").aucs for of in found]
    assert mean_auc(np.stack(aucs))[1] > 0.8


def test_the_weights_reach_training_and_nothing_else_changes(inside: Path, fails: Callable[..., str]):
    assert main(["adversarial", "tiny.toml"]) == 0
    key = "competition.labels.weight_csv"
    plain, weighted = load_recipe("tiny.toml"), load_recipe("tiny.toml", [f"{key}=runs/tiny/adversarial.csv"])
    assert "weight_csv" not in plain.model_dump_json()
    (_, labels, folds), (_, others, same) = read_training(plain), read_training(weighted)
    frame = pd.read_csv(inside / "adversarial.csv", dtype={"id": str}).set_index("id")
    np.testing.assert_allclose(others.weights, frame.loc[labels.ids, "weight"], rtol=1e-6)
    assert labels.weights is None and labels.fingerprint != others.fingerprint and (folds == same).all()
    command = ["train", "tiny.toml", "--folds", "0", "--as", "weighted"]
    assert main([*command, "--set", f"{key}=runs/tiny/adversarial.csv"]) == 0
    stamps = [read_stamp(model_path(name, 0)) or {} for name in ("tiny", "weighted")]
    assert {name for name in stamps[0] if stamps[0][name] != stamps[1][name]} == {"labels"}
    with pytest.raises(CompError, match="which a kernel doesn't have; train it here"):
        collect_training_inputs(weighted)
    assert "`comp adversarial` writes such a table" in fails(
        *command[:-1], "other", "--set", f"{key}=other.csv"
    )
    assert "both say how much" in fails(
        "show", "tiny.toml", "--set", f"{key}=a.csv", "--set", "competition.labels.weight=w"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,weight\na,1\n", "lacks ids of the labels: 1 .b."),
        ("id,weight\na,1\nb,1\nc,1\n", "has ids that the labels don't have: 1 .c."),
        ("id,weight\na,1\nb,1\nb,1\n", "ids more than once: 1 .b."),
        ("id,weight\na,1\nb,-1\n", "weights below 0"),
        ("id,weight\na,0\nb,0\n", "or only 0"),
        ("id,weight\na,1\nb,nan\n", "a number is expected"),
        ("id,weight\na,1\nb,\n", "a number is expected"),
        ("id,p\na,1\nb,1\n", "no column 'weight'"),
        ("", "it is empty"),
    ],
)
def test_a_table_of_weights_is_understood_or_refused(tmp_path: Path, text: str, said: str):
    path = tmp_path / "weights.csv"
    path.write_text(text)
    with pytest.raises(CompError, match=said):
        read_weights(path, np.array(["a", "b"]))
    path.write_text("weight,id,p\n2,b,x\n0.5,a,x\n")
    assert read_weights(path, np.array(["a", "b"])).tolist() == [0.5, 2.0]


def test_what_it_can_not_do_is_said(inside: Path, fails: Callable[..., str]):
    assert "run `comp train` first" in fails("adversarial", "tiny.toml", "--set", "name=absent")
    members = ["--set", 'members=[{backbone="test_resnet"},{backbone="test_vit"}]']
    assert "is a blend of tiny-test_resnet, tiny-test_vit" in fails("adversarial", "tiny.toml", *members)
    assert "was trained with" in fails("adversarial", "tiny.toml", "--set", "drop_rate=0.5")
