"""Code of one's own, as notebooks/own-code.md shows it: trained, killed, resumed and predicted; its stamps
and errors."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from comp.artifacts.stamps import read_arrays, read_stamp
from comp.batches.augmentation import training_transform
from comp.batches.loader import CachedDataset, DeviceLoader
from comp.batches.view_names import stamped_views
from comp.cli.main import main
from comp.compute.devices import Device
from comp.compute.jobs import call
from comp.config.augment import Augment
from comp.config.loading import load_recipe, toml_text
from comp.deadline import NEVER
from comp.decisions.decide import decide
from comp.decisions.decision_stamp import decision_settings
from comp.decisions.rule_search import SearchSettings
from comp.decisions.scorers import make_scorer
from comp.errors import CompError
from comp.models import network as models
from comp.training.losses import make_loss
from comp.training.model_stamp import stamped_settings
from tests.decisions.test_decisions import planetary

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "notebooks" / "own-code.md").read_text(encoding="utf-8")
RECIPE, OWN, VIEWS, METRIC_KEYS, METRIC = re.findall(r"^```\w+\n(.*?)^```", PAGE, re.S | re.M)


@pytest.fixture
def own(here: Path) -> Path:
    """A working directory with the files of the page, in a folder."""
    (here / "mine").mkdir()
    (here / "tiny.toml").rename(here / "mine" / "tiny.toml")
    for name, text in (("own.toml", RECIPE), ("own.py", OWN), ("own_views.py", VIEWS)):
        (here / "mine" / name).write_text(text, encoding="utf-8")
    return here


def test_a_metric_of_ones_own_is_fitted_stamped_and_travels(own: Path):
    tiny = (own / "mine" / "tiny.toml").read_text()
    keys = METRIC_KEYS.replace("[metric]", "[competition.metric]")
    (own / "mine" / "jaccard.toml").write_text(tiny.replace("[[phases]]", f"{keys}\n[[phases]]", 1))
    (own / "mine" / "own_metric.py").write_text(METRIC)
    recipe = load_recipe("mine/jaccard.toml")
    assert recipe.competition.metric.name == "own_metric.py:jaccard" and recipe.code == {
        "own_metric.py": METRIC
    }
    (own / "frozen.toml").write_text(toml_text(recipe), encoding="utf-8")
    assert load_recipe("frozen.toml") == recipe  # as runs and kernels have it
    competition = tiny.partition("[competition]")[2].partition("[[phases]]")[0]
    (own / "mine" / "own.toml").write_text(competition + METRIC_KEYS)
    assert load_recipe("mine/own.toml").code == recipe.code  # named by a competition's file
    stamp = decision_settings(recipe, ("a",))
    assert stamp["code"].keys() == {"own_metric.py"}

    probs, targets = planetary(0, 400)
    scorer = make_scorer(recipe.competition, tuple("abcdefgh"), recipe.code)
    decision = decide(probs**3, targets, scorer, settings=SearchSettings(n_trials=5))
    assert decision.scores["cross_fitted"] > decision.scores["default"]
    shared = (targets & decision.choice.decisions).sum(1) / (targets | decision.choice.decisions).sum(1)
    assert decision.scores["cross_fitted"] == pytest.approx(shared.mean())

    broken = {"own_metric.py": METRIC.replace("either.clip(1)", "nothing")}
    with pytest.raises(CompError, match=r"own_metric.py, line 4 \(return .*\): NameError"):
        make_scorer(recipe.competition, tuple("abcdefgh"), broken).score(targets, targets)


def weights(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "fold0" / "model.safetensors")


def test_a_killed_run_resumes_and_is_predicted_without_the_files(
    own: Path, capsys: pytest.CaptureFixture[str], fails, monkeypatch: pytest.MonkeyPatch
):
    train = ["train", "mine/own.toml", "--folds", "0", "--set", "phases.0.epochs=12"]
    for stage in ("download", "folds"):
        assert main([stage, "mine/own.toml"]) == 0
    monkeypatch.setenv("COMP_RUNS", "killed")
    log = own / "killed" / "own" / "fold0" / "log.jsonl"
    process = subprocess.Popen([sys.executable, "-m", "comp", *train], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    capsys.readouterr()
    monkeypatch.setenv("COMP_RUNS", "whole")
    assert main(train) == 0
    monkeypatch.setenv("COMP_RUNS", "killed")
    (own / "mine").rename(own / "gone")  # the run has their texts
    assert main(["train", "own", "--folds", "0"]) == 0
    assert "resuming after epoch" in capsys.readouterr().out
    whole, killed = weights(own / "whole" / "own"), weights(own / "killed" / "own")
    assert "head.3.weight" in whole and all(np.array_equal(whole[key], killed[key]) for key in whole)
    assert main(["predict", "own", "--folds", "0"]) == 0
    path = own / "killed" / "own" / "fold0" / "oof.npz"
    assert np.isfinite(read_arrays(path)["probs"]).all()
    (identity, shifted) = read_stamp(path)["views"]
    assert identity == "identity" and re.fullmatch(r"own_views\.py:shifted@[0-9a-f]{16}", shifted)

    (own / "gone").rename(own / "mine")
    with (own / "mine" / "own_views.py").open("a") as file:
        file.write("# another text\n")
    assert 'views.1 = "own_views.py:shifted@' in fails("predict", *train[1:])
    (own / "mine" / "own.py").write_text(OWN.replace("max=4", "max=5"))
    assert "other code.own.py" in fails(*train)


def test_a_recipe_holds_the_texts_that_its_keys_name(
    own: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    recipe = load_recipe("mine/own.toml")
    assert recipe.backbone == "own.py:Net" and recipe.augment_on == "cpu"
    assert recipe.code == {"own.py": OWN, "own_views.py": VIEWS}
    assert stamped_settings(recipe)["code"].keys() == {"own.py"}
    monkeypatch.syspath_prepend(own / "mine")
    installed = load_recipe("mine/own.toml", ["phases.0.loss=own_views:shifted"])
    assert stamped_settings(installed)["code"].keys() == {"own.py", "own_views"}
    (by_file,), (by_module,) = (
        stamped_views([f"own_views{end}:shifted"], recipe.code) for end in (".py", "")
    )
    assert by_file.partition("@")[2] == by_module.partition("@")[2] != ""
    hard = 'a = \'\'\'\\\'\'\'\nb = """"x""""\f\n# é\\n \x7f""""'
    odd = recipe.model_copy(update={"code": {"own.py": hard, "own_views.py": VIEWS}})
    (own / "frozen.toml").write_text(toml_text(odd), encoding="utf-8")
    assert load_recipe("frozen.toml") == odd
    plain = load_recipe("mine/own.toml", ["augment=none", "loss=bce", 'views=["d4"]'])
    assert plain.code.keys() == {"own.py"}
    assert load_recipe("mine/own.toml", ["loss=own.py:other"]).code["own.py"] == OWN
    (own / "own.py").write_text("other = 1")
    tuned = load_recipe(
        "mine/tiny.toml", ['tune={"phases.0.loss" = ["bce", "own.py:x"]}', "phases.0.loss=bce"]
    )
    assert tuned.code == {"own.py": "other = 1"}
    capsys.readouterr()
    assert main(["show", "mine/own.toml"]) == 0
    (own / "shown.toml").write_text(capsys.readouterr().out)
    assert load_recipe("shown.toml") == recipe


