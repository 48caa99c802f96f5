"""Images that only training sees: external and pseudo-labelled ones; and the network that holds
nothing out."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from comp.artifacts import paths
from comp.artifacts.paths import decision_path, model_path, oof_path
from comp.artifacts.predictions import load, save
from comp.artifacts.stamps import read_stamp
from comp.batches.loader import ConcatCache
from comp.cli.main import main
from comp.config.loading import load_recipe
from comp.data.folds import EXTRA, UNUSED
from comp.data.image_files import resize
from comp.data.manifest import read_training
from comp.decisions.decide import decide
from comp.decisions.metrics import FBeta
from comp.decisions.rule_search import SearchSettings
from comp.decisions.rules import FittedRule
from comp.models.network import load as load_model
from comp.models.network import save as save_model
from comp.training import extra_images
from comp.training.extra_images import append_extras, read_extras
from tests.conftest import TINY, read_by
from tests.pages import content_of

STAGES = ("train", "predict", "blend", "decide")


@pytest.fixture
def tiny(here: Path) -> Path:
    for stage in ("download", "folds"):
        assert main([stage, *read_by(stage, ["tiny.toml"])]) == 0
    return here


@pytest.fixture(scope="module")
def run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in ("download", "folds", *STAGES):
            assert main([stage, *read_by(stage, ["tiny.toml"])]) == 0
    return folder


@pytest.fixture
def finished(here: Path, run_once: Path) -> Path:
    """A working directory in which all stages of the tiny competition are done."""
    shutil.copytree(run_once, here, dirs_exist_ok=True)
    return here


def with_external(here: Path, n: int = 20) -> list[str]:
    """Make external images: copies of test images, in another folder and a table of another form."""
    folder = here / "more" / "jpg"
    folder.mkdir(parents=True)
    solution = pd.read_csv(here / "data/tiny/drawn/solution.csv").head(n)
    for name in solution["image_name"]:
        shutil.copy(here / f"data/tiny/drawn/test-jpg/{name}.jpg", folder / f"x_{name}.jpg")
    table = pd.DataFrame({"name": "x_" + solution["image_name"], "labels": solution["tags"]})
    table["labels"] = table["labels"].str.replace(" ", ";")
    table.to_csv(here / "more" / "labels.csv", index=False)
    line = '{ csv = "more/labels.csv", images = "more/jpg/{id}.jpg", id = "name", column = "labels", '
    return ["--set", "external=" + line + 'separator = ";" }']


def test_external_images_are_learned_and_never_scored(tiny: Path):
    more = with_external(tiny)
    for stage in ("train", "predict"):
        assert main([stage, *read_by(stage, ["tiny.toml", *more, "--folds", "0"])]) == 0
    recipe = load_recipe("tiny.toml", more[1:])
    data, labels, fold_of = read_training(recipe)
    found = read_extras(recipe, [0, 1], data, labels, fold_of)
    rows, folds = append_extras(labels, fold_of, found[0])
    assert [str(i) for i in rows.ids[90:]] == [f"x_test_{i}" for i in range(20)]
    assert (folds[90:] == EXTRA).all() and (folds[:90] == fold_of).all()
    solution = pd.read_csv(tiny / "data/tiny/drawn/solution.csv")["tags"].head(20)
    names = [" ".join(np.array(labels.classes)[row == 1]) for row in rows.targets[90:]]
    assert [sorted(name.split()) for name in names] == [sorted(tags.split()) for tags in solution]
    held_out = load(oof_path("tiny", 0), labels.classes).ids
    assert held_out.tolist() == labels.ids[fold_of == 0].tolist()


def test_a_run_with_other_images_is_another_run(tiny: Path, fails):
    more = with_external(tiny)
    assert main(["train", "tiny.toml", "--folds", "0"]) == 0
    assert "extras" in fails("train", "tiny.toml", "--folds", "0", *more)
    assert main(["train", "tiny.toml", "--folds", "0", *more, "--force"]) == 0
    assert "extras" in fails("predict", "tiny.toml", "--folds", "0")
    (tiny / "more" / "labels.csv").unlink()
    assert "external: no more/labels.csv in ., data/tiny" in fails("predict", "tiny.toml", *more)


def test_caches_of_several_sizes_are_one():
    rng = np.random.default_rng(0)
    small, large = (rng.integers(0, 255, (n, side, side, 4), np.uint8) for n, side in ((5, 8), (3, 16)))
    both = ConcatCache([small, large])
    assert both.shape == (8, 16, 16, 4) and len(both) == 8
    rows = np.array([7, 0, 4, 5, 0])
    wanted = [large[2], resize(small[0], 16), resize(small[4], 16), large[0], resize(small[0], 16)]
    assert np.array_equal(both[rows], wanted)
    assert np.array_equal(both[2:6], [resize(small[k], 16) for k in (2, 3, 4)] + [large[0]])


def test_pseudo_labels_of_a_fold_come_from_what_never_saw_it(finished: Path, fails, capsys):
    student = (finished / "tiny.toml").read_text() + '\n[pseudo]\nrun = "tiny"\nshare = 0.5\n'
    (finished / "student.toml").write_text(student)
    (finished / "lone.toml").write_text(student.replace('run = "tiny"', 'run = "none"'))
    assert "run all stages up to `comp decide` for none" in fails("train", "lone.toml")
    recipe = load_recipe("student.toml")
    data, labels, fold_of = read_training(recipe)
    found = read_extras(recipe, [0, 1], data, labels, fold_of)
    decision = json.loads(decision_path("tiny").read_text())
    for fold in (0, 1):
        (extra,) = found[fold]
        teacher = load(paths.test_path("tiny", fold), labels.classes).probs
        rule = FittedRule.from_json(decision["by_fold"][str(fold)], labels.classes)
        assert np.array_equal(extra.targets, rule.decide(teacher, FBeta(beta=2.0)))
        doubt = -(teacher * np.log(teacher) + (1 - teacher) * np.log(1 - teacher)).sum(1)
        assert extra.used.sum() == 30 and doubt[extra.used].max() <= doubt[~extra.used].min()
        _, folds = append_extras(labels, fold_of, found[fold])
        assert ((folds[90:] == EXTRA) == extra.used).all() and (folds[90:][~extra.used] == UNUSED).all()
    for stage in STAGES:
        assert main([stage, *read_by(stage, ["student.toml"])]) == 0
    assert "90 images, 30 test images\n" in capsys.readouterr().out
    assert len(load(oof_path("student"), labels.classes).ids) == 90
    other = fails("train", "student.toml", "--set", "seed=43", "--set", "name='other'")
    assert "comp folds" in other or "other folds" in other


def test_predict_compares_digests_instead_of_making_pseudo_labels_again(
    finished: Path, fails, capsys, monkeypatch: pytest.MonkeyPatch
):
    student = (finished / "tiny.toml").read_text() + '\n[pseudo]\nrun = "tiny"\nshare = 0.5\n'
    (finished / "student.toml").write_text(student)
    command = ["student.toml", "--folds", "0"]
    for stage in ("train", "predict"):
        assert main([stage, *read_by(stage, [*command])]) == 0
    made: list[str] = []
    make = extra_images._pseudo_label_test_images
    monkeypatch.setattr(
        extra_images, "_pseudo_label_test_images", lambda *args: made.append("again") or make(*args)
    )
    capsys.readouterr()
    assert main(["predict", *command]) == 0
    assert "done already" in capsys.readouterr().out and not made

    path = model_path("student", 0)
    model, spec = load_model(path)
    save_model(path, model, spec, read_stamp(path) or {})  # without the digest
    assert main(["predict", *command]) == 0
    assert "done already" in capsys.readouterr().out and made == ["again"]

    decision = json.loads(decision_path("tiny").read_text())
    decision["by_fold"]["0"]["thresholds"] = dict.fromkeys(decision["thresholds"], 0.999)
    decision_path("tiny").write_text(json.dumps(decision))
    assert "extras" in fails("predict", *command)
    assert main(["train", *command, "--force"]) == 0
    assert main(["predict", *command, "--force"]) == 0
    teacher = load(paths.test_path("tiny", 0), tuple(decision["thresholds"]))
    other = replace(teacher, probs=1 - teacher.probs)
    save(paths.test_path("tiny", 0), other, read_stamp(paths.test_path("tiny", 0)) or {})
    assert "extras" in fails("predict", *command)  # the same stamp, other predictions


def test_a_fold_s_pseudo_labels_do_not_depend_on_its_own_labels(finished: Path):
    """The rule of a fold's teacher is fitted without the fold's rows, and chosen by the others."""
    recipe = load_recipe("tiny.toml")
    _, labels, fold_of = read_training(recipe)
    oof = load(oof_path("tiny"), labels.classes)
    row = {name: i for i, name in enumerate(labels.ids.tolist())}
    at = np.array([row[name] for name in oof.ids.tolist()])
    targets, parts = labels.targets[at], fold_of[at]
    other = targets.copy()
    other[parts == 0] = 1 - other[parts == 0]

    first, second = (
        decide(oof.probs, y, folds=parts, min_labels=1, settings=SearchSettings(n_trials=5))
        for y in (targets, other)
    )
    assert np.array_equal(first.choice.by_fold[0].thresholds, second.choice.by_fold[0].thresholds)
    assert first.choice.by_fold[0].expected == second.choice.by_fold[0].expected


def test_a_network_of_all_images_joins_the_folds(finished: Path, capsys, fails):
    full = ["--set", "full=true"]
    for stage in ("blend", "decide"):  # without the fold that holds nothing out
        (finished / f"runs/tiny/{'oof.npz' if stage == 'blend' else 'decision.json'}").unlink()
    (finished / "runs/tiny/test.npz").unlink()
    for stage in (*STAGES, "submit"):
        assert main([stage, *read_by(stage, ["tiny.toml", *full])]) == 0
    assert "fold 2" in capsys.readouterr().out
    assert "holds no image out" in fails("blend", "tiny.toml", *full, "--folds", "2", "--force")
    runs = finished / "runs/tiny"
    assert (runs / "fold2/model.safetensors").exists() and not (runs / "fold2/oof.npz").exists()
    recipe = load_recipe("tiny.toml")
    _, labels, _ = read_training(recipe)
    parts = [load(paths.test_path("tiny", fold), labels.classes).probs for fold in range(3)]
    assert load(paths.test_path("tiny"), labels.classes).probs == pytest.approx(np.mean(parts, 0), abs=1e-6)
    assert len(load(oof_path("tiny"), labels.classes).ids) == 90
    assert main(["infer", "tiny.toml", *full, "--to", "again.csv"]) == 0
    (written,) = (finished / "submissions").glob("tiny-*.csv")
    assert (finished / "again.csv").read_text() == written.read_text()


MEMBERS = """
[[members]]
backbone = "test_resnet"

