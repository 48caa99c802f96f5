"""A small drawn competition for the tests, the real data where it lies beside the checkout, and `comp` as
users call it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from comp.cli.main import main
from comp.cli.options import OPTIONS, readers_of
from comp.kaggle import retries
from comp.kaggle.kernels.wheels import IMAGE_VERSIONS, ON_KAGGLE, image_versions, list_needed
from tests.fake_kaggle import FakeKaggle
from tests.pages import browser as browser
from tests.pages import chromium as chromium

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

TINY = """
extends = "demo"
n_folds = 2
n_trials = 5
ema_decay = 0.9

[competition]
name = "tiny"
title = "A small drawn competition"
drawn = { n_train = 90, n_test = 60, size = 32 }
labels = { csv = "train.csv", id = "image_name", column = "tags" }
images = { train = "train-jpg/{id}.jpg", test = "test-jpg/{id}.jpg" }
submission = { sample = "sample_submission.csv", solution = "solution.csv" }

[[phases]]
size = 16
epochs = 1
lr = 3e-3
batch_size = 16

[[phases]]
size = 32
epochs = 1
lr = 3e-3
batch_size = 16
"""

SLOW_FILES = (  # they begin first, so that no process is left with a long one at the end
    *("evaluation/test_report", "kaggle/test_kernel", "pipeline/test_readme", "compute/test_ray"),
    *("benchmarks/test_speed", "pipeline/test_notebooks", "pipeline/test_pipeline", "kaggle/test_push"),
    *("compute/test_kill", "tracking/test_tracking", "pipeline/test_hpa", "training/test_deadline"),
)
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
SLUG = "tiny-scenes"
SECRET = "do-not-leak-4711"
IMAGE_IN_FULL = os.environ.get("COMP_KAGGLE_IMAGE") == "1"
NO_NETWORK = ["unshare", "--user", "--map-root-user", "--net"]
TRAINABLE = TINY.replace("epochs = 1", "epochs = 12", 1)  # enough for submissions whose rows differ
OWN = """
import albumentations as A
import timm
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    def __init__(self, pretrained, num_classes, in_chans, drop_rate):
        super().__init__()
        self.body = timm.create_model("test_resnet", pretrained, num_classes=0, in_chans=in_chans)
        self.head = nn.Linear(self.body.num_features, num_classes)

    def forward(self, images):
        return self.head(self.body(images))


def loss(logits, targets):
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").clamp(max=6)


pipeline = A.Compose([A.D4(p=1.0), A.RandomBrightnessContrast(0.1, 0.1)])
"""
MOUNTED = (
    TRAINABLE.replace("drawn = { n_train = 90, n_test = 60, size = 32 }\n", f'slug = "{SLUG}"\n')
    .replace(', solution = "solution.csv"', "")
    .replace('extends = "demo"', 'pretrained = false\nbackbone = "own.py:Net"')
    .replace("n_trials", 'loss = "own.py:loss"\naugment = "own.py:pipeline"\nn_trials')
)
STAGES = ("download", "folds", "train", "predict", "blend", "decide", "submit", "report")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of slow files first."""
    places = {f"{name}.py": place for place, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: places.get("/".join(item.path.parts[-2:]), len(places)))


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the real data is not beside the checkout")
    return SHARED


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with tiny.toml in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("COMP_DATA", "COMP_RUNS", "COMP_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path


CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_setaffinity") else []


def pytest_configure(config: pytest.Config) -> None:
    """Each of the processes that run the tests keeps to a core, where folds are worked on one after the
    other: tiny ones end sooner than processes for them start."""
    if CORES and not config.getoption("numprocesses", None):  # not the one that gives the tests out
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
        os.sched_setaffinity(0, {CORES[worker % len(CORES)]})


@pytest.fixture(scope="module")
def all_cores() -> Iterator[None]:
    """For a test of what is done side by side."""
    if not CORES:
        yield
        return
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, CORES)
    yield
    os.sched_setaffinity(0, own)