def test_errors_show_the_line(own: Path, fails):
    """Each is found before anything is trained."""
    for stage in ("download", "folds"):
        assert main([stage, "mine/own.toml"]) == 0
    (own / "bad.py").write_text(
        "def loss(logits, targets):\n    return logits.no - targets\n"
        "def few(logits): return logits\n"
        "def schedule(step, n): return 2 - step\n"
        "def floats(image): return image / 255\n"
        "def view(batch): return batch[:, :1]\n"
        "def net(pretrained, num_classes, in_chans, drop_rate): return 3\n"
    )
    (own / "worse.py").write_text("x = 1\ny = (x\n")
    (own / "import.py").write_text("import nothing_of_this_name\n")
    (own / "other").mkdir()
    (own / "other" / "own.py").write_text("pass")
    (own / "aug.yaml").write_text("a: b\n")
    head = OWN.replace("def get_classifier", "def head_of")
    (own / "headless.py").write_text(head)
    for change, text in {
        "loss=bad.py:loss": r"bad\.py, line 2 \(return logits\.no - targets\): AttributeError: .*'no'",
        "loss=bad.py:few": r"bad\.py:few can't be called with \(logits, targets\): too many",
        "loss=bad.py:fewer": r"bad\.py:fewer: there is no fewer; there are loss, few",
        "loss=worse.py:y": r"worse\.py, line 2: SyntaxError: ",
        "loss=import.py:y": r"import\.py, line 1 \(import .*\): ModuleNotFoundError: .*not other files",
        "loss=absent.py:y": r"absent\.py: No such file .* loss = 'absent.py:y' names this file",
        "loss=other/own.py:y": r"other/own\.py and another file of this name are used",
        "loss=no_module:y": r"there is no module no_module here",
        "phases.0.schedule=bad.py:schedule": r"returned 2\.0 for step 0 of 2; a share 0 … 1 is expected",
        "phases.0.schedule=cosine": r"'one-cycle', .* FILE\.py:NAME or module:NAME, found 'cosine'",
        "augment=bad.py:floats": r"bad\.py:floats can't be called with \(image, rng\)",
        "augment=aug.yaml": r"aug\.yaml is no pipeline of albumentations",
        "filter=bad.py:floats": r"bad\.py:floats returned float64 \(32, 32, 3\); an image uint8",
        'views=["bad.py:view"]': r"bad\.py:view returned torch\.float32 \(2, 1, 32, 32\); .* is expected",
        "backbone=bad.py:net": r"bad\.py:net returned a int; a torch\.nn\.Module is expected",
        "backbone=headless.py:Net": r"headless\.py:Net has no get_classifier\(\) .* set head_epochs = 0",
    }.items():
        line = fails("train", "mine/own.toml", "--set", change)
        assert re.search(text, line), line
    assert not list((own / "runs").glob("*/fold*/model.safetensors"))


