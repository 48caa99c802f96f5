"""Download the wheels that comp needs and Kaggle's image lacks. They are pure Python, so that they run on
whatever Python the image has."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from rich.text import Text

from comp.console import info, progress
from comp.errors import CompError

# Packages in Kaggle's image (github.com/Kaggle/docker-python: kaggle_requirements.txt, on top of Colab's
# image). They are not uploaded, so that the image's own torch, CUDA and numpy stay in use.
ON_KAGGLE = {
    *("torch", "torchvision", "numpy", "pandas", "scipy", "scikit-learn", "optuna", "pillow", "pydantic"),
    *("opencv-python", "opencv-python-headless", "pyyaml", "matplotlib", "tqdm", "requests", "psutil"),
    *("huggingface-hub", "safetensors", "rich", "kaggle", "six", "packaging", "typing-extensions"),
    "albumentations",
}
NOT_NEEDED = {
    "py7zr",  # compiled; Kaggle mounts archives unpacked
    "waitress",  # nobody reaches a server there
}
DISTRIBUTION = "kaggle-comp"  # the name of comp as a distribution
IMAGE_VERSIONS = Path(__file__).with_name("image.txt")  # of the image that the tests are run with


def list_needed() -> dict[str, str]:
    """Return {name: version installed here} of all packages to upload. Raise CompError if one is not
    installed here."""
    versions: dict[str, str] = {}
    waiting = [Requirement(DISTRIBUTION)]
    while waiting:
        requirement = waiting.pop()
        try:
            package = distribution(requirement.name)
        except PackageNotFoundError as error:
            raise CompError(
                f"{requirement.name} is needed on Kaggle but not installed here; pip install it"
            ) from error
        versions[canonicalize_name(requirement.name)] = package.version
        for text in package.requires or []:
            child = Requirement(text)
            applies = child.marker is None or any(
                child.marker.evaluate({"extra": extra}) for extra in requirement.extras or {""}
            )
            if applies and canonicalize_name(child.name) not in ON_KAGGLE | NOT_NEEDED | versions.keys():
                waiting.append(child)
    del versions[DISTRIBUTION]
    return dict(sorted(versions.items()))


def fetch_wheels(folder: Path) -> list[Path]:
    """Download the needed wheels to `folder` unless they are there; return their paths, sorted by name. Raise
    CompError if pip fails or a wheel is compiled."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = list_needed()
    if absent := {name: wanted[name] for name in wanted.keys() - _find_wheels(folder, wanted).keys()}:
        _download(absent, folder)
    there = _find_wheels(folder, wanted)
    for name, path in there.items():
        if not path.name.endswith("-none-any.whl"):
            raise CompError(
                f"{path.name} is compiled for one Python, and Kaggle's image may have another; install a "
                f"{name} here that is pure Python (py3-none-any)"
            )
    return sorted(there[name] for name in wanted)


def image_versions() -> tuple[str, dict[str, str]]:
    """Return (date, {package: version}) of Kaggle's image with which kernels were tried."""
    about, *lines = IMAGE_VERSIONS.read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    return about.rpartition(" ")[2], pins


def _find_wheels(folder: Path, wanted: dict[str, str]) -> dict[str, Path]:
    found = {}
    for path in folder.glob("*.whl"):
        name, version, *_ = parse_wheel_filename(path.name)
        if wanted.get(name) == str(version):
            found[str(name)] = path
    return found


def pip_error(printed: str) -> str:
    """Return pip's last error, or else its last line, without colour codes."""
    lines = [Text.from_ansi(line).plain.strip() for line in printed.splitlines()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or [line for line in lines if line] or ["pip failed"])[-1]


def _download(versions: dict[str, str], folder: Path) -> None:
    partial = folder / ".partial"  # a kill may leave incomplete files
    info(f"kernel: downloading {len(versions)} wheels")
    with progress("wheels", len(versions)):
        answer = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                *("--no-deps", "--only-binary=:all:", "--dest", str(partial)),
                *sorted(f"{name}=={version}" for name, version in versions.items()),
            ],
            capture_output=True,
            text=True,
        )
    if answer.returncode:
        reason = pip_error(answer.stderr)
        raise CompError(f"wheels could not be downloaded ({reason}); run where pip has a network")
    for path in sorted(partial.glob("*.whl")):
        path.replace(folder / path.name)
    partial.rmdir()
