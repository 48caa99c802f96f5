"""manifest.json: where `comp download` found a competition's files, for all other stages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.csv_tables import ids_of, read_table
from comp.artifacts.files import read_json
from comp.artifacts.paths import data_dir, folds_path, manifest_path
from comp.artifacts.safe_paths import inside
from comp.artifacts.schemas import Manifest
from comp.artifacts.stamps import digest, is_done, read_stamp, to_json
from comp.config.competition import Competition
from comp.config.recipe import Recipe
from comp.console import size_text
from comp.data.decoding import Limits, find_limits
from comp.data.discovery import RequiredFile
from comp.data.folds import read_folds
from comp.data.image_files import ImageSet, find_images, spread_indices
from comp.data.labels import Labels, read_labels
from comp.errors import CompError


@dataclass(frozen=True)
class CompetitionFiles:
    """A competition's files by purpose."""

    labels_csv: Path
    sample_csv: Path
    solution_csv: Path | None
    folders: dict[str, list[tuple[Path, str]]]  # "train" and "test": (folder, file name with {id})
    fingerprint: str  # of the images, wherever they are
    competition: Competition

    def labels(self, competition: Competition) -> Labels:
        return read_labels(self.labels_csv, competition.labels)

    def sample_ids(self, competition: Competition) -> np.ndarray:
        """Return (N,) str: the test ids in the order of the sample submission."""
        return read_sample_ids(self.sample_csv, competition)

    def images(self, name: str, ids: np.ndarray, channels: Sequence[str]) -> ImageSet:
        found = find_images(name, ids, self.folders[name], channels)
        return replace(found, limits=self.limits)

    @cached_property
    def limits(self) -> Limits | None:
        """Return the values that become black and white in files with more than 8 bits per channel:
        images.range of the competition, or what some training images use. They are the same for all
        images."""
        images = self.competition.images
        if images.range:
            return Limits(*images.range)
        column = self.competition.labels.id
        ids = read_table(self.labels_csv, [column])[column].to_numpy(str)
        names = [
            (folder, pattern.format(id=ids[i], channel=channel))
            for i in spread_indices(len(ids))
            for channel in (images.channels or [""])
            for folder, pattern in self.folders["train"]
        ]
        paths = [folder / name for folder, name in names if ".." not in name.split("/")]
        return find_limits([path for path in paths if path.is_file()])


def read_sample_ids(sample: Path, competition: Competition) -> np.ndarray:
    """Return (N,) str: the ids of a sample submission, in its order. Raise CompError for a repeated id."""
    column = competition.submission.id or competition.labels.id
    return ids_of(read_table(sample, [column]), column, sample)


def read_manifest(competition: Competition) -> CompetitionFiles:
    """Return the files of a competition. Raise CompError if it was not downloaded, or a file is missing."""
    path = manifest_path(competition.name)
    if not path.exists():
        raise CompError(f"{path} is not there; run `comp download` first")
    data = competition_files(read_json(path, Manifest), path.parent, competition)
    folders = [folder for places in data.folders.values() for folder, _ in places]
    for place in filter(None, [data.labels_csv, data.sample_csv, data.solution_csv, *folders]):
        if not place.exists():
            raise CompError(f"{place} is missing, but {path} lists it; run `comp download --force`")
    return data


def resolve_place(folder: Path, name: str) -> Path:
    """Return the path of a file or folder that the manifest in `folder` names: inside it, or the user's own
    by its absolute path, which is only read. Raise CompError for a relative name that points outside
    `folder`."""
    return Path(name) if str(name).startswith("/") else inside(folder, name, folder / "manifest.json")


def competition_files(content: dict[str, Any], folder: Path, competition: Competition) -> CompetitionFiles:
    """Return the files that a manifest's content describes, with paths relative to `folder`."""
    files = {name: resolve_place(folder, value) for name, value in content["files"].items() if value}
    folders = {
        split: [(resolve_place(folder, place["folder"]), place["pattern"]) for place in places]
        for split, places in content["images"].items()
    }
    contents = {
        split: [(p["pattern"], p["files"], p["bytes"], p["digest"]) for p in places]
        for split, places in content["images"].items()
    }
    given = [competition.images.range] if competition.images.range else []
    fingerprint = digest(contents, competition.images.channels, *given)
    return CompetitionFiles(
        files["labels"], files["sample"], files.get("solution"), folders, fingerprint, competition
    )


def manifest_stamp(competition: Competition, source: str | None) -> dict[str, Any]:
    """Return what a manifest depends on; `source`: the folder or archive of --from."""
    fields = competition.model_dump(include={"name", "images", "submission", "drawn"})
    return {**fields, "labels_csv": competition.labels.csv, "from": source and str(Path(source).resolve())}


def is_downloaded(path: Path, stamp: dict[str, Any], source: str | None, *, force: bool) -> bool:
    """Return whether the manifest `path` has this stamp. Without `source` any source of the files will do."""
    if source is None and (found := read_stamp(path)) and {**found, "from": None} == to_json(stamp):
        return True
    return is_done(path, stamp, force=force)


def has_all_images(found: dict[str, Any], missing: Sequence[RequiredFile], competition: Competition) -> bool:
    """Return whether each image is there though folders are missing: some copies of a competition keep the
    images of two folders in one."""
    if any(need.part not in found["images"] for need in missing) or not all(found["images"].values()):
        return False
    data = competition_files(found, data_dir(competition.name), competition)
    try:
        data.images("test", data.sample_ids(competition), competition.images.channels)
        data.images("train", data.labels(competition).ids, competition.images.channels)
    except CompError:
        return False
    return True


def describe_files(found: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each table and each folder of images of a manifest."""
    for name, path in found["files"].items():
        yield f"{name}: {path}"
    for split, places in found["images"].items():
        for row in places:
            yield f"{split} images: {row['folder']}, {row['files']:,} files, {size_text(row['bytes'])}"


def read_training(recipe: Recipe) -> tuple[CompetitionFiles, Labels, np.ndarray]:
    """Return (the files, the labels, the fold (N,) of each labelled image)."""
    competition = recipe.competition
    data = read_manifest(competition)
    labels = data.labels(competition)
    path = folds_path(competition.name, recipe.n_folds, recipe.seed)
    return data, labels, read_folds(path, labels.ids, recipe.n_folds)
