"""download: a competition's files, from a folder or drawn.

Reads a folder of archives or of unpacked files (--from, data/<competition>, or what a Kaggle kernel mounts);
writes data/<competition>/unpacked/…, and manifest.json last.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from comp import demo
from comp.artifacts import (
    data_dir,
    is_done,
    kaggle_input_dirs,
    locked,
    manifest_path,
    plain,
    read_stamp,
    write_json,
)
from comp.config import Competition, Recipe
from comp.console import say
from comp.errors import CompError
from comp.finder import Finder
from comp.manifest import read_manifest


def run(recipe: Recipe, *, source: str | None, force: bool) -> None:
    competition = recipe.competition
    if source is not None and not Path(source).is_dir():
        raise CompError(f"--from {source}: no such folder")
    path = manifest_path(competition.name)
    stamp = stamp_of(competition, source)
    if _is_done(path, stamp, source, force=force) and _is_there(competition, force=force):
        say(f"download: {competition.name} done already")
        return
    folder = data_dir(competition.name)
    with locked(folder / ".lock", f"downloading {competition.name}"):
        if competition.drawn:
            demo.draw(competition.drawn, folder)
        places = [folder, Path(source)] if source else [folder]
        mounted = kaggle_input_dirs(competition.slug) if competition.slug else []
        finder = Finder(competition, [*places, *mounted])
        found = finder.find()
        write_json(path, {"competition": competition.name, **found, "stamp": stamp})
        finder.remove_what_is_not_used()
    for line in describe(found):
        say(f"download: {line}")


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


def describe(found: dict[str, Any]) -> Iterator[str]:
    for name, path in found["files"].items():
        yield f"{name}: {path}"
    for split, places in found["images"].items():
        for row in places:
            yield f"{split} images: {row['folder']}, {row['files']:,} files, {row['bytes'] / 1e6:,.1f} MB"
