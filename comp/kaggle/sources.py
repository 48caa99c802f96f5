"""Choose which files to download from which source on Kaggle, and download them."""

from collections.abc import Sequence
from pathlib import Path

from comp.artifacts.files import free_bytes
from comp.artifacts.paths import downloads_dir
from comp.config.competition import Competition
from comp.console import info, size_text
from comp.data.archives import stem_of, unpacking_bytes, whole_of
from comp.data.discovery import RequiredFile
from comp.errors import CompError
from comp.kaggle.client import Kaggle
from comp.kaggle.download import read_notes
from comp.kaggle.session import RemoteFile


def fetch_missing(competition: Competition, missing: Sequence[RequiredFile]) -> None:
    """Download each missing file from the first source that has it to data/<competition>/downloads/. Raise
    CompError if no source has it or the disk is too small."""
    kaggle = Kaggle()
    folder = downloads_dir(competition.name)
    plan, left, unseen = [], list(missing), False
    for source in competition.all_sources:
        if left:
            files, all_listed = kaggle.list_files(source)
            chosen, left = choose_files(left, files, all_listed)
            plan += [(source, file) for file in chosen]
            unseen = unseen or not all_listed
    found_nothing = {need.part for need in missing} - {need.part for need in missing if need not in left}
    if found_nothing and not unseen:
        raise CompError(
            f"{competition.name}: {' and '.join(competition.all_sources)} have no "
            f"{' and no '.join(str(need) for need in left if need.part in found_nothing)}; "
            "put the files into a folder and give it with --from"
        )
    notes = {
        (note["source"], note["name"]) for note in read_notes(folder) if (folder / note["file"]).exists()
    }
    plan = [(source, file) for source, file in plan if (source, _name_of(source, file)) not in notes]
    for source, file in plan:
        size = size_text(file.bytes) if file else "all files as one zip"
        info(f"download: {_name_of(source, file)} ({size}) from kaggle.com/{source}")
    listed = sum(file.bytes + unpacking_bytes(Path(file.name), file.bytes) for _, file in plan if file)
    if listed > (free := free_bytes(folder)):
        raise CompError(
            f"{competition.name} takes {size_text(listed)} for archives and their contents; "
            f"{folder} has {size_text(free)} free: free some space, or move data/ with COMP_DATA"
        )
    for source, file in plan:
        kaggle.fetch(source, file, folder)
        info(f"download: {_name_of(source, file)} complete")


def _name_of(source: str, file: RemoteFile | None) -> str:
    return file.name if file else f"{source.rpartition('/')[2]}.zip"


def choose_files(
    wanted: Sequence[RequiredFile], files: Sequence[RemoteFile], all_listed: bool
) -> tuple[list[RemoteFile | None], list[RequiredFile]]:
    """Return (the files of a source to download, the required files that it does not list). None stands for
    all files as one zip: single images are not downloaded one by one, and the zip may contain files beyond an
    incomplete list."""
    chosen: dict[str, RemoteFile] = {}
    left, as_zip = [], False
    for need in wanted:
        matching = [f for f in files if need.is_file(f.name)]
        if matching:
            file = min(matching, key=lambda f: (not need.is_in_place(f.name), f.bytes))
            chosen |= {f.name: f for f in files if whole_of(f.name) == whole_of(file.name)}  # all its parts
        elif any(need.is_image(f.name) and not stem_of(Path(f.name)) for f in files):
            as_zip = True
        elif need.is_anywhere and (archives := [f for f in files if stem_of(Path(f.name))]):
            chosen |= {f.name: f for f in archives}
        else:
            left.append(need)
    if as_zip or (left and not all_listed):
        return [None], left
    return list(chosen.values()), left
