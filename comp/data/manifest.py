"""manifest.json of a competition's data: what `comp download` left behind for all other stages to find."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.csv_tables import ids_of, read_table
from comp.artifacts.files import read_json
from comp.artifacts.paths import folds_path, manifest_path
from comp.artifacts.safe_paths import inside
from comp.artifacts.schemas import Manifest
from comp.artifacts.stamps import digest
from comp.config.competition import Competition
from comp.config.recipe import Recipe
from comp.data.decoding import Limits, limits_of
from comp.data.folds import read_folds
from comp.data.image_files import ImageSet, find_images, spread
from comp.data.labels import Labels, read_labels
from comp.errors import CompError


@dataclass(frozen=True)
class Data:
    """A competition's files, by what they are for."""

    labels_csv: Path
    sample_csv: Path
    solution_csv: Path | None
    folders: dict[str, list[tuple[Path, str]]]  # "train" and "test": (folder, file name with {id})
    stamp: str
    competition: Competition

    def labels(self, competition: Competition) -> Labels:
        return read_labels(self.labels_csv, competition.labels)

    def sample_ids(self, competition: Competition) -> np.ndarray:
        """(N,) str: the test ids, in the order that the submission must have."""
        return read_sample_ids(self.sample_csv, competition)

    def images(self, name: str, ids: np.ndarray, channels: Sequence[str]) -> ImageSet:
        found = find_images(name, ids, self.folders[name], channels)
        return replace(found, limits=self.limits)

    @cached_property
    def limits(self) -> Limits | None:
        """The values that become black and white, of files with more than 8 bits a channel: those of the
        competition's `range`, or what some of the training images use. The same for all of its images."""
        images = self.competition.images
        if images.range:
            return Limits(*images.range)
        column = self.competition.labels.id
        ids = read_table(self.labels_csv, [column])[column].to_numpy(str)
        names = [
            (folder, pattern.format(id=ids[i], channel=channel))
            for i in spread(len(ids))
            for channel in (images.channels or [""])
            for folder, pattern in self.folders["train"]
        ]
        paths = [folder / name for folder, name in names if ".." not in name.split("/")]
        return limits_of([path for path in paths if path.is_file()])


def read_sample_ids(sample: Path, competition: Competition) -> np.ndarray:
    """(N,) str: the ids of a sample submission, in its order. Raises CompError where one is there twice."""
    column = competition.submission.id or competition.labels.id
    return ids_of(read_table(sample, [column]), column, sample)


def read_manifest(competition: Competition) -> Data:
    """Raises CompError where nothing was downloaded, or where it is no longer there."""
    path = manifest_path(competition.name)
    if not path.exists():
        raise CompError(f"{path} is not there; run `comp download` first")
    data = data_of(read_json(path, Manifest), path.parent, competition)
    folders = [folder for places in data.folders.values() for folder, _ in places]
    for place in filter(None, [data.labels_csv, data.sample_csv, data.solution_csv, *folders]):
        if not place.exists():
            raise CompError(f"{place} is gone, though {path} names it; run `comp download --force`")
    return data


def place_of(folder: Path, name: str) -> Path:
    """A file or folder of the manifest in `folder`: inside of it, or of the user's own by its whole path,
    where files are read alone. Raises CompError for a name that leads out of the folder."""
    return Path(name) if str(name).startswith("/") else inside(folder, name, folder / "manifest.json")


def data_of(content: dict[str, Any], folder: Path, competition: Competition) -> Data:
    """The data that a manifest's content, with paths relative to `folder`, describes."""
    files = {name: place_of(folder, value) for name, value in content["files"].items() if value}
    folders = {
        split: [(place_of(folder, place["folder"]), place["pattern"]) for place in places]
        for split, places in content["images"].items()
    }
    contents = {
        split: [(p["pattern"], p["files"], p["bytes"], p["digest"]) for p in places]
        for split, places in content["images"].items()
    }
    given = [competition.images.range] if competition.images.range else []
    stamp = digest(contents, competition.images.channels, *given)  # wherever it lies
    return Data(files["labels"], files["sample"], files.get("solution"), folders, stamp, competition)


def read_training(recipe: Recipe) -> tuple[Data, Labels, np.ndarray]:
    """The data, the labels, and the fold (N,) of each labelled image."""
    competition = recipe.competition
    data = read_manifest(competition)
    labels = data.labels(competition)
    path = folds_path(competition.name, recipe.n_folds, recipe.seed)
    return data, labels, read_folds(path, labels.ids, recipe.n_folds)
