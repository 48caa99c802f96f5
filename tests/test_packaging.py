"""The wheel: what is in it, and that it works outside of the clone."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
FEW = ("--set", "competition.drawn.n_train=50", "--set", "competition.drawn.n_test=50")
METADATA = ".dist-info"


def done(*command: object, cwd: Path) -> str:
    """Run a command that must succeed, with nothing of this checkout on its path. Return what it prints."""
    foreign = {name: value for name, value in os.environ.items() if not name.startswith(("COMP_", "PYTHON"))}
    answer = subprocess.run(
        list(map(str, command)), cwd=cwd, env=foreign, capture_output=True, text=True, timeout=300
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the clone, which stays as it is."""
    pytest.importorskip("setuptools")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in ("comp", "tests", "notebooks"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = ("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", target, source)
    done(*PIP, *build, cwd=source)
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_holds_all_of_comp_and_nothing_else(wheel: Path):
    there = (path for path in (ROOT / "comp").rglob("*") if path.is_file())
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in there
        if "__pycache__" not in path.parts and path.suffix != ".md"
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.partition("/")[0].endswith(METADATA)}
    assert names == wanted
    assert {"comp/py.typed", "comp/recipes/demo.toml", "comp/evaluation/page/report.html"} <= names


def test_the_wheel_works_outside_of_the_clone(wheel: Path, tmp_path: Path):
    venv, work = tmp_path / "venv", tmp_path / "work"
    work.mkdir()
    done(sys.executable, "-m", "venv", "--without-pip", venv, cwd=work)
    scripts, python = venv / "bin", venv / "bin" / "python"
    site = Path(
        done(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=work).strip()
    )
    done(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=work
    )
    # What comp needs, from the environment of the tests: its own .pth files, and comp with them, aren't read.
    (site / "needed.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
    home = done(python, "-c", "import comp; print(comp.__file__)", cwd=work).strip()
    assert Path(home).is_relative_to(site)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert done(scripts / "comp", "--version", cwd=work) == f"comp {version}\n"
    done(scripts / "comp", "download", "demo", *FEW, cwd=work)
    assert len(list((work / "data/demo/drawn/train-jpg").iterdir())) == 50
    assert (work / "data/demo/manifest.json").exists()
