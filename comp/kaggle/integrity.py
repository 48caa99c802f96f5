"""Are the files on this disk still those that were downloaded, unpacked and described in the manifest?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from comp.artifacts.files import read_json
from comp.artifacts.paths import downloads_dir, manifest_path, unpacked_dir
from comp.artifacts.safe_paths import remove
from comp.artifacts.schemas import Manifest
from comp.config.competition import Competition
from comp.console import info
from comp.data.archives import DamagedArchive
from comp.data.discovery import FileFinder, RequiredFile
from comp.data.folder_files import folder_contents
from comp.data.manifest import resolve_place
from comp.errors import CompError, summarize
from comp.kaggle.download import matches_note, note_path, read_notes, sha256_of


def find_files(
    competition: Competition, places: Sequence[Path], reserve: int = 0
) -> tuple[FileFinder, dict[str, Any], list[RequiredFile]]:
    """Return (the finder, the files that it found, the required files that it did not find). Downloaded zips
    are removed while they are unpacked unless `reserve` bytes stay free. If a download turns out to be a
    damaged archive, remove it and raise CompError."""
    folder = downloads_dir(competition.name)
    finder = FileFinder(competition, places)
    finder.reserves = {(folder / note["file"]).resolve(): reserve for note in read_notes(folder)}
    try:
        return finder, *finder.find()
    except DamagedArchive as error:
        for note in read_notes(folder):
            if error.path.resolve() == (folder / note["file"]).resolve():
                _remove_download(folder, note)
                raise CompError(f"{error}; it was removed: run again to download it again") from error
        raise


def remove_changed_files(competition: Competition) -> bool:
    """Return whether all files are unchanged. Remove changed downloads and unpacked folders, so that they are
    downloaded or unpacked again. Name changed files of the user; they are used as they are now."""
    path = manifest_path(competition.name)
    unchanged = True
    for note in read_notes(downloads := downloads_dir(competition.name)):
        file = downloads / note["file"]
        if not file.exists() and path.exists():
            continue  # unpacked, and removed to save space
        if file.exists() and matches_note(file, note):
            continue
        info(f"download: {file} was cut or changed since its download; downloading it again")
        _remove_download(downloads, note)
        unchanged = False
    if not path.exists():
        return unchanged
    changed, unpacked = _changed_places(path), unpacked_dir(competition.name)
    for place in changed:
        if not place.is_relative_to(unpacked):
            continue
        info(f"download: {place} was changed since it was unpacked; unpacking it again")
        remove(unpacked.joinpath(*place.relative_to(unpacked).parts[:1]), inside=unpacked)
        unchanged = False
    if others := [place for place in changed if not place.is_relative_to(unpacked)]:
        info(f"download: {summarize(others)} changed since the last download; used as it is now")
        unchanged = False
    return unchanged


def _changed_places(path: Path) -> list[Path]:
    """Return the folders of images and the tables that differ from what the manifest `path` says."""
    manifest = read_json(path, Manifest)
    rows = [row for rows in manifest["images"].values() for row in rows]
    names = (*(row["folder"] for row in rows), *manifest["files"].values())
    places = {name: resolve_place(path.parent, name) for name in names}
    folders = [place for row in rows if _folder_changed(place := places[row["folder"]], row)]
    tables = [
        places[file]
        for name, file in manifest["files"].items()
        if places[file].exists()
        and manifest.get("tables", {}).get(name) not in (None, sha256_of(places[file]))
    ]
    return [*dict.fromkeys(folders), *tables]


def _folder_changed(folder: Path, row: dict[str, Any]) -> bool:
    if not folder.is_dir():
        return False  # read_manifest raises an error for a missing folder
    return folder_contents(folder, row["pattern"])["digest"] != row["digest"]


def _remove_download(folder: Path, note: dict[str, Any]) -> None:
    for path in (folder / note["file"], note_path(folder / note["file"])):
        remove(path, inside=folder)
