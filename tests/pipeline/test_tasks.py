"""The edges of multi-label: exactly one label an image, and images in which nothing is present."""

import json
import shutil
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, fbeta_score
from torch.nn import functional

import comp
from comp.cli.main import main
from comp.config.competition import Drawn
from comp.config.loading import load_competition, load_recipe
from comp.data.labels import format_tags, parse_tags, read_labels
from comp.data.synthetic.generate import generate_files
from comp.data.synthetic.scenes import WEATHER
from comp.decisions.blending import Blender
from comp.decisions.calibration import logit, sigmoid
from comp.decisions.cross_fitting import CrossFitter
from comp.decisions.decide import decide
from comp.decisions.expected_fbeta import expected_decisions
from comp.decisions.metrics import FBeta, most_probable
from comp.decisions.rule_search import SearchSettings
from comp.decisions.rules import SINGLE_LABEL_RULES, FittedRule
from comp.decisions.single_label import offset_thresholds
from comp.decisions.thresholds import class_thresholds, global_threshold
from comp.errors import CompError
from comp.kaggle.submission_file import check_submission, submission_text
from comp.training.losses import make_loss
from tests.conftest import TINY, read_by, run_all

WEATHERS = tuple(sorted(WEATHER))
COMMON = """
[images]
train = "train-jpg/{id}.jpg"
test = "test-jpg/{id}.jpg"
[submission]
sample = "sample.csv"
solution = "truth.csv"
"""
SINGLE = (
    """
[labels]
csv = "weather.csv"
id = "image_name"
column = "weather"
single = true
"""
    + COMMON
)
NONE = (
    """
[labels]
csv = "seen.csv"
id = "image_name"
column = "seen"
none = "clear sky"
[metric]
beta = 1
zero_division = 1
"""
    + COMMON
)


# --- one label an image -------------------------------------------------------------------------------------


