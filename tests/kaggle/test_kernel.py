"""Built kernels, run as on Kaggle: in a virtual environment with only the packages of Kaggle's image, without
a network, with folders laid out like /kaggle."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
from packaging.utils import parse_wheel_filename
from safetensors.numpy import load_file, save_file

from comp.cli.main import main
from comp.config.loading import load_recipe, toml_text
from comp.errors import CompError
from comp.kaggle.kernels import entrypoint, wheels
from comp.kaggle.kernels.kernel import as_slug, find_owner
from comp.training.trainer import Trainer
from tests.conftest import MOUNTED, NO_NETWORK, OWN, SECRET, SLUG
from tests.fake_kaggle import FakeKaggle
from tests.pipeline.test_infer import hidden_test_set

Layout = Callable[[str], str]
LAYOUTS: dict[str, Layout] = {
    "by slug": lambda source: source.split("/")[-1],
    "as in URLs": lambda source: source,
    "mixed": lambda source: source if source.startswith("datasets") else source.split("/")[-1],
}


def mount(kernel: Path, files: Path, target: Path, layout: Layout, earlier: Path | None = None) -> None:
    """Copy to `target` what Kaggle mounts for a built kernel; `files` are the competition's."""
    metadata = json.loads((kernel / "kernel" / "kernel-metadata.json").read_text())
    places = {f"competitions/{SLUG}": files}
    for name in metadata["dataset_sources"]:
        (folder,) = (
            path.parent
            for path in kernel.glob("*/dataset-metadata.json")
            if json.loads(path.read_text())["id"] == name
        )
        places[f"datasets/{name}"] = folder
    assert metadata["competition_sources"] == [SLUG]
    if metadata["kernel_sources"]:
        assert earlier
        places |= {f"notebooks/{name}": earlier for name in metadata["kernel_sources"]}
    for source, folder in places.items():
        place = target / layout(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(folder, place, ignore=shutil.ignore_patterns("dataset-metadata.json"))


def run_kernel(
    kernel: Path, python: Path, root: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a built script without a network; its input is root/input, its output root/working."""
    (script,) = (kernel / "kernel").glob("*.py")
    (root / "src").mkdir(parents=True, exist_ok=True)
    shutil.copy(script, root / "src" / "script.py")
    return subprocess.run(
        [*NO_NETWORK, str(python), str(root / "src" / "script.py")],
        cwd=root,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "TMPDIR": str(root),
            "COMP_KAGGLE_INPUT": str(root / "input"),
            "COMP_KAGGLE_WORKING": str(root / "working"),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


def copy_of(built: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(built, target, symlinks=True)
    monkeypatch.chdir(target)
    monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
    return target


def weights_of(folder: Path) -> list[dict[str, np.ndarray]]:
    return [load_file(path) for path in sorted(folder.glob("runs/tiny/fold?/model.safetensors"))]


def equal(first: list[dict[str, np.ndarray]], second: list[dict[str, np.ndarray]]) -> bool:
    return len(first) == len(second) > 0 and all(
        np.array_equal(a[key], b[key]) for a, b in zip(first, second) for key in a | b
    )


def test_a_resumed_train_kernel_gives_the_same_files_as_the_stages_here(
    built: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here, earlier = copy_of(built, tmp_path / "here", monkeypatch), tmp_path / "earlier"
    assert main(["kernel", "build", "tiny.toml", "--resume"]) == 0
    with monkeypatch.context() as patch:  # the earlier version stopped after an epoch of its first fold
        patch.setenv("COMP_RUNS", str(earlier / "runs"))
        patch.setattr(Trainer, "expected_seconds", lambda trainer: 3601.0 * trainer.n_epochs_done)
        assert main(["train", "tiny.toml", "--folds", "0", "--time-budget", "1h"]) == 3
    shutil.copytree(here / "folds", earlier / "folds")
    kernel = here / "runs" / "tiny" / "kernel-train"
    mount(kernel, built / "files", tmp_path / "input", LAYOUTS["as in URLs"], earlier)
    answer = run_kernel(kernel, image, tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stdout.count("resuming after epoch 1 of 13") == 1
    (decided,) = (built / "submissions").glob("tiny-*.csv")
    assert (tmp_path / "working" / "submission.csv").read_bytes() == decided.read_bytes()
    assert equal(weights_of(tmp_path / "working"), weights_of(built))
    assert not list(tmp_path.glob("comp-*"))  # the package, wheels and resized images were temporary
    assert {path.name for path in (tmp_path / "working").iterdir()} == {
        *("folds", "runs", "submissions", "submission.csv")
    }
    assert (tmp_path / "working" / "runs" / "tiny" / "report.html").exists()


def test_an_infer_kernel_predicts_a_hidden_test_set(
    built: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kernel = built / "runs" / "tiny" / "kernel-infer"
    assert "class Net(nn.Module)" in (kernel / "kernel" / "comp-tiny-infer.py").read_text()
    names = hidden_test_set(built / "files", tmp_path / "hidden")
    mount(kernel, tmp_path / "hidden", tmp_path / "kaggle" / "input", LAYOUTS["mixed"])
    answer = run_kernel(kernel, image, tmp_path / "kaggle")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    written = tmp_path / "kaggle" / "working" / "submission.csv"
    assert [path.name for path in written.parent.iterdir()] == ["submission.csv"]
    assert pd.read_csv(written)["image_name"].tolist() == names
    here = copy_of(built, tmp_path / "here", monkeypatch)
    monkeypatch.setenv("COMP_DATA", "other-data")
    assert main(["infer", "tiny.toml", "--from", str(tmp_path / "hidden"), "--to", "here.csv"]) == 0
    assert written.read_bytes() == (here / "here.csv").read_bytes()


def test_a_kernel_without_time_ends_well_and_says_how_to_go_on(
    built: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = copy_of(built, tmp_path / "here", monkeypatch)
    assert main(["kernel", "build", "tiny.toml", "--time-budget", "0.1s"]) == 0
    kernel = here / "runs" / "tiny" / "kernel-train"
    mount(kernel, built / "files", tmp_path / "input", LAYOUTS["by slug"])
    answer = run_kernel(kernel, image, tmp_path)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "kernel: the time ran out in download;" in answer.stdout and "--resume" in answer.stdout
    assert not (tmp_path / "working" / "submission.csv").exists()


def test_a_stage_is_interrupted_and_then_killed_where_its_time_ends():
    now = time.time()
    assert entrypoint.run_until(["sh", "-c", "exit 7"], now + 60, now + 60) == 7
    assert entrypoint.run_until(["sleep", "60"], now, now + 60) == 3
    assert entrypoint.run_until(["sh", "-c", "trap '' INT; exec sleep 60"], now + 0.5, now + 1) == 3
    assert time.time() < now + 60


def test_a_kernel_s_last_line_names_the_missing_input(built: Path, image: Path, tmp_path: Path):
    kernel = built / "runs" / "tiny" / "kernel-infer"
    (tmp_path / "input").mkdir()
    answer = run_kernel(kernel, image, tmp_path)
    assert answer.returncode == 1
    assert re.fullmatch(r"kernel: datasets/somebody/comp-wheels is not mounted; .*\n", answer.stderr)
    kernel = built / "runs" / "tiny" / "kernel-train"
    mount(kernel, tmp_path / "src", tmp_path / "other" / "input", LAYOUTS["by slug"])
    answer = run_kernel(kernel, image, tmp_path / "other")
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1].startswith("comp download: tiny: no labels file")


def test_no_built_file_contains_credentials(built: Path):
    for path in (built / "runs").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()


def test_building_again_changes_no_byte(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    here = copy_of(built, tmp_path / "here", monkeypatch)
    kernel = here / "runs" / "tiny" / "kernel-infer"
    before = {path: path.read_bytes() for path in kernel.rglob("*") if path.is_file()}
    assert {path.parent.name for path in before} == {"kernel", "weights", "wheels"}
    (kernel / "weights" / "stray").write_text("not of this kernel")
    (kernel / "weights" / "fold0.safetensors").unlink()
    shutil.rmtree(kernel / "wheels")
    assert main(["kernel", "build", "tiny.toml", "--kind", "infer"]) == 0
    assert {path: path.read_bytes() for path in kernel.rglob("*") if path.is_file()} == before


def test_an_infer_kernel_is_built_of_models_and_a_decision_that_belong_together(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails
):
    here = copy_of(built, tmp_path / "here", monkeypatch)
    build = ("kernel", "build", "tiny.toml", "--kind", "infer")
    assert "was not made for the predictions" in fails(*build, "--set", 'views=["identity"]')
    assert "--folds 0,1" in fails(*build, "--folds", "0")
    assert "such as NvidiaTeslaT4" in fails(*build, "--accelerator", "L4")
    line = fails(*build, "--resume")
    assert "--resume" in line and "--kind train" in line
    (here / "runs" / "tiny" / "fold1" / "model.safetensors").unlink()
    assert "folds without a model: 1 (1)" in fails(*build)


def test_a_competition_that_is_not_on_kaggle_is_refused(here: Path, fails):
    (here / "tiny.toml").write_text(MOUNTED.replace(f'slug = "{SLUG}"\n', ""))
    (here / "own.py").write_text(OWN)
    line = fails("kernel", "build", "tiny.toml", "--owner", "me")
    assert "tiny has no files on Kaggle; set slug or sources" in line


def test_the_owner_comes_from_kaggle_json(here: Path, fails, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(here / "config"))
    assert "--owner NAME" in fails("kernel", "build", "tiny.toml")
    (here / "config").mkdir(exist_ok=True)
    (here / "config" / "kaggle.json").write_text(json.dumps({"username": "me", "key": SECRET}))
    assert find_owner(None) == "me"
    assert find_owner("you") == "you"


def test_a_token_alone_tells_the_owner(kaggle: FakeKaggle, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KAGGLE_USERNAME")
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_secret_token")
    assert find_owner(None) == "tester"


def test_a_train_kernel_contains_imagenet_weights_and_keeps_the_stamp(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = copy_of(built, tmp_path / "here", monkeypatch)
    state = timm.create_model("test_resnet", pretrained=False).state_dict()
    (here / "imagenet").mkdir()
    save_file({k: v.numpy() for k, v in state.items()}, here / "imagenet" / "test_resnet.safetensors")
    text = MOUNTED.replace("n_folds", 'pretrained = true\nweights = "imagenet"\nn_folds').replace(
        'pretrained = false\nbackbone = "own.py:Net"', 'backbone = "test_resnet"'
    )
    (here / "tiny.toml").write_text(text)
    assert main(["kernel", "build", "tiny.toml"]) == 0
    folder = here / "runs" / "tiny" / "kernel-train"
    travelled = folder / "weights" / "test_resnet.safetensors"
    assert travelled.read_bytes() == (here / "imagenet" / "test_resnet.safetensors").read_bytes()
    assert 'weights = "weights"' in (folder / "kernel" / "comp-tiny-train.py").read_text()
    from comp.data.manifest import read_training
    from comp.training.model_stamp import train_stamp

    recipe = load_recipe("tiny.toml")
    data, labels, fold_of = read_training(recipe)
    there = recipe.model_copy(update={"weights": str(folder / "weights")})
    assert train_stamp(recipe, labels, fold_of, data.fingerprint, 0) == train_stamp(
        there, labels, fold_of, data.fingerprint, 0
    )


@pytest.mark.parametrize("name", ["planet", "planet32", "hpa", "demo"])
def test_a_recipe_is_one_toml_file(name: str, here: Path):
    recipe = load_recipe(name, ['competition.title=quotes " and \\ and é', "phases.0.body_lr=1e-05"])
    (here / "one.toml").write_text(toml_text(recipe), encoding="utf-8")
    assert load_recipe("one.toml") == recipe


def test_slugs_are_those_of_kaggles_client():
    slugify = pytest.importorskip("slugify").slugify
    for name in ("planet", "My_Recipe.v2", "a--b", "x" * 80, "Recipe-" * 12):
        slug = as_slug(name)
        assert slugify(f"comp-{slug}-train") == f"comp-{slug}-train"
        assert 5 <= len(f"comp-{slug}-infer-weights") <= 50
    assert as_slug("my-recipe-v2") == "my-recipe-v2"
    names = ("my-recipe-v2", "My-Recipe-v2", "my_recipe.v2", "my.recipe_v2")  # none takes another's kernel
    assert len({as_slug(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        ("\x1b[31mERROR: No match for a==1\x1b[0m\x1b[31m\n\x1b[0m", "No match for a==1"),
        ("WARNING: slow\nERROR: first\nERROR: last\n\n[notice] pip 99 is there\n", "last"),
        ("\x1b[33mdisk is full\x1b[0m\n\n", "disk is full"),
        ("", "pip failed"),
    ],
)  # fmt: skip
def test_the_reason_of_pip_is_printed_without_colours(printed: str, reason: str):
    assert wheels.pip_error(printed) == reason


def test_wheels_run_on_any_python_and_are_downloaded_once(built: Path, monkeypatch: pytest.MonkeyPatch):
    folder = built / "data" / ".wheels"
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    parsed = [parse_wheel_filename(path.name) for path in sorted(before)]
    assert [str(name) for name, *_ in parsed] == ["iterative-stratification", "timm"]
    assert {str(tag) for *_, tags in parsed for tag in tags} <= {"py2-none-any", "py3-none-any"}
    assert wheels.fetch_wheels(folder) == sorted(before)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_compiled_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wheels, "ON_KAGGLE", wheels.ON_KAGGLE - {"safetensors"})
    for name, version in wheels.list_needed().items():
        (tmp_path / f"{name.replace('-', '_')}-{version}-py3-none-any.whl").touch()
    (plain,) = tmp_path.glob("safetensors-*")
    compiled = plain.rename(tmp_path / plain.name.replace("py3-none-any", "cp38-abi3-manylinux_2_17_x86_64"))
    with pytest.raises(CompError, match=f"{compiled.name} is compiled .* install a safetensors"):
        wheels.fetch_wheels(tmp_path)
