"""Which files to fetch from which source on Kaggle."""

from collections.abc import Sequence
from pathlib import Path

from comp.artifacts.files import free_bytes
from comp.artifacts.paths import downloads_dir
from comp.config.competition import Competition
from comp.console import say, size_text
from comp.data.archives import stem_of, whole_of
from comp.data.discovery import Need
from comp.errors import CompError
from comp.kaggle.client import Kaggle, RemoteFile
from comp.kaggle.download import read_notes


def fetch(competition: Competition, missing: Sequence[Need]) -> None:
    """Bring what is missing from the first source that has it to data/<competition>/downloads/."""
    kaggle = Kaggle()
    folder = downloads_dir(competition.name)
    plan, left, unseen = [], list(missing), False
    for source in competition.all_sources:
        if left:
            files, all_listed = kaggle.files(source)
            chosen, left = choose(left, files, all_listed)
            plan += [(source, file) for file in chosen]
            unseen = unseen or not all_listed
    found_nothing = {need.part for need in missing} - {need.part for need in missing if need not in left}
    if found_nothing and not unseen:
        raise CompError(
            f"{competition.name}: {' and '.join(competition.all_sources)} have no "
            f"{' and no '.join(str(need) for need in left if need.part in found_nothing)}; "
            "put the files into a folder and name it with --from"
        )
    notes = {(note["source"], note["name"]): note for note in read_notes(folder)}
    plan = [(source, file) for source, file in plan if (source, name_of(source, file)) not in notes]
    for source, file in plan:
        size = size_text(file.bytes) if file else "all files as one zip"
        say(f"download: {name_of(source, file)} ({size}) from kaggle.com/{source}")
    listed = sum(file.bytes * (2 if stem_of(Path(file.name)) else 1) for _, file in plan if file)
    if listed > (free := free_bytes(folder)):
        raise CompError(
            f"{competition.name} needs {size_text(listed)}, archives and what is unpacked from them; "
            f"{folder} has {size_text(free)} free: make room, or move data/ with COMP_DATA"
        )
    for source, file in plan:
        kaggle.fetch(source, file, folder)
        say(f"download: {name_of(source, file)} is there, whole")


def name_of(source: str, file: RemoteFile | None) -> str:
    return file.name if file else f"{source.rpartition('/')[2]}.zip"


def choose(
    wanted: Sequence[Need], files: Sequence[RemoteFile], all_listed: bool
) -> tuple[list[RemoteFile | None], list[Need]]:
    """(the files of a source to fetch, what it does not show). None stands for all files as one zip: images
    that lie there one by one are not fetched so, and what a cut listing does not show may be in it."""
    chosen: dict[str, RemoteFile] = {}
    left, as_zip = [], False
    for need in wanted:
        fitting = [f for f in files if need.is_file(f.name)]
        if fitting:
            file = min(fitting, key=lambda f: (not need.is_in_place(f.name), f.bytes))
            chosen |= {f.name: f for f in files if whole_of(f.name) == whole_of(file.name)}  # all its parts
        elif any(need.is_image(f.name) for f in files):
            as_zip = True
        else:
            left.append(need)
    if as_zip or (left and not all_listed):
        return [None], left
    return list(chosen.values()), left
