"""Download the wheels that comp needs and Kaggle's image lacks, for the image's Python instead of this
machine's."""

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
}
GLIBC_MINOR = 35  # of glibc 2.35 in Ubuntu 22.04, the image's system
PLATFORMS = [
    *(f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC_MINOR, 4, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"),
]


def list_needed(python: str) -> dict[str, str]:
    """Return {name: version installed here} of all packages to upload for Linux with this Python ('3.12').
    Raise CompError if one is not installed here."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_system": "Linux",
        "sys_platform": "linux",
    }
    versions: dict[str, str] = {}
    waiting = [Requirement("comp")]
    while waiting:
        requirement = waiting.pop()
        try:
            package = distribution(requirement.name)
        except PackageNotFoundError as error:
            raise CompError(
                f"{requirement.name} is needed for Python {python} but not installed here; pip install it"
            ) from error
        versions[canonicalize_name(requirement.name)] = package.version
        for text in package.requires or []:
            child = Requirement(text)
            extras = requirement.extras or {""}
            applies = child.marker is None or any(
                child.marker.evaluate({**environment, "extra": extra}) for extra in extras
            )
            if applies and canonicalize_name(child.name) not in ON_KAGGLE | versions.keys():
                waiting.append(child)
    del versions["comp"]
    return dict(sorted(versions.items()))


def fetch_wheels(python: str, folder: Path) -> list[Path]:
    """Download the needed wheels to `folder` unless they are there; return their paths, sorted by name. Raise
    CompError if pip fails."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = list_needed(python)
    if absent := {name: wanted[name] for name in wanted.keys() - _find_wheels(folder, wanted).keys()}:
        _download(python, absent, folder)
    there = _find_wheels(folder, wanted)
    return sorted(there[name] for name in wanted)


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


def _download(python: str, versions: dict[str, str], folder: Path) -> None:
    partial = folder / ".partial"  # a kill may leave incomplete files
    info(f"kernel: downloading {len(versions)} wheels for Python {python}")
    with progress("wheels", len(versions)):
        answer = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                *("--no-deps", "--only-binary=:all:", "--implementation", "cp", "--python-version", python),
                *(word for platform in PLATFORMS for word in ("--platform", platform)),
                *("--dest", str(partial)),
                *sorted(f"{name}=={version}" for name, version in versions.items()),
            ],
            capture_output=True,
            text=True,
        )
    if answer.returncode:
        reason = pip_error(answer.stderr)
        raise CompError(
            f"wheels for Python {python} could not be downloaded ({reason}); run where pip has a network"
        )
    for path in sorted(partial.glob("*.whl")):
        path.replace(folder / path.name)
    partial.rmdir()