def test_workers_run_a_pipeline_with_the_same_numbers_and_report_its_line(tmp_path: Path):
    """For a pipeline as an object, its file, and a function."""
    A.save(A.Compose([A.D4(p=1.0), A.RandomBrightnessContrast(p=0.5)]), tmp_path / "aug.json")
    text = (tmp_path / "aug.json").read_text()
    made = f"import albumentations as A, json\npipeline = A.from_dict(json.loads({text!r}))\n"
    made += "def rare(image, rng):\n    if rng.random() < 0.5:\n        return image\n    return image.lost\n"
    code = {"aug.json": text, "aug.py": made}
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    answers = [
        training_transform(Augment(extends=name), code)(images, 5) for name in ("aug.json", "aug.py:pipeline")
    ]
    assert np.array_equal(*answers) and not np.array_equal(answers[0], images)
    np.save(tmp_path / "cache.npy", images)
    place = Device("cpu", 1).activate()
    for name in ("aug.json", "aug.py:rare"):
        dataset = CachedDataset([tmp_path / "cache.npy"], None, Augment(extends=name), code)
        loader = DeviceLoader(dataset, place, 1)
        steps = [(5, np.arange(8))] * 3
        if name == "aug.json":
            assert all(np.array_equal(batch.numpy(), answers[0]) for batch, _ in loader(steps))
            continue
        with pytest.raises(
            CompError, match=r"^aug\.py, line 6 \(return image\.lost\): AttributeError: [^\n]*$"
        ):
            list(loader(steps))


def test_a_loss_out_of_memory_is_no_error_of_its_line():
    code = {"big.py": "def loss(logits, targets):\n    raise RuntimeError('CUDA out of memory. Tried')\n"}
    loss = make_loss("big.py:loss", code=code)

    def job(**_: object) -> None:
        loss(torch.zeros(2, 1), torch.zeros(2, 1))

    with pytest.raises(CompError, match="^out of memory; set phases"):
        call(job, (), Device("cpu", 1), print, NEVER)


def test_tensors_of_the_same_name_and_shape_are_taken_from_weights(tmp_path: Path):
    code = {"own.py": OWN}
    spec = models.ModelSpec("own.py:Net", ("a", "b"), 3, 32, (0.5,) * 3, (0.5,) * 3)
    source = models.create(spec, pretrained=False, code=code).state_dict()
    arrays = {key: value.numpy() for key, value in source.items()}
    arrays["head.3.weight"] = arrays["head.3.weight"][:1]  # of another number of classes
    save_file(arrays, tmp_path / "net.safetensors")
    model = models.create(spec, pretrained=True, weights=str(tmp_path / "net.safetensors"), code=code)
    taken = {key for key, value in model.state_dict().items() if np.array_equal(value.numpy(), source[key])}
    assert source.keys() - taken == {"head.3.weight"}
    save_file({"other": np.zeros(3)}, tmp_path / "net.safetensors")
    with pytest.raises(CompError, match="does not fit own.py:Net: 0 of its 1 tensors"):
        models.create(spec, pretrained=True, weights=str(tmp_path / "net.safetensors"), code=code)
    models.save(tmp_path / "model.safetensors", model, spec, {})
    with pytest.raises(CompError, match="this recipe doesn't hold the file"):
        models.load(tmp_path / "model.safetensors")
    assert models.load(tmp_path / "model.safetensors", code)[1] == spec
