"""Losses, networks and scores of grades, numbers, probabilities with unknown cells, and angles."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, roc_auc_score, root_mean_squared_error
from torch.nn import functional

from comp.artifacts.predictions import Predictions
from comp.artifacts.predictions import load as load_predictions
from comp.artifacts.predictions import save as save_predictions
from comp.batches.mixup import MixupCutmix
from comp.batches.rows import RowLayout
from comp.batches.sampling import balanced_rows, epoch_steps, oversampling_repeats
from comp.cli.main import main
from comp.config.loading import load_recipe
from comp.config.metric import Metric
from comp.data.folds import EXTRA
from comp.data.labels import Labels
from comp.errors import CompError
from comp.models import network as models
from comp.models.heads import feature_statistics
from comp.models.inference import predict_views, probabilities
from comp.models.numbers import NumberScale, scale_of
from comp.training.extra_images import ExtraImages, append_extras
from comp.training.log_columns import LogColumns
from comp.training.losses import OF_LABELS, OF_NUMBERS, OF_ONE_LABEL, Answers, make_loss, try_loss
from comp.training.optimizer import head_parameters, parameter_groups
from comp.training.validation import HeldOutScores

N_CLASSES = 4
ONE_GROUP = [range(N_CLASSES)]
UNKNOWN = Answers(unknown=True)
SPEC = models.ModelSpec("test_resnet", ("a", "b", "c", "d"), 3, 32, (0.5,) * 3, (0.2,) * 3)
KNOWN_CELLS = [name for name in OF_LABELS if name not in OF_ONE_LABEL and name != "groups"]


def one_hot(n: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, N_CLASSES, generator=generator, dtype=torch.float64) * 2
    return logits, torch.eye(N_CLASSES, dtype=torch.float64)[
        torch.randint(0, N_CLASSES, (n,), generator=generator)
    ]


# --- losses -------------------------------------------------------------------------------------------------


def test_the_earth_movers_distance_is_that_of_cumulative_distributions():
    logits, targets = one_hot()
    p = logits.softmax(1).numpy()
    by_hand = [((np.cumsum(p[i]) - np.cumsum(targets[i].numpy())) ** 2).sum() for i in range(len(p))]
    assert float(make_loss("emd", groups=ONE_GROUP)(logits, targets)) == pytest.approx(np.mean(by_hand))


def test_a_grade_that_is_further_off_costs_more():
    near, far = (torch.full((1, 5), -9.0).index_fill(1, torch.tensor([grade]), 9.0) for grade in (1, 4))
    loss = make_loss("emd", groups=[range(5)])
    true = torch.eye(5)[:1]
    assert float(loss(near, true)) == pytest.approx(1, abs=1e-3)
    assert float(loss(far, true)) == pytest.approx(4, abs=1e-3)


def test_arcface_moves_the_angle_of_the_true_class():
    logits, targets = one_hot()
    cosine = (logits / 10).clamp(-0.9, 0.9)
    moved = torch.where(targets > 0, torch.cos(cosine.arccos() + 0.3), cosine) * 30
    found = make_loss("arcface", groups=ONE_GROUP)(cosine * 30, targets)
    assert float(found) == pytest.approx(float(functional.cross_entropy(moved, targets.argmax(1))))
    without = make_loss("arcface", groups=ONE_GROUP, answers=Answers(margin=0.0))(cosine * 30, targets)
    plain = make_loss("groups", groups=ONE_GROUP)(cosine * 30, targets)
    assert float(without) == pytest.approx(float(plain))


@pytest.mark.parametrize("name", OF_NUMBERS)
@pytest.mark.parametrize("y_range", [(), (-10.0, 200.0)])
def test_losses_of_numbers_are_torchs_in_deviations_of_the_targets(name: str, y_range):
    logits, _ = one_hot()
    targets = torch.linspace(0, 150, logits.numel(), dtype=torch.float64).view_as(logits)
    scale = replace(scale_of(targets.numpy(), None), y_range=y_range)
    std = torch.tensor(scale.std)
    numbers = scale.numbers(logits)
    if y_range:
        assert ((numbers > -10) & (numbers < 200)).all()
    torchs = {"mse": functional.mse_loss, "mae": functional.l1_loss, "huber": functional.huber_loss}[name]
    found = make_loss(name, answers=Answers(numbers=scale))(logits, targets)
    assert float(found) == pytest.approx(float(torchs(numbers / std, targets / std)), rel=1e-5)


@pytest.mark.parametrize("name", [*OF_ONE_LABEL, *OF_NUMBERS])
def test_gradients_are_those_of_differences(name: str):
    logits, targets = one_hot(5)
    numbers = NumberScale((1.0,) * 4, (2.0,) * 4) if name in OF_NUMBERS else None
    loss = make_loss(name, groups=ONE_GROUP, answers=Answers(numbers=numbers, scale=9.0))
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), (logits.requires_grad_(),), atol=1e-4)


@pytest.mark.parametrize("name", ["bce", "focal", "asymmetric", "mse", "mae", "huber"])
def test_unknown_targets_are_left_out_of_the_mean_and_get_no_gradient(name: str):
    logits, targets = one_hot()
    numbers = NumberScale((0.2,) * 4, (1.5,) * 4) if name in OF_NUMBERS else None
    unknown = torch.rand(targets.shape, generator=torch.Generator().manual_seed(1)) < 0.3
    logits.requires_grad_()
    found = make_loss(name, answers=Answers(unknown=True, numbers=numbers))(
        logits, targets.masked_fill(unknown, torch.nan)
    )
    of_known = make_loss(name, answers=Answers(numbers=numbers and replace(numbers, mean=(0.2,), std=(1.5,))))
    expected = of_known(logits[~unknown][:, None], targets[~unknown][:, None])
    assert found.item() == pytest.approx(expected.item())
    (gradient,) = torch.autograd.grad(found, logits)
    assert (gradient[unknown] == 0).all() and gradient[~unknown].isfinite().all()


@pytest.mark.parametrize("name", ["fbeta", "lovasz"])
def test_losses_of_whole_images_and_batches_do_not_see_unknown_cells(name: str):
    logits, targets = one_hot()
    targets[3, 2] = torch.nan
    loss, values = make_loss(name, answers=UNKNOWN), []
    for value in (-3.0, 4.0):
        changed = logits.clone()
        changed[3, 2] = value
        values.append(float(loss(changed, targets)))
    assert values[0] == values[1]


@pytest.mark.parametrize("name", ["groups", "emd", "arcface"])
def test_images_without_a_known_grade_are_left_out(name: str):
    logits, targets = one_hot()
    targets[4:] = torch.nan
    found = make_loss(name, groups=ONE_GROUP, answers=UNKNOWN)(logits / 9, targets)
    expected = make_loss(name, groups=ONE_GROUP)(logits[:4] / 9, targets[:4])
    assert float(found) == pytest.approx(float(expected))


@pytest.mark.parametrize("name", [n for n in (*OF_LABELS, "mse") if n != "lovasz"])
def test_without_unknown_cells_and_with_equal_weights_losses_are_the_same(name: str):
    logits, targets = one_hot()
    numbers = NumberScale((0.0,) * 4, (1.0,) * 4) if name == "mse" else None
    plain = make_loss(name, groups=ONE_GROUP, answers=Answers(numbers=numbers))
    careful = make_loss(name, groups=ONE_GROUP, answers=Answers(unknown=True, numbers=numbers))
    ones = torch.ones(len(logits), dtype=torch.float64)
    assert float(careful(logits, targets)) == pytest.approx(float(plain(logits, targets)))
    assert float(plain(logits, targets, ones)) == pytest.approx(float(plain(logits, targets)))
    zeros = ones.index_fill(0, torch.arange(6), 0.0)
    assert 2 * float(plain(logits, targets, zeros)) == pytest.approx(float(plain(logits[6:], targets[6:])))


def test_losses_of_another_kind_of_answer_are_refused():
    with pytest.raises(CompError, match=r'loss "mse" is not for labels, which bce, .* suit'):
        make_loss("mse")
    numbers = Answers(numbers=NumberScale((0.0,), (1.0,)))
    with pytest.raises(CompError, match='loss "bce" is not for numbers, which mse, mae, huber suit'):
        make_loss("bce", answers=numbers)
    for groups in ([], [(0, 1), (2, 3)], [(0, 1)]):
        with pytest.raises(CompError, match='loss "emd" needs labels.single = true'):
            try_loss(make_loss("emd", groups=groups), "emd", 4)
    with pytest.raises(CompError, match="arcface stands alone"):
        make_loss("arcface+bce", groups=ONE_GROUP)
    with pytest.raises(CompError, match="lovasz is of a whole batch"):
        make_loss("lovasz", answers=Answers(weighted=True))


def test_a_users_loss_sees_numbers_and_is_weighed_where_it_can_be():
    code = {"own.py": "def loss(logits, targets):\n    return (logits - targets).abs()\n"}
    logits, targets = torch.zeros(4, 1), torch.tensor([[7.0], [5.0], [5.0], [torch.nan]])
    answers = Answers(unknown=True, numbers=NumberScale((5.0,), (3.0,)))
    loss = make_loss("own.py:loss", code=code, answers=answers)
    assert float(loss(logits, targets)) == pytest.approx(2 / 3)
    assert float(loss(logits, targets, torch.tensor([2.0, 1.0, 0.0, 1.0]))) == pytest.approx(4 / 3)
    code["own.py"] = code["own.py"].replace(".abs()", ".abs().mean()")
    with pytest.raises(CompError, match=r"returned \(\) for 4 images and 1 columns; with unknown labels"):
        try_loss(make_loss("own.py:loss", code=code, answers=answers), "own.py:loss", 1)


# --- batches ------------------------------------------------------------------------------------------------


def test_balanced_classes_come_equally_often_and_an_epoch_keeps_its_length():
    rng = np.random.default_rng(0)
    targets = np.eye(3)[rng.choice(3, 900, p=[0.8, 0.18, 0.02])]
    targets[:40] = np.nan
    order, repeats = balanced_rows(targets)
    assert sorted(order.tolist()) == list(range(900))
    shown = np.zeros(900)
    for epoch in range(30):
        steps = epoch_steps(order, 30, (0, epoch), repeats)
        again = epoch_steps(order, 30, (0, epoch), repeats)
        assert len(steps) == 30 and all(np.array_equal(a, b) for (_, a), (_, b) in zip(steps, again))
        rows = np.concatenate([rows for _, rows in steps])
        assert np.abs(targets[rows].sum(0) - 300).max() <= 2
        shown += np.bincount(rows, minlength=900)
    assert shown[:40].sum() == 0 and shown[40:].min() > 0
    binary = np.array([[0.0]] * 90 + [[1.0]] * 10)
    order, repeats = balanced_rows(binary)
    assert repeats[binary[order, 0] == 1] == pytest.approx(5) and repeats.sum() == pytest.approx(100)


def test_unknown_labels_are_no_reason_to_oversample():
    targets = (np.random.default_rng(0).random((500, 3)) < 0.05).astype(np.float32)
    hidden = targets.copy()
    hidden[:250] = np.nan
    repeats = oversampling_repeats(hidden, 0.2)
    assert repeats is not None and (repeats[:250] == 1).all() and repeats[250:].max() > 1


def test_rows_hold_targets_weights_and_features_and_mixup_mixes_them_alike():
    targets = np.array([[0, 1], [1, 0], [1, 1], [0, 0]], np.uint8)
    plain = Labels(np.arange(4).astype(str), ("a", "b"), targets)
    layout = RowLayout.of(plain)
    assert layout.join(plain, np.arange(4)) is targets
    features = np.array([[1.0], [2.0], [np.nan], [4.0]], np.float32)
    labels = replace(plain, weights=np.array([1, 3, 2, 9], np.float32), features=features)
    layout = RowLayout.of(labels)
    rows = torch.from_numpy(layout.join(labels, np.arange(3)))
    found, weights, beside = layout.split(rows)
    assert torch.equal(found, torch.from_numpy(targets).float())
    assert weights is not None and weights.tolist() == [0.5, 1.5, 1.0, 4.5]  # of mean 1 where it trains
    assert beside is not None and np.array_equal(beside.numpy(), features, equal_nan=True)
    x, mixed = MixupCutmix(1.0, 0.0)(torch.zeros(4, 3, 8, 8), rows, 0)
    share = float((mixed[0, 1] - rows[3, 1]) / (rows[0, 1] - rows[3, 1]))
    assert float(mixed[0, 2]) == pytest.approx(share * 0.5 + (1 - share) * 4.5)
    assert mixed[1, 3].isnan() and mixed[2, 3].isnan() and not mixed[0, 3].isnan()


# --- networks -----------------------------------------------------------------------------------------------


def test_numbers_come_back_in_their_unit_and_a_new_head_starts_near_the_mean():
    targets = np.array([[100.0, np.nan], [200.0, 0.001], [300.0, 0.003]])
    scale = scale_of(targets, None)
    assert scale.mean == pytest.approx((200, 0.002)) and scale.std == pytest.approx((81.65, 0.001), rel=1e-3)
    spec = replace(SPEC, classes=("price", "share"), numbers=scale)
    assert probabilities(torch.zeros(1, 2), spec).tolist()[0] == pytest.approx([200, 0.002])
    model = models.create(spec, pretrained=False).eval()
    with torch.inference_mode():
        found = predict_views(model, torch.randn(3, 3, 32, 32), [lambda x: x, lambda x: x.flip(3)], spec)
    assert found.shape == (3, 2) and (found[:, 0] - 200).abs().max() < 400
    assert scale_of(np.ones((3, 1)), (0.0, 2.0)) == NumberScale((1.0,), (1.0,), (0.0, 2.0))


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_networks_of_each_kind_are_saved_and_loaded(tmp_path: Path, backbone: str):
    features = np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0]], np.float32)
    mean, std = feature_statistics(features)
    assert mean == (2.0, 5.0) and std == (1.0, 1.0)
    numbers = NumberScale((1.0,) * 4, (2.0,) * 4, (0.0, 9.0))
    size = 160 if backbone == "test_vit" else 32
    x = torch.randn(2, 3, size, size)
    for change in (
        {"numbers": numbers, "feature_mean": mean, "feature_std": std},
        {"cosine": 30.0, "groups": ((0, 1, 2, 3),)},
        {},
    ):
        spec = replace(SPEC, backbone=backbone, size=size, **change)
        model, path = models.create(spec, pretrained=False).eval(), tmp_path / "model.safetensors"
        models.save(path, model, spec, {})
        assert any(key in path.read_bytes()[:2000].decode("latin-1") for key in models.RARE) == bool(change)
        loaded, found = models.load(path)
        assert found == spec
        beside = torch.tensor([[1.0, 5.0], [torch.nan, torch.nan]]) if spec.feature_mean else None
        with torch.inference_mode():
            own, other = (
                predict_views(net.eval(), x, [lambda x: x], spec, beside) for net in (model, loaded)
            )
        assert torch.equal(own, other)
        recipe = load_recipe("demo", ["layer_decay=0.7", f"backbone={backbone}"])
        grouped = [id(p) for group in parameter_groups(loaded, recipe) for p in group["params"]]
        assert sorted(grouped) == sorted(map(id, loaded.parameters()))
        assert head_parameters(loaded)


def test_unknown_features_count_as_the_mean_and_known_ones_matter():
    spec = replace(SPEC, feature_mean=(2.0, 5.0), feature_std=(1.0, 3.0))
    model, x = models.create(spec, pretrained=False).eval(), torch.randn(1, 3, 32, 32).repeat(4, 1, 1, 1)
    nan = torch.nan
    with torch.inference_mode():
        rows = model(x, torch.tensor([[2.0, 5.0], [nan, nan], [9.0, 5.0], [nan, 5.0]]))
        assert torch.equal(model(x)[1], rows[1])
    assert torch.equal(rows[0], rows[1]) and torch.equal(rows[0], rows[3])
    assert not torch.allclose(rows[0], rows[2])


def test_arcface_needs_a_network_with_one_linear_classifier():
    code = {"own.py": "import torch\ndef Net(**_):\n    return torch.nn.Flatten()\n"}
    spec = replace(SPEC, backbone="own.py:Net", cosine=30.0)
    with pytest.raises(
        CompError, match='loss "arcface" needs a network whose classifier is one linear layer'
    ):
        models.create(spec, pretrained=False, code=code)
    logits = models.create(replace(SPEC, cosine=30.0), pretrained=False).eval()(torch.randn(5, 3, 32, 32))
    assert logits.abs().max() <= 30


# --- scores -------------------------------------------------------------------------------------------------


def recipe_of(*settings: str):
    return load_recipe("demo", ["competition.labels.exclusive=[]", *settings])


def scores_of(recipe, targets: np.ndarray, logits: np.ndarray, single: bool = False, **spec):
    names = tuple("abcd"[: targets.shape[1]])
    scores = HeldOutScores(recipe.competition, names, single)
    answer = scores.of(logits.astype(np.float32), targets, replace(SPEC, classes=names, **spec))
    assert tuple(answer) == scores.columns.keys == tuple(scores.none())
    return answer


def test_the_log_holds_the_metric_itself():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 2))
    targets = (logits + rng.normal(size=(200, 2)) > 0).astype(np.uint8)
    auc = recipe_of("competition.metric={name='roc_auc'}")
    found = scores_of(auc, targets, logits)
    assert found["roc_auc"] == pytest.approx(roc_auc_score(targets, logits))
    hidden = targets.astype(np.float32)
    hidden[:50, 0] = np.nan
    found = scores_of(auc, hidden, logits)
    each = [roc_auc_score(targets[50:, 0], logits[50:, 0]), roc_auc_score(targets[:, 1], logits[:, 1])]
    assert found["roc_auc"] == pytest.approx(np.mean(each)) and found["valid_loss"] < 1
    assert scores_of(auc, np.zeros((5, 2), np.uint8), logits[:5])["roc_auc"] is None

    numbers = 20 + 10 * logits + rng.normal(size=(200, 2))
    rmse = recipe_of("competition.metric={name='rmse'}")
    scale = scale_of(numbers, None)
    given = (20 + 10 * logits - scale.mean) / scale.std
    found = scores_of(rmse, numbers.astype(np.float32), given, numbers=scale)
    errors = [root_mean_squared_error(a, b) for a, b in zip(numbers.T, 20 + 10 * logits.T)]
    assert found["rmse"] == pytest.approx(np.mean(errors), rel=1e-4) and list(found) == ["valid_loss", "rmse"]

    classes = "competition.labels.classes=['a','b','c','d']"
    single = (classes, "competition.labels.single=true")
    kappa = recipe_of(*single, "competition.metric={name='quadratic_kappa'}")
    grades = rng.integers(0, 4, 200)
    given = -((np.arange(4) - grades[:, None] - rng.normal(size=(200, 1))) ** 2)
    found = scores_of(kappa, np.eye(4, dtype=np.uint8)[grades], given, True, groups=((0, 1, 2, 3),))
    p = np.exp(given) / np.exp(given).sum(1, keepdims=True)
    rounded = np.rint(p @ np.arange(4)).astype(int)
    assert found["quadratic_kappa"] == pytest.approx(cohen_kappa_score(grades, rounded, weights="quadratic"))


def test_f_beta_leaves_unknown_cells_out():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(300, 3))
    targets = (logits + rng.normal(size=(300, 3)) > 0).astype(np.float32)
    fbeta = recipe_of("competition.metric.average='macro'")
    whole = scores_of(fbeta, targets.astype(np.uint8), logits)
    assert scores_of(fbeta, targets, logits) == pytest.approx(whole)
    doubled = np.concatenate([targets, np.full_like(targets, np.nan)]), np.concatenate([logits, logits[::-1]])
    assert scores_of(fbeta, *doubled) == pytest.approx(whole)


def test_trials_are_compared_by_map_of_labels_and_else_by_the_metric_and_its_direction():
    def tuned(**keys):
        columns = LogColumns.of(Metric(**keys), single=False)
        return columns.tuned, columns.sign

    assert tuned() == tuned(name="balanced_accuracy") == ("mAP", 1)
    assert tuned(name="roc_auc") == ("roc_auc", 1)
    assert tuned(name="log_loss") == ("log_loss", -1)
    assert tuned(name="own.py:score", answer="numbers", greater_is_better=False) == ("score", -1)


# --- data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "title"), [("grades", "quadratic kappa"), ("number", "RMSE")])
def test_drawn_competitions_of_other_answers_are_trained_and_predicted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, title: str
):
    monkeypatch.chdir(tmp_path)
    short = ["phases=[{size=32,epochs=2,lr=4e-3,batch_size=16}]", "n_folds=2", "views=['identity']"]
    settings = [*short, "competition.drawn.n_train=60", "competition.drawn.n_test=50"]
    options = [part for setting in settings for part in ("--set", setting)]
    for stage in ("download", "folds", "train", "predict", "blend"):
        assert main([stage, f"demo-{kind}", *options]) == 0
    assert f"valid  {title:>8}  images/s" in capsys.readouterr().out
    classes = tuple("01234") if kind == "grades" else ("water",)
    oof = load_predictions(tmp_path / f"runs/demo-{kind}/oof.npz", classes)
    if kind == "grades":
        assert oof.probs.sum(1) == pytest.approx(1, abs=1e-5)
    else:
        assert oof.numbers and oof.probs.min() >= -5 and 20 < oof.probs.mean() < 70 and oof.probs.max() <= 105


def test_numbers_are_kept_as_they_are_and_probabilities_must_be_between_0_and_1(tmp_path: Path):
    path, ids = tmp_path / "oof.npz", np.array(["a", "b"])
    save_predictions(path, Predictions(ids, ("x",), np.array([[-3.0], [250.0]]), numbers=True), {})
    found = load_predictions(path, ("x",))
    assert found.numbers and found.probs.tolist() == [[-3.0], [250.0]]
    save_predictions(path, Predictions(ids, ("x",), np.array([[-3.0], [250.0]])), {})
    with pytest.raises(CompError, match="outside of 0 to 1"):
        load_predictions(path, ("x",))


def test_extra_images_have_the_mean_weight_and_unknown_features():
    labels = Labels(
        np.array(["a", "b"]), ("x",), np.array([[1], [0]], np.uint8),
        weights=np.array([1, 3], np.float32), features=np.array([[5.0], [6.0]], np.float32),
    )  # fmt: skip
    soft = np.array([[0.25]], np.float32)
    extra = ExtraImages(None, soft, np.ones(1, bool), "")  # type: ignore[arg-type]
    object.__setattr__(extra, "images", type("Set", (), {"ids": np.array(["c"]), "name": "test"}))
    joined, fold_of = append_extras(labels, np.array([0, 1]), [extra])
    assert joined.targets.tolist() == [[1], [0], [0.25]] and fold_of.tolist() == [0, 1, EXTRA]
    assert joined.weights is not None and joined.weights.tolist() == [1, 3, 2]
    assert joined.features is not None and np.isnan(joined.features[2]).all()


def test_keys_for_another_kind_of_answer_are_refused():
    rmse = "competition.metric={name='rmse'}"
    for settings, line in (
        (["y_range=[0,1]"], "y_range is for numbers"),
        ([rmse, "y_range=[1,0]"], "low below high is expected"),
        ([rmse, "oversample=0.1"], "oversample is for labels; RMSE scores numbers"),
        ([rmse, "label_smoothing=0.1"], "label_smoothing is for labels"),
        (["balanced=true"], "balanced needs exactly one label per image"),
        (["competition.labels.single=true", "balanced=true", "oversample=0.1"], "exclude each other"),
    ):
        with pytest.raises(CompError, match=line):
            recipe_of(*settings)
    assert recipe_of(rmse).loss == "mse"
    graded = ("competition.labels.single=true", "competition.metric={name='quadratic_kappa'}")
    assert recipe_of(*graded).loss == "emd"
