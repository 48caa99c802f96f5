"""The wheels that this package needs and the image of Kaggle's kernels lacks, for the image's Python, and not
for this machine's."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from rich.text import Text

from comp.console import progress, say
from comp.errors import CompError

# What Kaggle's image has (github.com/Kaggle/docker-python: kaggle_requirements.txt, on top of Colab's image).
# Nothing of it is shipped, so that torch, CUDA and numpy stay those that fit the machine.
ON_KAGGLE = {
    *("torch", "torchvision", "numpy", "pandas", "scipy", "scikit-learn", "optuna", "pillow", "pydantic"),
    *("opencv-python", "opencv-python-headless", "pyyaml", "matplotlib", "tqdm", "requests", "psutil"),
    *("huggingface-hub", "safetensors", "rich", "kaggle", "six", "packaging", "typing-extensions"),
}
GLIBC = 35  # the image is Ubuntu 22.04
PLATFORMS = [
    *(f"manylinux_2_{minor}_x86_64" for minor in range(GLIBC, 4, -1)),
    *("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"),
]


def needed(python: str) -> dict[str, str]:
    """Name and version, as installed here, of each package to ship for a Linux of this Python ('3.12')."""
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
                f"{requirement.name}, which Python {python} needs, is not installed here; pip install it"
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


def fetch(python: str, folder: Path) -> list[Path]:
    """The needed wheels in `folder`, sorted by name; those that are there are not fetched again. Raises
    CompError where pip can't get them."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = needed(python)
    if absent := {name: wanted[name] for name in wanted.keys() - _there(folder, wanted).keys()}:
        _download(python, absent, folder)
    there = _there(folder, wanted)
    return sorted(there[name] for name in wanted)


def _there(folder: Path, wanted: dict[str, str]) -> dict[str, Path]:
    found = {}
    for path in folder.glob("*.whl"):
        name, version, *_ = parse_wheel_filename(path.name)
        if wanted.get(name) == str(version):
            found[str(name)] = path
    return found


def reason_of(printed: str) -> str:
    """Pip's last error, or what it printed last, without colours."""
    lines = [Text.from_ansi(line).plain.strip() for line in printed.splitlines()]
    told = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (told or [line for line in lines if line] or ["pip failed"])[-1]


def _download(python: str, versions: dict[str, str], folder: Path) -> None:
    partial = folder / ".partial"  # pip's copies may be cut off by a kill
    say(f"kernel: fetching {len(versions)} wheels for Python {python}")
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
        reason = reason_of(answer.stderr)
        raise CompError(f"wheels for Python {python} can't be had ({reason}); run where pip reaches them")
    for path in sorted(partial.glob("*.whl")):
        path.replace(folder / path.name)
    partial.rmdir()
