"""manifest.json: where `comp download` found a competition's files, for all other stages."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comp.artifacts.csv_tables import read_ids, read_table
from comp.artifacts.files import read_json
from comp.artifacts.paths import data_dir, folds_path, manifest_path
from comp.artifacts.safe_paths import inside
from comp.artifacts.schemas import Manifest
from comp.artifacts.stamps import digest, is_done, read_stamp, to_json
from comp.config.competition import Competition
from comp.config.recipe import Recipe
from comp.console import size_text
from comp.data.arrays import UnsuitableFile, find_array_limits, kind_of
from comp.data.columns import match_columns, read_features
from comp.data.decoding import decode, find_limits
from comp.data.discovery import RequiredFile
from comp.data.folds import read_folds
from comp.data.image_files import (
    ImageSet,
    expand_folders,
    file_name,
    find_images,
    spread_indices,
)
from comp.data.labels import Labels, read_labels
from comp.data.path_tables import with_paths_as_ids
from comp.data.scaling import Limits
from comp.data.table_rows import (
    cells_of,
    columns_in,
    rows_of,
    sample_ids_of,
    test_answers_of,
    test_ids_of,
    training_rows,
)
from comp.data.weight_table import read_weights
from comp.errors import CompError, summarize


@dataclass(frozen=True)
class CompetitionFiles:
    """A competition's files by purpose."""

    labels_csv: Path
    sample_csv: Path
    solution_csv: Path | None
    folders: dict[str, list[tuple[Path, str]]]  # "train" and "test": (folder, file name with {id})
    fingerprint: str  # of the images, wherever they are
    competition: Competition
    tables: Mapping[str, Path]  # all of them: labels, sample, solution, only, table

    def labels(self, competition: Competition) -> Labels:
        table, only = competition.labels, self.tables.get("only")
        labels = read_labels(
            self.labels_csv,
            table,
            competition.metric.kind,
            only=read_ids(only, table.id) if only else None,
            fields=self._columns("train"),
        )
        if not table.weight_csv:
            return labels
        return replace(labels, weights=read_weights(Path(table.weight_csv), labels.ids))

    def sample_ids(self, competition: Competition) -> np.ndarray:
        """Return (N,) str: the ids of the sample submission, in its order: those of the test images, or of
        the answers where one is for several images."""
        return sample_ids_of(self.sample_csv, competition)

    def test_ids(self, competition: Competition) -> np.ndarray:
        """Return (N,) str: the ids of the test images, in the order of the sample where it lists them."""
        return test_ids_of(self.tables, competition)

    def test_answer_ids(self, competition: Competition) -> np.ndarray | None:
        """Return (N,) str: which answer each of `test_ids` belongs to; None if each image has its own. Raise
        CompError unless they are the ids of the sample."""
        return test_answers_of(self.tables, competition, self.test_ids(competition))

    def test_features(self, competition: Competition) -> np.ndarray | None:
        """Return (N, F) float32: the numbers beside each of `test_ids`; None without labels.features. Raise
        CompError unless they are those of the training images."""
        patterns = competition.labels.features
        if not patterns:
            return None
        path = self.tables.get("table", self.sample_csv)
        rows = self._rows("test", [], self.test_ids(competition))
        names, values = read_features(rows, patterns, path)
        known = match_columns(read_table(self.labels_csv, []), patterns)
        if names != known:
            odd = sorted(set(names) ^ set(known)) or names
            raise CompError(f"{path} has other features than {self.labels_csv}: {summarize(odd)}")
        return values

    def images(self, name: str, ids: np.ndarray, channels: Sequence[str]) -> ImageSet:
        folders = self.folders[name]
        cells = cells_of(self.tables, name, self.competition, folders, ids)
        found = find_images(name, ids, folders, channels, cells)
        return replace(found, limits=self.limits_of(channels))

    def limits_of(self, channels: Sequence[str]) -> Limits | None:
        """Return the limits of these channels of the images."""
        names = self.competition.images.channel_names
        return self.limits and self.limits.of_channels([names.index(channel) for channel in channels])

    def _columns(self, split: str) -> list[str]:
        """Return the columns that the templates of a set of images name."""
        return columns_in([pattern for _, pattern in self.folders[split]])

    def _rows(self, split: str, columns: Sequence[str], ids: np.ndarray) -> pd.DataFrame:
        """Return the rows (N,) of these ids in the table of a set of images."""
        return rows_of(self.tables, split, self.competition, columns, ids)

    @cached_property
    def limits(self) -> Limits | None:
        """Return the values that become black and white in files with more than 8 bits per channel:
        images.range of the competition, or what some training images use. They are the same for all
        images."""
        images = self.competition.images
        if given := images.range:
            return Limits.of_pairs(given if isinstance(given[0], tuple) else [given])  # type: ignore[list-item]
        by_channel = [self._some_files(channel) for channel in (images.channels or [""])]
        first = next((path for paths in by_channel for path in paths), None)
        if first and kind_of(first.read_bytes(), images.bands):
            return find_array_limits(by_channel, images.bands)
        return find_limits([path for paths in zip_longest(*by_channel) for path in paths if path])

    def check_form(self) -> None:
        """Raise CompError if the first training image needs a library that is not installed, or has other
        bands than the competition's TOML says. What is missing or damaged is found when all are read."""
        images = self.competition.images
        found = [self._some_files(channel)[:1] for channel in (images.channels or [""])]
        paths = [path for some in found for path in some]
        if len(paths) < len(found):
            return
        try:
            decode(paths, joined=bool(images.channel_names), bands=images.bands, limits=self.limits)
        except UnsuitableFile as error:
            raise CompError(f"{paths[0]}: {error}") from error
        except OSError:
            return

    def _some_files(self, channel: str) -> list[Path]:
        """Return the files of some training images, or those of one channel."""
        columns = self._columns("train")
        frame = training_rows(self.labels_csv, self.competition, columns)
        frame = frame.iloc[spread_indices(len(frame))]
        places = [
            place for folder, pattern in self.folders["train"] for place in expand_folders(folder, pattern)
        ]
        names = [
            (folder, file_name(pattern, row[self.competition.labels.id], channel, row))
            for row in (dict(zip(frame.columns, cells)) for cells in frame.to_numpy(object).tolist())
            for folder, pattern in places
        ]
        paths = [folder / name for folder, name in names if ".." not in name.split("/")]
        return [path for path in paths if path.is_file()]