def one_of(seed: int, n: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Softmax probabilities (N, C) of rare and common classes, and one label an image."""
    rng = np.random.default_rng(seed)
    share = np.geomspace(1, 0.03, n_classes) / np.geomspace(1, 0.03, n_classes).sum()
    truth = rng.choice(n_classes, n, p=share)
    logits = 1.5 * np.eye(n_classes)[truth] + rng.normal(0, 1, (n, n_classes)) + np.log(share)
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return np.round(probs, 1) if seed % 3 == 0 else probs, np.eye(n_classes, dtype=np.uint8)[truth]


@pytest.mark.parametrize("n_classes", [2, 5])
def test_the_loss_is_the_cross_entropy_of_torch(n_classes: int):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, n_classes, generator=generator)
    truth = torch.randint(n_classes, (8,), generator=generator)
    hard = functional.one_hot(truth, n_classes).float()
    mixed = torch.lerp(hard.flip(0), hard, 0.3)  # as mixup and cutmix leave them
    weights, groups = torch.linspace(0.5, 1.5, n_classes), [range(n_classes)]
    for smoothing in (0.0, 0.1):
        plain = make_loss("groups", groups=groups, smoothing=smoothing)
        torch.testing.assert_close(
            plain(logits, hard), functional.cross_entropy(logits, truth, label_smoothing=smoothing)
        )
        weighted = make_loss("groups", groups=groups, weights=weights, smoothing=smoothing)
        for targets in (hard, mixed):
            expected = functional.cross_entropy(logits, targets, weights, label_smoothing=smoothing)
            torch.testing.assert_close(weighted(logits, targets), expected)


@given(st.integers(0, 10_000), st.integers(1, 14), st.sampled_from(["macro", "samples"]))
@settings(max_examples=40, deadline=None)
def test_offsets_can_not_be_bettered_one_at_a_time(seed: int, n: int, average: str):
    probs, targets = one_of(seed, n, 3)

    def value(offsets: np.ndarray) -> float:
        decided = FittedRule(sigmoid(-offsets), groups=((0, 1, 2),)).decide(probs, FBeta(beta=1.0))
        return FBeta(beta=1.0, average=average).score(targets, decided)

    found = -logit(offset_thresholds(probs, targets, FBeta(beta=1.0, average=average), sweeps=100), 1e-15)
    assert value(found) >= FBeta(beta=1.0, average=average).score(targets, most_probable(probs)) - 1e-9
    for c in range(3):
        margins = logit(probs, 1e-15) + found
        gaps = np.unique(np.delete(margins, c, 1).max(1) - margins[:, c] + found[c])
        for offset in [-10.0, *((a + b) / 2 for a, b in pairwise(gaps) if b - a > 1e-5), 10.0]:
            moved = found.copy()
            moved[c] = np.clip(offset, -10, 10)
            assert value(found) >= value(moved) - 1e-9


def test_offsets_find_the_classes_that_a_network_was_taught_to_overlook():
    probs, targets = one_of(1, 4000, 4)
    planted = sigmoid(logit(probs) + np.array([2.0, 0.0, 0.0, -2.0]))  # too bold, and too timid
    seen, rest = slice(0, 2000), slice(2000, None)
    thresholds = offset_thresholds(planted[seen], targets[seen], FBeta(beta=1.0, average="samples"))
    decided = FittedRule(thresholds, groups=((0, 1, 2, 3),)).decide(planted[rest], FBeta(beta=1.0))
    best, naive = (
        FBeta(beta=1.0, average="samples").score(targets[rest], most_probable(p[rest]))
        for p in (probs, planted)
    )
    assert FBeta(beta=1.0, average="samples").score(targets[rest], decided) > naive + 0.8 * (best - naive)


@pytest.mark.parametrize("average", ["samples", "macro", "micro"])
def test_every_rule_answers_one_label_and_is_scored_as_scikit_learn_does(average: str):
    probs, targets = one_of(2, 600, 4)
    folds = np.arange(600) % 4
    decision = decide(
        probs,
        targets,
        FBeta(beta=1.0, average=average),
        exclusive=[(0, 1, 2, 3)],
        folds=folds,
        settings=SearchSettings(n_trials=5),
    )
    assert [w.rule for w in decision.scored] == list(SINGLE_LABEL_RULES)
    assert decision.win_probabilities["most-probable"] == 0.5  # the one that others have to beat
    truth = targets.argmax(1)
    for w in decision.scored:
        assert (w.decisions.sum(1) == 1).all()
        answers = w.decisions.argmax(1)
        wanted = (
            f1_score(truth, answers, average="macro")
            if average == "macro"
            else accuracy_score(truth, answers)
        )
        assert w.cross_fitted == pytest.approx(wanted)
    argmax = next(w for w in decision.scored if w.rule == "most-probable")
    assert (argmax.decisions.argmax(1) == probs.argmax(1)).all()
    assert (decision.predict(probs).sum(1) == 1).all()
    if average == "macro":  # rare classes are worth more than they are likely
        assert decision.rule != "most-probable"
        assert decision.scores["cross_fitted"] > argmax.cross_fitted + 0.01


def test_no_fold_is_decided_by_offsets_that_have_seen_it():
    probs, targets = one_of(4, 300, 4)
    folds = np.arange(300) % 3

    def by_fold(targets: np.ndarray) -> list[str]:
        macro, settings = FBeta(1.0, "macro"), SearchSettings(n_trials=4)
        fitter = CrossFitter(probs, targets, folds, macro, groups=[range(4)], settings=settings)
        return [str(f.as_json("abcd")) for rule in SINGLE_LABEL_RULES for f in fitter.score(rule).by_fold]

    before, changed = by_fold(targets), targets.copy()
    changed[folds == 1] = np.roll(changed[folds == 1], 1, axis=1)
    after = by_fold(changed)
    assert before[1::3] == after[1::3] and before[3:] != after[3:]


def test_rules_of_several_labels_are_refused_in_words():
    probs, targets = one_of(0, 60, 3)
    for rule in ("global", "shrunk+limits"):
        with pytest.raises(CompError, match="exactly one label; there are most-probable, shrunk, per-class"):
            comp.decide(probs, targets, exclusive=[(0, 1, 2)], rule=rule)
    with pytest.raises(CompError, match="no rule 'most-probable'; there are 0.5"):
        comp.decide(probs, targets, rule="most-probable")


def test_a_blend_is_weighed_by_its_most_probable_labels():
    probs, targets = one_of(5, 600, 4)
    rng = np.random.default_rng(0)
    noise = rng.dirichlet(np.ones(4), 600)
    members, folds = np.stack([probs, noise]).astype(np.float32), np.arange(600) % 3
    blender = Blender(members, targets, folds, FBeta(1.0), SearchSettings(name="weights"), single=True)
    found = {how: blender.blend(how) for how in ("mean", "greedy")}
    assert found["greedy"].weights is not None and found["greedy"].weights[0] > 0.8
    assert found["greedy"].scored.cross_fitted > found["mean"].scored.cross_fitted + 0.03
    accuracy = (members.mean(0).argmax(1) == targets.argmax(1)).mean()
    assert found["mean"].scored.cross_fitted == pytest.approx(accuracy)


def test_a_text_is_one_label_whatever_is_in_it():
    texts = ["Persian cat", " dog ", "Persian cat"]
    classes, targets = parse_tags(texts, (), None, False, Path("x"))
    assert (classes, targets.tolist()) == (("Persian cat", "dog"), [[1, 0], [0, 1], [1, 0]])
    assert format_tags(targets, classes, None, False) == ["Persian cat", "dog", "Persian cat"]


# --- nothing present ----------------------------------------------------------------------------------------

sparse = st.tuples(st.integers(0, 10_000), st.integers(1, 20), st.sampled_from([0.3, 1.0]))


def sparsely(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Three labels that most images lack."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, 3)) < 0.2).astype(np.uint8)
    probs = np.clip(0.3 * targets + 0.6 * rng.random((n, 3)), 0, 1)
    return np.round(probs, 1) if seed % 2 else probs, targets


@given(sparse)
@settings(deadline=None)
def test_nothing_where_nothing_is_counts_as_scikit_learn_says(case):
    seed, n, _ = case
    probs, targets = sparsely(seed, n)
    decisions = (probs > 0.4).astype(np.uint8)
    for zero in (0, 1):
        expected = fbeta_score(targets, decisions, beta=2, average="samples", zero_division=zero)
        assert FBeta(beta=2, average="samples", zero_division=zero).score(
            targets, decisions
        ) == pytest.approx(expected)


@given(sparse)
@settings(max_examples=40, deadline=None)
def test_thresholds_are_exact_where_nothing_is_an_answer(case):
    seed, n, empty = case
    probs, targets = sparsely(seed, n)
    metric = {"beta": 2.0, "average": "samples", "zero_division": empty}

    def value(thresholds: np.ndarray | float) -> float:
        return FBeta(**metric).score(targets, probs > thresholds)

    def cuts(values: np.ndarray) -> list[float]:
        levels = [0.0, *np.unique(values), 1.0]
        return [*((a + b) / 2 for a, b in pairwise(levels)), 1.0]

    one = global_threshold(probs, targets, FBeta(**metric))
    assert value(one) == pytest.approx(max(map(value, [0.0, *cuts(probs)])), abs=1e-9)
    found = class_thresholds(probs, targets, FBeta(**metric), start=one, sweeps=100)
    assert value(found) >= value(one) - 1e-9
    for c in range(3):
        for cut in [0.0, *cuts(probs[:, c])]:
            moved = found.copy()
            moved[c] = cut
            assert value(found) >= value(moved) - 1e-9


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.4, 1.0]), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_expected_f_beta_answers_nothing_where_enumeration_does(seed: int, empty: float, n_classes: int):
    probs = np.random.default_rng(seed).random((3, n_classes)) ** 2
    truths = np.array(np.meshgrid(*[[0, 1]] * n_classes)).reshape(n_classes, -1).T
    for row, decided in zip(probs, expected_decisions(probs, FBeta(beta=2.0, zero_division=empty))):
        weights = np.prod(np.where(truths == 1, row, 1 - row), axis=1)
        values = {
            tuple(answer): sum(
                w * FBeta(beta=2.0, average="samples", zero_division=empty).score(truth[None], answer[None])
                for truth, w in zip(truths, weights)
            )
            for answer in truths
        }
        assert values[tuple(decided)] == pytest.approx(max(values.values()))


def test_an_answer_of_its_own_is_worth_deciding():
    rng = np.random.default_rng(0)
    targets = (rng.random((3000, 3)) < 0.15).astype(np.uint8)
    probs = sigmoid(2.0 * (2.0 * targets - 1) + rng.normal(0, 1.2, targets.shape) - 1)
    seen, rest = slice(0, 1500), slice(1500, None)
    blind, aware = (
        comp.decide(probs[seen], targets[seen], FBeta(beta=1.0, zero_division=empty)) for empty in (0.0, 1.0)
    )
    scores = [
        FBeta(beta=1.0, average="samples", zero_division=1.0).score(targets[rest], d.predict(probs[rest]))
        for d in (blind, aware)
    ]
    assert scores[1] > scores[0] + 0.05
    assert aware.scores["cross_fitted"] == pytest.approx(scores[1], abs=0.02)
    with pytest.raises(CompError, match="zero_division is "):
        comp.decide(probs, targets, FBeta(average="macro", zero_division=1.0))


def test_the_text_of_nothing_survives_the_round_trip():
    texts = ["No finding", "a b", "", "b"]
    classes, targets = parse_tags(texts, (), " ", False, Path("x"), "No finding")
    assert (classes, targets.tolist()) == (("a", "b"), [[0, 0], [1, 1], [0, 0], [0, 1]])
    assert format_tags(targets, classes, " ", False, "No finding") == ["No finding", "a b", "No finding", "b"]
    assert parse_tags(["-", "1"], ("a", "b"), " ", True, Path("x"), "-")[1].tolist() == [[0, 0], [0, 1]]
    with pytest.raises(CompError, match="'none', which means no label"):
        parse_tags(["none a"], (), " ", False, Path("x"), "none")


# --- what a competition says --------------------------------------------------------------------------------


def test_a_competition_says_what_follows_from_it(here: Path):
    (here / "one.toml").write_text(SINGLE)
    (here / "none.toml").write_text(NONE)
    (here / "macro.toml").write_text(SINGLE + '[metric]\naverage = "macro"\nbeta = 1\n')
    one, none, macro = (load_recipe(f"{name}.toml") for name in ("one", "none", "macro"))
    assert (one.loss, str(one.competition.metric), one.competition.labels.empty) == (
        "groups",
        "accuracy",
        False,
    )
    assert (none.loss, none.competition.labels.empty, none.competition.metric.zero_division) == (
        "bce",
        True,
        1,
    )
    assert (macro.loss, str(macro.competition.metric)) == ("groups", "macro F1")
    assert load_recipe("one.toml", ["loss=focal"]).loss == "focal"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SINGLE.replace("single = true", "single = true\nempty = true"), "labels.single"),
        (SINGLE.replace("single = true", 'exclusive = [["a", "b"]]\nsingle = true'), "labels.exclusive"),
        (SINGLE.replace("single = true", 'none = "a"\nempty = false'), "labels.empty = true"),
        (
            NONE.replace('none = "clear sky"', 'none = "a"\nclasses = ["a", "b"]'),
            "labels.classes",
        ),
        (NONE.replace('none = "clear sky"', ""), "metric.zero_division needs labels.empty"),
        (NONE.replace("beta = 1", 'average = "macro"'), 'metric.zero_division needs average = "samples"'),
        (NONE.replace("beta = 1\nzero_division = 1", 'average = "accuracy"'), "needs labels.single = true"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(here: Path, text: str, message: str):
    (here / "bad.toml").write_text(text)
    with pytest.raises(CompError) as error:
        load_recipe("bad.toml")
    assert message in str(error.value) and "\n" not in str(error.value)


# --- from nothing to a submission ---------------------------------------------------------------------------

N_TEST = 60


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn scenes: their weather alone in weather.csv, and in seen.csv what is in the sky, if anything."""
    folder = tmp_path_factory.mktemp("scenes")
    drawn = Drawn(n_train=150, n_test=N_TEST, size=32, seed=3)
    generate_files(load_competition("demo").model_copy(update={"drawn": drawn}), folder)
    place = folder / "drawn"
    for table, weather, seen in (("train", "weather", "seen"), ("solution", "truth", "truth_seen")):
        frame = pd.read_csv(place / f"{table}.csv")
        tags = frame.pop("tags").str.split()
        frame["weather"] = [next(tag for tag in row if tag in WEATHERS) for row in tags]
        frame.to_csv(place / f"{weather}.csv", index=False)
        frame["seen"] = frame.pop("weather").replace("clear", "clear sky")
        frame.to_csv(place / f"{seen}.csv", index=False)
    return place


def recipe(folder: Path, scenes: Path, competition: str, column: str, settings: str = "") -> list[str]:
    """The competition's files in files/, and own.toml, its recipe; the words that name both."""
    shutil.copytree(scenes, folder / "files")
    if column == "seen":
        shutil.copy(scenes / "truth_seen.csv", folder / "files" / "truth.csv")
    ids = pd.read_csv(scenes / "truth.csv")["image_name"]
    pd.DataFrame({"image_name": ids, column: "haze"}).to_csv(folder / "files" / "sample.csv", index=False)
    (folder / "task.toml").write_text(competition)
    tiny = TINY[: TINY.index("[competition]")] + 'competition = "task.toml"\nviews = "identity"\n'
    phase = "[[phases]]\nsize = 16\nepochs = 14\nlr = 5e-3\nbatch_size = 16\n"
    (folder / "own.toml").write_text(tiny + settings + phase)
    return ["own.toml", "--from", "files"]


def test_one_label_an_image_from_nothing_to_a_submission(
    here: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
):
    settings = 'label_smoothing = 0.05\nclass_weights = "inverse"\nmixup = 0.2\n'
    words = recipe(here, scenes, SINGLE, "weather", settings)
    for stage in ("download", "folds"):
        assert main([stage, *read_by(stage, [*words])]) == 0
    for fold, stage in product("01", ("train", "predict")):  # one at a time, without further processes
        assert main([stage, *read_by(stage, [*words, "--folds", fold])]) == 0
    for stage in ("blend", "decide", "submit"):
        assert main([stage, *read_by(stage, [*words])]) == 0
    printed = capsys.readouterr().out
    assert "as chosen fold by fold" in printed and "accuracy" in printed and "macro F1" in printed
    truth = pd.read_csv("files/weather.csv")["weather"]
    with np.load("runs/own/oof.npz") as arrays:
        probs, ids = arrays["probs"], arrays["ids"].tolist()
    assert probs.sum(1) == pytest.approx(1, abs=1e-5)
    decision = json.loads(Path("runs/own/decision.json").read_text())
    assert list(decision["scores"]["rules"]) == list(SINGLE_LABEL_RULES)
    known = pd.read_csv("files/weather.csv").set_index("image_name")["weather"][ids]
    accuracy = (np.array(WEATHERS)[probs.argmax(1)] == known).mean()
    assert decision["scores"]["rules"]["most-probable"]["cross_fitted"] == pytest.approx(accuracy)
    assert accuracy > truth.value_counts(normalize=True).max() + 0.1
    (path,) = Path("submissions").glob("own-*.csv")
    answer, hidden = pd.read_csv(path), pd.read_csv("files/truth.csv")
    assert list(answer) == ["image_name", "weather"] and set(answer["weather"]) <= set(WEATHERS)
    right = answer.set_index("image_name")["weather"] == hidden.set_index("image_name")["weather"]
    assert right.mean() > hidden["weather"].value_counts(normalize=True).max() + 0.1
    scores = json.loads(path.with_suffix(".json").read_text())["scores"]
    public = (hidden["Usage"] == "Public").to_numpy()
    assert scores["public"] == pytest.approx(right.to_numpy()[public].mean(), abs=1e-6)
    shutil.copytree("runs/own", "runs/other")  # two recipes that agree: so does their blend
    Path("other.toml").write_text('extends = "own.toml"\n')
    assert main(["blend", "own.toml", "other.toml", "--name", "mix", "--how", "greedy"]) == 0
    for stage in ("decide", "submit"):
        assert main([stage, *read_by(stage, ["runs/mix/recipe.toml"])]) == 0
    (mixed,) = Path("submissions").glob("mix-*.csv")
    assert pd.read_csv(mixed)["weather"].isin(WEATHERS).all()


def test_nothing_as_an_answer_from_nothing_to_a_submission(
    here: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
):
    words = recipe(here, scenes, NONE, "seen")
    run_all(*words, "--folds", "0")
    assert "(clear sky)" in capsys.readouterr().out
    (path,) = Path("submissions").glob("own-*.csv")
    answer, hidden = pd.read_csv(path), pd.read_csv("files/truth.csv")
    nothing = answer["seen"] == "clear sky"
    assert 0 < nothing.sum() < N_TEST and answer["seen"].notna().all()
    aligned = hidden.set_index("image_name")["seen"][answer["image_name"]].to_numpy() == "clear sky"
    assert (nothing.to_numpy() == aligned).mean() > max(aligned.mean(), 1 - aligned.mean()) + 0.1
    assert main(["infer", "own.toml", "--folds", "0", "--to", "again.csv"]) == 0
    assert Path("again.csv").read_bytes() == path.read_bytes()


def test_a_column_may_stand_for_nothing(tmp_path: Path):
    (tmp_path / "x.toml").write_text(NONE.replace('column = "seen"\n', ""))
    competition, path = load_competition(str(tmp_path / "x.toml")), tmp_path / "seen.csv"
    path.write_text("image_name,haze,clear sky,cloudy\na,1,0,0\nb,0,1,0\nc,1,0,1\n")
    labels = read_labels(path, competition.labels)
    assert (labels.classes, labels.targets.tolist()) == (("haze", "cloudy"), [[1, 0], [0, 0], [1, 1]])
    text = submission_text(labels.targets, labels.ids, labels.classes, competition, path)
    assert text == path.read_text()  # which serves as the sample as well
    again = check_submission(text, path, competition, labels.classes, labels.ids)
    assert again.tolist() == labels.targets.tolist()
    path.write_text("image_name,haze,clear sky\na,1,1\nb,0,1\nc,0,0\n")
    with pytest.raises(CompError, match=r"clear sky must be 1 where there is no label.* 2 \(a, c\)"):
        read_labels(path, competition.labels)


def test_labels_that_are_not_one_an_image_are_named(here: Path, scenes: Path, fails):
    words = recipe(here, scenes, SINGLE, "weather")
    assert main(["download", *words]) == 0
    table = pd.read_csv("files/weather.csv")
    table.loc[table["image_name"].isin(["train_3", "train_9"]), "weather"] = ""
    table.to_csv("files/weather.csv", index=False)
    line = fails("folds", "own.toml")
    assert "images without exactly one label: 2 (train_3, train_9)" in line and "expects one each" in line


def test_tables_of_one_label_read_well(here: Path, capsys: pytest.CaptureFixture[str]):
    probs, targets = one_of(1, 400, 4)
    names = ["image", *"abcd"]
    ids = [f"image_{i}" for i in range(400)]
    pd.DataFrame(dict(zip(names, [ids, *probs.T]))).to_csv("oof.csv", index=False)
    pd.DataFrame({"image": ids, "tags": [names[1 + c] for c in targets.argmax(1)]}).to_csv(
        "y.csv", index=False
    )
    tables = ["--probs", "oof.csv", "--labels", "y.csv", "--exclusive", "a,b,c,d", "--apply", "oof.csv"]
    assert main(["decide", *tables]) == 0
    printed = capsys.readouterr().out
    assert "oof.csv                 accuracy" in printed and "beats most-probable" in printed
    answer = pd.read_csv("decision.csv")
    assert (answer[names[1:]].sum(axis=1) == 1).all()
    accuracy = (probs.argmax(1) == targets.argmax(1)).mean()
    assert json.loads(Path("decision.json").read_text())["scores"]["default"] == pytest.approx(accuracy)
