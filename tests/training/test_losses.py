"""Losses agree with their written-out definitions, and gradients with finite differences."""

from pathlib import Path

import numpy as np
import pytest
import torch
from timm.loss import AsymmetricLossMultiLabel

from comp.batches.sampling import epoch_steps, oversampling_repeats
from comp.cli.main import main
from comp.decisions.metrics import FBeta
from comp.errors import CompError
from comp.training.losses import OF_LABELS, OF_ONE_LABEL, class_weights, make_loss
from tests.conftest import read_by

GROUPS = [(0, 1), (3, 4, 5)]
SEVERAL = [name for name in OF_LABELS if name not in OF_ONE_LABEL]  # that need not one label per image
NAMES = [*SEVERAL, "bce+fbeta", "focal+lovasz"]


def batch(n: int = 6, n_classes: int = 7, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, n_classes, generator=generator, dtype=torch.float64) * 2
    return logits, (torch.rand(n, n_classes, generator=generator) < 0.4).double()


def by_hand(name: str, z: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    """The loss element by element, as in the papers."""
    n, n_classes = z.shape
    p = 1 / (1 + np.exp(-z))
    log_p, log_q = np.log(p), np.log(1 - p)
    if name == "bce":
        return float((w * -(y * log_p + (1 - y) * log_q)).mean())
    if name == "focal":
        return float((w * -(y * (1 - p) ** 2 * log_p + (1 - y) * p**2 * log_q)).mean())
    if name == "asymmetric":
        shifted = np.maximum(p - 0.05, 0)
        return float((w * -(y * (1 - p) * log_p + (1 - y) * shifted**4 * np.log(1 - shifted))).mean())
    if name == "fbeta":
        return float(1 - np.mean([5 * (p[i] @ y[i]) / (p[i].sum() + 4 * y[i].sum()) for i in range(n)]))
    if name == "groups":
        columns = []
        for group in map(list, GROUPS):
            soft = np.exp(z[:, group]) / np.exp(z[:, group]).sum(1, keepdims=True)
            n_true = np.maximum(y[:, group].sum(1, keepdims=True), 1e-6)
            columns.append(-(w[group] * y[:, group] / n_true * np.log(soft)).sum(1))
        columns += [w[c] * -(y[:, c] * log_p[:, c] + (1 - y[:, c]) * log_q[:, c]) for c in (2, 6)]
        return float(np.mean(columns))
    total = (
        0.0  # Lovász: sum of sorted errors times the growth of the Jaccard loss (Berman et al., eq. 8 and 9)
    )
    for c in range(n_classes):
        errors = 1 - z[:, c] * (2 * y[:, c] - 1)
        order = np.argsort(-errors)
        before = 0.0
        for k in range(1, n + 1):
            wrong = np.zeros(n, bool)
            wrong[order[:k]] = True
            found = (y[:, c] == 1) & ~wrong  # mispredicted pixels are those of the k largest errors
            jaccard = 1 - found.sum() / max(1e-6, ((y[:, c] == 1) | wrong).sum())
            total += w[c] * max(0, errors[order[k - 1]]) * (jaccard - before)
            before = jaccard
    return total / n_classes


@pytest.mark.parametrize("name", SEVERAL)
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_what_its_definition_says(name: str, weighted: bool):
    logits, targets = batch()
    weights = torch.linspace(0.5, 1.5, 7, dtype=torch.float64) if weighted else None
    found = make_loss(name, groups=GROUPS, weights=weights)(logits, targets)
    w = np.ones(7) if weights is None else weights.numpy()
    assert float(found) == pytest.approx(by_hand(name, logits.numpy(), targets.numpy(), w))


def test_the_asymmetric_one_is_that_of_timm():
    logits, targets = batch()
    found = make_loss("asymmetric")(logits, targets)
    reference = AsymmetricLossMultiLabel(gamma_neg=4, gamma_pos=1, clip=0.05)  # a sum over the classes
    rows = [float(reference(logits[[i]], targets[[i]])) for i in range(len(logits))]  # over rows: by version
    assert float(found) == pytest.approx(np.mean(rows) / 7, rel=1e-4)


def test_a_sum_is_a_sum_and_smoothing_moves_targets():
    logits, targets = batch()
    parts = [make_loss(name)(logits, targets) for name in ("bce", "fbeta")]
    assert float(make_loss("bce+fbeta")(logits, targets)) == pytest.approx(float(sum(parts)))
    smooth = make_loss("bce", smoothing=0.1)(logits, targets)
    assert float(smooth) == pytest.approx(float(make_loss("bce")(logits, targets * 0.9 + 0.05)))


def test_soft_f_beta_of_sure_probabilities_is_f_beta():
    logits, targets = batch(40)
    chosen = (logits > 0).double()
    found = 1 - make_loss("fbeta", beta=2.0)((chosen - 0.5) * 1000, targets)
    truth, decided = targets.numpy().astype(int), chosen.numpy().astype(int)
    assert float(found) == pytest.approx(FBeta(beta=2.0, average="samples").score(truth, decided), abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_differences(name: str):
    logits, targets = batch(5)
    loss = make_loss(name, groups=GROUPS, weights=torch.linspace(0.5, 1.5, 7))
    assert torch.autograd.gradcheck(lambda z: loss(z, targets), (logits.requires_grad_(),), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 60_000.0])
def test_it_is_finite_whatever_the_network_says(name: str, dtype: torch.dtype, scale: float):
    logits, targets = batch(8)
    logits = (logits.sign() * scale).to(dtype).requires_grad_()
    for truth in (targets, torch.zeros_like(targets), torch.ones_like(targets)):
        loss = make_loss(name, groups=GROUPS, smoothing=0.1)(logits, truth.to(dtype))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()


def test_weights_are_those_of_their_formula():
    n = torch.tensor([1000, 100, 10, 0])
    effective = [(1 - 0.999) / (1 - 0.999**k) for k in (1000, 100, 10, 1)]
    assert class_weights("effective", n).tolist() == pytest.approx(list(effective / np.mean(effective)))
    inverse = np.array([1000, 100, 10, 1]) ** -0.5
    assert class_weights("inverse", n).tolist() == pytest.approx(list(inverse / inverse.mean()))
    assert class_weights("none", n) is None


def test_unknown_losses_are_refused():
    with pytest.raises(CompError, match="no loss 'dice'; there are bce, focal"):
        make_loss("bce+dice")
    with pytest.raises(CompError, match="needs labels.exclusive"):
        make_loss("groups")


def test_rare_labels_are_shown_more_often_and_epochs_stay_as_long():
    rng = np.random.default_rng(0)
    targets = (rng.random((4000, 3)) < [0.9, 0.1, 0.004]).astype(np.uint8)
    repeats = oversampling_repeats(targets, 0.1)
    rare = targets[:, 2] == 1
    assert repeats[rare] == pytest.approx(np.sqrt(0.1 / targets[:, 2].mean()))
    assert (repeats[~rare] >= 1).all() and repeats[~rare].max() < 1.1
    shown = np.zeros(4000)
    lengths = set()
    for epoch in range(40):
        steps = epoch_steps(np.arange(4000), 16, (0, epoch), repeats)
        lengths.add((len(steps), len(steps[-1][1])))
        shown += np.bincount(np.concatenate([rows for _, rows in steps]), minlength=4000)
    assert lengths == {(int(repeats.sum()) // 16, 16)}
    assert shown[rare].mean() / 40 == pytest.approx(repeats[rare].mean(), rel=0.03)
    assert shown.min() > 0
    assert oversampling_repeats(targets, 0.0) is None


@pytest.mark.parametrize(
    "settings",
    [
        ["loss='bce+fbeta'", "class_weights='effective'", "label_smoothing=0.05", "mixup=0.4", "cutmix=1.0"],
        ["loss='groups'", "oversample=0.2", "phases.1.loss='groups+fbeta'"],
        ["loss='focal'", "phases.1.loss='lovasz'"],
    ],
)
def test_a_run_with_it_ends_in_a_decision(here: Path, settings: list[str]):
    weather = ("clear", "cloudy", "haze", "partly_cloudy")
    settings = [*settings, f"competition.labels.exclusive=[{list(weather)}]"]
    options = [part for setting in settings for part in ("--set", setting)]
    for stage in ("download", "folds", "train", "predict", "blend", "decide"):
        assert main([stage, *read_by(stage, ["tiny.toml", "--folds", "0", *options])]) == 0
    with np.load(here / "runs/tiny/oof.npz") as arrays:
        probs, classes = arrays["probs"], arrays["classes"].tolist()
    together = np.abs(probs[:, [classes.index(name) for name in weather]].sum(1) - 1).max()
    assert (together < 1e-4) == ("groups" in settings[0])


def test_a_loss_that_is_unknown_is_refused_before_anything_is_trained(here: Path, fails):
    for stage in ("download", "folds"):
        assert main([stage, *read_by(stage, ["tiny.toml"])]) == 0
    assert "no loss 'dice'" in fails("train", "tiny.toml", "--set", "phases.1.loss='dice'")
    assert not list((here / "runs").glob("*/fold*"))