def read_manifest(competition: Competition) -> CompetitionFiles:
    """Return the files of a competition. Raise CompError if it was not downloaded, or a file is missing."""
    path = manifest_path(competition.name)
    if not path.exists():
        raise CompError(f"{path} is not there; run `comp download` first")
    data = competition_files(read_json(path, Manifest), path.parent, competition)
    folders = [folder for places in data.folders.values() for folder, _ in places]
    for place in (*data.tables.values(), *folders):
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
    folders = {split: with_paths_as_ids(places, split, competition) for split, places in folders.items()}
    contents = {
        split: [(p["pattern"], p["files"], p["bytes"], p["digest"]) for p in places]
        for split, places in content["images"].items()
    }
    images = competition.images
    given = [part for part in (images.range, images.bands) if part]
    fingerprint = digest(contents, images.channels, *given)
    return CompetitionFiles(
        files["labels"], files["sample"], files.get("solution"), folders, fingerprint, competition, files
    )


def manifest_stamp(competition: Competition, source: str | None) -> dict[str, Any]:
    """Return what a manifest depends on; `source`: the folder or archive of --from."""
    fields = competition.model_dump(include={"name", "images", "submission", "drawn"})
    only = {"only": competition.labels.only} if competition.labels.only else {}
    return {
        **fields,
        "labels_csv": competition.labels.csv,
        **only,
        "from": source and str(Path(source).resolve()),
    }


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
    if not {"labels", "sample"} <= found["files"].keys():
        return False
    data = competition_files(found, data_dir(competition.name), competition)
    try:
        data.images("test", data.test_ids(competition), competition.images.channel_names)
        data.images("train", data.labels(competition).ids, competition.images.channel_names)
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
