"""download: a competition's files, from Kaggle, from a folder, or drawn.

Reads what lies in data/<competition>, in a folder (--from) or where a Kaggle kernel mounts it, and fetches
from Kaggle what is missing; writes data/<competition>/downloads/ and unpacked/, and manifest.json last.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from comp.artifacts.files import locked, read_json, write_json
from comp.artifacts.paths import data_dir, downloads_dir, manifest_path, mounted, unpacked_dir
from comp.artifacts.safe_paths import remove
from comp.artifacts.schemas import Manifest
from comp.artifacts.stamps import is_done, plain, read_stamp
from comp.config.competition import Competition
from comp.config.recipe import Recipe
from comp.console import say, size_text
from comp.data.archives import Damaged
from comp.data.discovery import Finder, Need, contents, from_folder
from comp.data.manifest import Data, data_of, place_of, read_manifest
from comp.data.synthetic import generate as demo
from comp.errors import CompError, NoImages, some
from comp.kaggle.download import is_as_noted, note_of, read_notes, sha256_of
from comp.kaggle.errors import NoCredentials
from comp.kaggle.sources import fetch
from comp.kaggle.submission_file import check_sample


def run(recipe: Recipe, *, source: str | None, force: bool) -> None:
    competition = recipe.competition
    if source is not None:
        from_folder(source)
    path = manifest_path(competition.name)
    stamp = stamp_of(competition, source)
    folder = data_dir(competition.name)
    with locked(folder / ".lock", f"downloading {competition.name}"):
        as_it_came = _is_as_it_came(competition)
        if _is_done(path, stamp, source, force=force) and as_it_came and _is_there(competition, force=force):
            say(f"download: {competition.name} done already")
            _check_tables(read_manifest(competition), competition)
            return
        known = (read_stamp(path) or {}).get("from")
        if source is None and known and Path(known).exists():
            source, stamp = known, stamp_of(competition, known)
        if competition.drawn:
            demo.draw(competition, folder)
        in_kernel = [place for name in competition.all_sources if (place := mounted(name))]
        places = [folder, *([Path(source)] if source else []), *in_kernel]
        finder, found, missing = _find(competition, places)
        from_kaggle = competition.all_sources and not source and not in_kernel
        if from_kaggle and not _is_enough(found, missing, competition):
            try:
                fetch(competition, missing)
            except NoCredentials as error:
                if any(found["images"].values()):
                    raise
                raise NoImages(f"{competition.name}: no images in {folder}, and {error}") from error
            finder, found, missing = _find(competition, places)
        if not _is_enough(found, missing, competition):
            raise CompError(
                f"{competition.name}: no {' and no '.join(map(str, missing))} in "
                f"{', '.join(map(str, places))}; put the competition's archives or folders there, or name "
                f"their folder with --from{finder.nearly(missing)}"
            )
        notes = read_notes(downloads_dir(competition.name))
        tables = {name: sha256_of(folder / file) for name, file in found["files"].items()}
        content = {"competition": competition.name, **found, "tables": tables, "downloads": notes}
        _check_tables(data_of(content, folder, competition), competition)
        write_json(path, {**content, "stamp": stamp})
        finder.remove_what_is_not_used()
    for line in describe(found):
        say(f"download: {line}")


def _find(competition: Competition, places: Sequence[Path]) -> tuple[Finder, dict[str, Any], list[Need]]:
    """The finder, what it found, what it did not. A download that turns out to be damaged is removed."""
    finder = Finder(competition, places)
    try:
        return finder, *finder.find()
    except Damaged as error:
        for note in read_notes(folder := downloads_dir(competition.name)):
            if error.path.resolve() == (folder / note["file"]).resolve():
                _remove_download(folder, note)
                raise CompError(f"{error}; it was removed: run again to fetch it anew") from error
        raise


def stamp_of(competition: Competition, source: str | None) -> dict[str, Any]:
    fields = competition.model_dump(include={"name", "images", "submission", "drawn"})
    return {**fields, "labels_csv": competition.labels.csv, "from": source and str(Path(source).resolve())}


def _is_done(path: Path, stamp: dict[str, Any], source: str | None, *, force: bool) -> bool:
    """Without --from, whatever folder the files came from will do."""
    if source is None and (found := read_stamp(path)) and {**found, "from": None} == plain(stamp):
        return True
    return is_done(path, stamp, force=force)


def _is_there(competition: Competition, *, force: bool) -> bool:
    try:
        read_manifest(competition)
    except CompError:
        if not force:
            raise
        return False
    return True


def _check_tables(data: Data, competition: Competition) -> None:
    """Say what there is to say of labels and sample submission before anything is trained on them."""
    if line := check_sample(data.sample_csv, competition, data.labels(competition).classes):
        say(f"download: {line}")


def _is_enough(found: dict[str, Any], missing: Sequence[Need], competition: Competition) -> bool:
    """Nothing is missing; or where all images are there, a folder less does not matter: some copies of a
    competition keep the images of two folders in one."""
    if not missing:
        return True
    if any(need.part not in found["images"] for need in missing) or not all(found["images"].values()):
        return False
    data = data_of(found, data_dir(competition.name), competition)
    try:
        data.images("test", data.sample_ids(competition), competition.images.channels)
        data.images("train", data.labels(competition).ids, competition.images.channels)
    except CompError:
        return False
    return True


# --- from Kaggle --------------------------------------------------------------------------------------------


# --- later --------------------------------------------------------------------------------------------------


def _is_as_it_came(competition: Competition) -> bool:
    """Whether the files are those that the manifest describes. What is ours and changed is removed, so that
    it is fetched or unpacked again; what is the user's is named, and taken as it is now."""
    path = manifest_path(competition.name)
    whole = True
    for note in read_notes(downloads := downloads_dir(competition.name)):
        file = downloads / note["file"]
        if not file.exists() and path.exists():
            continue  # unpacked, and removed to save space
        if file.exists() and is_as_noted(file, note):
            continue
        say(f"download: {file} was cut or changed since it came; it is fetched again")
        _remove_download(downloads, note)
        whole = False
    if not path.exists():
        return whole
    manifest = read_json(path, Manifest)
    rows = [row for rows in manifest["images"].values() for row in rows]
    names = (*(row["folder"] for row in rows), *manifest["files"].values())
    places = {name: place_of(path.parent, name) for name in names}
    changed = [place for row in rows if _folder_changed(place := places[row["folder"]], row)]
    changed = list(dict.fromkeys(changed))
    changed += [
        places[file]
        for name, file in manifest["files"].items()
        if places[file].exists()
        and manifest.get("tables", {}).get(name) not in (None, sha256_of(places[file]))
    ]
    unpacked = unpacked_dir(competition.name)
    for place in changed:
        if not place.is_relative_to(unpacked):
            continue
        say(f"download: {place} is not as it was unpacked; it is unpacked again")
        remove(unpacked.joinpath(*place.relative_to(unpacked).parts[:1]), inside=unpacked)
        whole = False
    if others := [place for place in changed if not place.is_relative_to(unpacked)]:
        say(f"download: {some(others)} changed since the last download; taken as it is now")
        whole = False
    return whole


def _remove_download(folder: Path, note: dict[str, Any]) -> None:
    for path in (folder / note["file"], note_of(folder / note["file"])):
        remove(path, inside=folder)


def _folder_changed(folder: Path, row: dict[str, Any]) -> bool:
    if not folder.is_dir():
        return False  # a folder that is gone is an error of its own
    return contents(folder, row["pattern"])["digest"] != row["digest"]


def describe(found: dict[str, Any]) -> Iterator[str]:
    for name, path in found["files"].items():
        yield f"{name}: {path}"
    for split, places in found["images"].items():
        for row in places:
            yield f"{split} images: {row['folder']}, {row['files']:,} files, {size_text(row['bytes'])}"
