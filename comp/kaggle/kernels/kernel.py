"""A kernel's names, options, plan and metadata."""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comp.artifacts.files import read_json
from comp.artifacts.paths import kernel_dir
from comp.artifacts.schemas import User
from comp.artifacts.stamps import digest
from comp.config.recipe import Recipe
from comp.errors import CompError
from comp.kaggle.client import Kaggle

PARTS = ("kernel", "weights", "wheels")  # folders of a built kernel; weights only if it needs any
BUDGETS = {"train": "11h", "infer": "8.5h"}  # Kaggle ends kernels after 12 hours, most competitions after 9
MAX_BUDGET = 12 * 3600.0  # seconds
STARTUP = 600.0  # seconds at most until the script's own clock starts, and after its end


@dataclass(frozen=True)
class Kernel:
    """A kernel of a recipe: its options, its names on Kaggle, and its plan."""

    recipe: Recipe
    kind: str  # "train" or "infer"
    owner: str
    machine: str  # Kaggle's name of the accelerator, such as "NvidiaTeslaT4"
    budget: float  # seconds
    folds: tuple[int, ...]
    resume: bool

    @property
    def folder(self) -> Path:
        return kernel_dir(self.recipe.name, self.kind)

    @property
    def session_limit(self) -> int:
        """Seconds after which Kaggle ends the session, so that a hung kernel does not use up the quota."""
        return int(min(self.budget + STARTUP, MAX_BUDGET))

    @property
    def id(self) -> str:
        return f"{self.owner}/comp-{as_slug(self.recipe.name)}-{self.kind}"

    @property
    def weights_id(self) -> str:
        return f"{self.id}-weights"

    @property
    def wheels_id(self) -> str:
        return f"{self.owner}/comp-wheels"

    def plan(self, with_weights: bool) -> dict[str, Any]:
        """Return the plan that `comp.kaggle.kernels.entrypoint` follows."""
        return {
            "kind": self.kind,
            "recipe": self.recipe.name,
            "runs": [one.name for one in (self.recipe, *self.recipe.members)],
            "competition": self.recipe.competition.name,
            "n_folds": self.recipe.n_folds,
            "seed": self.recipe.seed,
            "folds": list(self.folds),
            "budget": self.budget,
            "wheels": f"datasets/{self.wheels_id}",
            "weights": f"datasets/{self.weights_id}" if with_weights else None,
            "earlier": f"notebooks/{self.id}" if self.resume else None,
        }

    def metadata(self, with_weights: bool) -> dict[str, Any]:
        """Return the content of kernel-metadata.json."""
        sources = [source.partition("/") for source in self.recipe.competition.all_sources]
        datasets = [self.wheels_id, *([self.weights_id] if with_weights else [])]
        return {
            "id": self.id,
            "title": self.id.split("/")[1],
            "code_file": f"{self.id.split('/')[1]}.py",
            "language": "python",
            "kernel_type": "script",
            "is_private": True,
            "enable_gpu": True,
            "enable_tpu": False,
            "enable_internet": False,
            "machine_shape": self.machine,
            "dataset_sources": [*datasets, *(name for kind, _, name in sources if kind == "datasets")],
            "competition_sources": [name for kind, _, name in sources if kind == "competitions"],
            "kernel_sources": [self.id] if self.resume else [],
            "model_sources": [],
        }


def check_options(kind: str, machine: str, budget: float | None, resume: bool) -> None:
    """Raise CompError for options that no kernel can have. `budget` is in seconds, None for the default."""
    if not re.fullmatch(r"Nvidia[A-Za-z0-9]{2,40}", machine):
        raise CompError(
            f"--accelerator {machine}: expected a GPU as Kaggle's client names it, such as NvidiaTeslaT4, "
            "NvidiaL4 or NvidiaRtxPro6000"
        )
    if budget is not None and budget > MAX_BUDGET:
        raise CompError("Kaggle ends every kernel after 12 hours; give a shorter --time-budget")
    if resume and kind == "infer":
        raise CompError("--resume needs --kind train: an infer kernel finishes in one run")


def as_slug(name: str) -> str:
    """Return a recipe's name as a Kaggle slug: unique, and short enough for a dataset's limit of 50
    characters."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return slug if slug == name and len(slug) <= 30 else f"{slug[:21].strip('-')}-{digest(name)[:8]}"


def find_owner(given: str | None) -> str:
    """Return the Kaggle user name: as given, from $KAGGLE_USERNAME, from kaggle.json (whose key is not used),
    or from the account of a token. Raise CompError if none is found."""
    folders = [os.environ.get("KAGGLE_CONFIG_DIR"), "~/.kaggle", "~/.config/kaggle"]
    paths = [Path(folder).expanduser() / "kaggle.json" for folder in folders if folder]
    name = given or os.environ.get("KAGGLE_USERNAME")
    if not name and (path := next((p for p in paths if p.is_file()), None)):
        try:
            name = read_json(path, User).get("username")
        except CompError:  # its message shows what was found, which may be a key
            raise CompError(f"{path} is not a valid kaggle.json; download it again from Kaggle") from None
    if not name:
        with contextlib.suppress(CompError):  # a token alone: Kaggle knows its user
            name = Kaggle().user
    if not name:
        raise CompError("the kernel's owner is not known; give --owner NAME, your user name on Kaggle")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise CompError(f"{name!r} is not a Kaggle user name; give --owner NAME")
    return name