@pytest.fixture
def kaggle(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKaggle]:
    """A server that plays Kaggle, and credentials for it; comp tries again without long pauses."""
    folder = tmp_path_factory.mktemp("kaggle")
    monkeypatch.setattr(retries, "PAUSES", (0.05,) * 4)
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_API_V1_TOKEN", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    with FakeKaggle(folder) as server:
        monkeypatch.setenv("HOME", str(folder))
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(folder))
        monkeypatch.setenv("KAGGLE_USERNAME", "tester")
        monkeypatch.setenv("KAGGLE_KEY", server.users["tester"])
        monkeypatch.setenv("COMP_KAGGLE_ENDPOINT", server.url)
        if client := sys.modules.get("kaggle.api.kaggle_api_extended"):  # it reads the folder when imported
            monkeypatch.setattr(client.KaggleApi, "config", str(folder / "kaggle.json"))
        yield server


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run `comp …`, which must fail with exit code 1 and one line; give that line."""

    def run(*arguments: str) -> str:
        capsys.readouterr()
        assert main(arguments) == 1
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith(f"comp {arguments[0]}: ")
        return lines[0]

    return run


def comp(
    *arguments: str, cwd: Path, check: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`comp …` as a process of its own."""
    answer = subprocess.run(
        [sys.executable, "-m", "comp", *arguments],
        cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert not check or answer.returncode == 0, answer.stdout + answer.stderr
    return answer


def run_all(*arguments: str) -> None:
    """All stages except duplicates, each with those of the arguments that it reads."""
    for stage in STAGES:
        assert main([stage, *read_by(stage, arguments)]) == 0, stage


def read_by(stage: str, arguments: Sequence[str]) -> list[str]:
    """The arguments without options that a command does not read."""
    answer, words = [], iter(arguments)
    for word in words:
        option = [word]
        if word in OPTIONS and "action" not in OPTIONS[word][1] or word == "--set":
            option.append(next(words))
        if not word.startswith("-") or stage in readers_of(word):
            answer += option
    return answer


def names_on_kaggle() -> set[str]:
    """Distributions that the image has: those of the list, and what they need."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in ON_KAGGLE - {"kaggle"}] + [Requirement("cuda-toolkit")]
    while waiting:
        requirement = waiting.pop()
        try:
            package = distribution(requirement.name)
        except PackageNotFoundError:
            continue
        found.add(canonicalize_name(requirement.name))
        for child in map(Requirement, package.requires or []):
            extras = requirement.extras or {""}
            wanted = child.marker is None or any(child.marker.evaluate({"extra": e}) for e in extras)
            if wanted and (canonicalize_name(child.name) not in found or child.extras):
                waiting.append(child)
    return found


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with what Kaggle's image has, as links to the packages of this machine.
    With COMP_KAGGLE_IMAGE=1 it has the image's own versions, as far as IMAGE_VERSIONS names them."""
    possible = shutil.which("unshare") and not subprocess.run([*NO_NETWORK, "true"]).returncode
    if not possible:
        pytest.skip("this machine can't make a network namespace")
    folder = tmp_path_factory.mktemp("image")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    site = folder / "lib" / f"python{PYTHON}" / "site-packages"
    names = names_on_kaggle()
    lacking = {"comp", "timm", "iterstrat", "py7zr", "kaggle"}
    assert not names & {*lacking, *list_needed()}
    if IMAGE_IN_FULL:
        pip = [sys.executable, "-m", "pip", f"--python={python}", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--requirement", IMAGE_VERSIONS], check=True)
        names -= image_versions()[1].keys()
        lacking -= {"timm"}
    packages: list[Distribution] = [distribution(name) for name in sorted(names | {"pip"})]
    for package in packages:
        for file in package.files or []:
            top = Path(file.parts[0])
            if top.name not in ("..", "__pycache__") and not (site / top).exists():
                (site / top).symlink_to(Path(str(package.locate_file(top))))
    for module in lacking:
        assert subprocess.run([python, "-I", "-c", f"import {module}"], capture_output=True).returncode, (
            module
        )
    return python


@pytest.fixture(scope="session")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which a tiny competition that has a slug on Kaggle was run to its end, from the
    folder files/, with a network, a loss and an augmentation of one's own."""
    folder = tmp_path_factory.mktemp("submitted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("COMP_DATA", "COMP_RUNS", "COMP_WEIGHTS"):
            patch.delenv(name, raising=False)
        (folder / "drawn.toml").write_text(TINY)
        assert main(["download", "drawn.toml"]) == 0
        shutil.move(folder / "data" / "tiny" / "drawn", folder / "files")
        shutil.rmtree(folder / "data")
        (folder / "tiny.toml").write_text(MOUNTED)
        (folder / "own.py").write_text(OWN)
        run_all("tiny.toml", "--from", "files")
    return folder


@pytest.fixture(scope="session")
def built(submitted: Path) -> Path:
    """The same, with both kernels built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(submitted)
        patch.setenv("KAGGLE_USERNAME", "somebody")
        patch.setenv("KAGGLE_KEY", SECRET)
        try:
            wheels = subprocess.run(
                [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "texttable", "-d", "probe"],
                capture_output=True, timeout=60,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            pytest.skip("pip reaches no package index")
        if wheels.returncode:
            pytest.skip("pip reaches no package index")
        for kind in ("train", "infer"):
            assert main(["kernel", "build", "tiny.toml", "--kind", kind]) == 0
    return submitted
