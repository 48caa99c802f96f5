"""A kernel's names, plan and metadata."""

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

PARTS = ("kernel", "weights", "wheels")  # folders of a built kernel; without weights where there are none


@dataclass(frozen=True)
class Kernel:
    """One kernel of a recipe: its names on Kaggle, what it is given and what it does there."""

    recipe: Recipe
    kind: str  # "train" or "infer"
    owner: str
    python: str  # of Kaggle's image, such as "3.12"
    budget: float  # seconds
    folds: tuple[int, ...]
    resume: bool

    @property
    def folder(self) -> Path:
        return kernel_dir(self.recipe.name, self.kind)

    @property
    def id(self) -> str:
        return f"{self.owner}/comp-{as_slug(self.recipe.name)}-{self.kind}"

    @property
    def weights_id(self) -> str:
        return f"{self.id}-weights"

    @property
    def wheels_id(self) -> str:
        return f"{self.owner}/comp-wheels-{self.python.replace('.', '')}"

    def plan(self, with_weights: bool) -> dict[str, Any]:
        """What `comp.kaggle.kernels.entrypoint` is told."""
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
        """kernel-metadata.json. `machine_shape` NvidiaTeslaT4 is two T4."""
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
            "machine_shape": "NvidiaTeslaT4",
            "dataset_sources": [*datasets, *(name for kind, _, name in sources if kind == "datasets")],
            "competition_sources": [name for kind, _, name in sources if kind == "competitions"],
            "kernel_sources": [self.id] if self.resume else [],
            "model_sources": [],
        }


def as_slug(name: str) -> str:
    """A recipe's name as Kaggle writes it in addresses: short enough for the 50 characters of a dataset's,
    and different for different names."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return slug if slug == name and len(slug) <= 30 else f"{slug[:21].strip('-')}-{digest(name)[:8]}"


def find_owner(given: str | None) -> str:
    """The Kaggle user name: as given, of $KAGGLE_USERNAME, or of kaggle.json, of which nothing else is
    read."""
    folders = [os.environ.get("KAGGLE_CONFIG_DIR"), "~/.kaggle", "~/.config/kaggle"]
    paths = [Path(folder).expanduser() / "kaggle.json" for folder in folders if folder]
    name = given or os.environ.get("KAGGLE_USERNAME")
    if not name and (path := next((p for p in paths if p.is_file()), None)):
        try:
            name = read_json(path, User).get("username")
        except CompError:  # it shows what it found, which may be a key
            raise CompError(f"{path} is not what Kaggle gives as kaggle.json; fetch it anew") from None
    if not name:
        with contextlib.suppress(CompError):  # a token alone: Kaggle knows whose it is
            name = Kaggle().user
    if not name:
        raise CompError("whose kernel is it? Give --owner NAME, your user name on Kaggle")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise CompError(f"{name!r} is no user name of Kaggle; give --owner NAME")
    return name