[[members]]
name = "small"
backbone = "test_efficientnet"
phases = [{ size = 16, epochs = 1, batch_size = 16 }]
"""


def test_members_are_trained_one_by_one_and_blended(tiny: Path, fails):
    (tiny / "mix.toml").write_text(TINY.replace('name = "tiny"', 'name = "tiny"', 1) + MEMBERS)
    recipe = load_recipe("mix.toml")
    assert [member.name for member in recipe.members] == ["mix-test_resnet", "mix-small"]
    assert recipe.members[1].phases[0].size == 16 and len(recipe.members[0].phases) == 2
    assert [member.ema_decay for member in recipe.members] == [0.9, 0.9]
    for stage in (*STAGES, "submit", "report"):
        assert main([stage, *read_by(stage, ["mix.toml"])]) == 0
    told = content_of(tiny / "runs" / "mix" / "report.html")
    assert {curve["run"] for curve in told["curves"]} == {"mix-test_resnet", "mix-small"}
    assert any(image["maps"] for image in told["images"])
    alone = [load(oof_path(member.name), recipe_classes()).probs for member in recipe.members]
    mixed = load(oof_path("mix"), recipe_classes()).probs
    assert mixed.shape == alone[0].shape and not np.allclose(mixed, alone[0])
    assert len(list((tiny / "submissions").glob("mix-*.csv"))) == 1
    assert "infer takes the recipe of one of them" in fails("infer", "mix.toml")
    assert "two tables" in fails("train", "mix.toml", "--set", "members=[{}]")


def recipe_classes() -> tuple[str, ...]:
    return read_training(load_recipe("tiny.toml"))[1].classes


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ("members = [{ drop_rate = 0.1 }]", "two tables [[members]]"),
        ("members = [{}, {}]", "bad-test_resnet"),
        ("members = [{}, { name = 'b', seed = 3 }]", "members.1.seed differs"),
        ("members = [{}, { name = 'b', backbon = 'x' }]", "unknown key 'members.1.backbon'; did you mean"),
    ],
)
def test_bad_members_are_named(here: Path, fails, members: str, said: str):
    (here / "bad.toml").write_text(members + "\n" + TINY)
    assert said in fails("train", "bad.toml")
