"""download: a competition's files, from a folder or drawn.

Reads a folder of archives or of unpacked files (--from, data/<competition>, or what a Kaggle kernel mounts);
writes data/<competition>/…, and manifest.json last."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from comp import demo
from comp.archives import stem_of, unpack
from comp.artifacts import (
    data_dir,
    digest,
    is_done,
    kaggle_input_dirs,
    locked,
    manifest_path,
    plain,
    read_json,
    read_stamp,
    write_json,
)
from comp.config import Competition, Recipe
from comp.console import say
from comp.errors import CompError
from comp.manifest import read_manifest

DEPTH = 5  # folders below a source that are looked at


def run(recipe: Recipe, *, source: str | None, force: bool) -> None:
    competition = recipe.competition
    path = manifest_path(competition.name)
    stamp = stamp_of(competition, source)
    if is_done(path, stamp, force=force) or (
        source is None and path.exists() and _same_but_source(path, stamp)
    ):
        read_manifest(competition)  # is all of it still there?
        say(f"download: {competition.name} done already")
        return
    folder = data_dir(competition.name)
    with locked(folder / ".lock", f"downloading {competition.name}"):
        if path.exists():
            for row in read_json(path)["sources"]:  # what came out of archives comes out of them again
                if "archive" in row:
                    shutil.rmtree(folder / row["unpacked"], ignore_errors=True)
            path.unlink()
        if competition.drawn:
            demo.draw(competition.drawn, folder)
        sources = _sources(competition, source, folder)
        found = Finder(competition, folder, sources).find()
        write_json(path, {"competition": competition.name, **found, "stamp": stamp})
    for line in describe(found):
        say(f"download: {line}")


def stamp_of(competition: Competition, source: str | None) -> dict[str, Any]:
    fields = competition.model_dump(include={"name", "images", "submission", "drawn"})
    return {**fields, "labels_csv": competition.labels.csv, "from": source and str(Path(source).resolve())}


def _same_but_source(path: Path, stamp: dict[str, Any]) -> bool:
    found = read_stamp(path) or {}
    return {**found, "from": None} == plain(stamp)


def _sources(competition: Competition, source: str | None, folder: Path) -> list[Path]:
    if source is not None:
        if not Path(source).is_dir():
            raise CompError(f"--from {source}: no such folder")
        return [folder, Path(source)]
    mounted = kaggle_input_dirs(competition.slug) if competition.slug else []
    return [folder, *mounted]


class Finder:
    """Looks for what a competition needs in folders, and unpacks archives until all of it is found."""

    def __init__(self, competition: Competition, folder: Path, sources: Sequence[Path]):
        self.competition, self.folder = competition, folder
        self.places = [place for place in sources if place.is_dir()]
        self.unpacked: list[dict[str, Any]] = []
        self.listing: list[tuple[Path, list[str]]] = []

    def find(self) -> dict[str, Any]:
        """{"files": …, "folders": …, "sources": …} of the manifest, paths relative to the data folder where
        they are in it. Raises CompError that names what is missing."""
        self._list()
        archives = sorted(
            (p for place in self.places for p in self._archives(place)),
            key=lambda p: (self._rank(p), p.stat().st_size),
        )
        found, missing = self._look()
        for archive in archives:
            if not missing:
                break
            target = self.folder / str(stem_of(archive))
            if not target.exists():
                say(f"download: unpacking {archive.name} ({archive.stat().st_size / 1e6:,.1f} MB)")
                unpack(archive, target)
            self.unpacked.append(
                {"archive": archive.name, "bytes": archive.stat().st_size, "unpacked": target.name}
            )
            self.places.append(target)
            self._list()
            found, missing = self._look()
        if missing and not self._enough(found):
            where = ", ".join(map(str, self.places)) or str(self.folder)
            raise CompError(
                f"{self.competition.name}: no {' and no '.join(missing)} in {where}; put the competition's "
                "archives or folders there, or name their folder with --from"
            )
        return {**found, "sources": self.unpacked + self._in_place(found)}

    def _enough(self, found: dict[str, Any]) -> bool:
        """One of several image folders may be absent: some copies of a competition keep all images in one."""
        return all(found["files"][name] for name in ("labels", "sample")) and all(found["folders"].values())

    def _look(self) -> tuple[dict[str, Any], list[str]]:
        competition, missing = self.competition, []
        files: dict[str, str | None] = {"solution": None}
        wanted = {"labels": competition.labels.csv, "sample": competition.submission.sample}
        if competition.submission.solution:
            wanted["solution"] = (competition.submission.solution,)
        for name, candidates in wanted.items():
            path = next((p for c in candidates if (p := self._file(c))), None)
            files[name] = None if path is None else self._relative(path)
            if path is None:
                missing.append(f"{name} file ({' or '.join(candidates)})")
        folders: dict[str, list[tuple[str, str]]] = {}
        for split, templates in (("train", competition.images.train), ("test", competition.images.test)):
            places = [
                (p, t.rpartition("/")[2]) for t in templates if (p := self._image_folder(t)) is not None
            ]
            folders[split] = [(self._relative(p), pattern) for p, pattern in places]
            if len(places) < len(templates):
                absent = [t for t in templates if self._image_folder(t) is None]
                missing.append(f"{split} images ({', '.join(absent)})")
        return {"files": files, "folders": folders}, missing

    def _list(self) -> None:
        """(folder, names of its files) of everything below the sources."""
        self.listing = []
        seen = set()
        for place in self.places:
            for folder, names in _walk(place, DEPTH):
                if folder.resolve() not in seen and folder.name != "cache":
                    seen.add(folder.resolve())
                    self.listing.append((folder, names))

    def _file(self, name: str) -> Path | None:
        return next((folder / name for folder, names in self.listing if name in names), None)

    def _image_folder(self, template: str) -> Path | None:
        """The folder whose path ends as the template's does, and that holds files of its kind."""
        tail, _, pattern = template.rpartition("/")
        ending = pattern.rpartition("}")[2]
        parts = Path(tail).parts
        for folder, names in self.listing:
            if (not parts or folder.parts[-len(parts) :] == parts) and any(n.endswith(ending) for n in names):
                return folder
        return None

    def _archives(self, place: Path) -> Iterator[Path]:
        for folder, names in self.listing:
            if folder == place or place in folder.parents:
                yield from (folder / name for name in names if stem_of(Path(name)))

    def _rank(self, archive: Path) -> int:
        """0 for an archive with the name of something that is needed."""
        competition = self.competition
        names = {*competition.labels.csv, *competition.submission.sample}
        names |= {
            part for t in (*competition.images.train, *competition.images.test) for part in Path(t).parts[:-1]
        }
        return 0 if stem_of(archive) in names else 1

    def _in_place(self, found: dict[str, Any]) -> list[dict[str, Any]]:
        """What each used file and folder holds: a count, its bytes, and a digest of names and sizes."""
        names = sorted(filter(None, found["files"].values()))
        rows = [{"path": name, "bytes": (self.folder / name).stat().st_size} for name in names]
        for folder in sorted({folder for places in found["folders"].values() for folder, _ in places}):
            with os.scandir(self.folder / folder) as entries:
                sizes = sorted((entry.name, entry.stat().st_size) for entry in entries if entry.is_file())
            total = sum(size for _, size in sizes)
            rows.append({"path": folder, "files": len(sizes), "bytes": total, "digest": digest(sizes)})
        return rows

    def _relative(self, path: Path) -> str:
        inside, folder = path.resolve(), self.folder.resolve()
        return str(inside.relative_to(folder)) if inside.is_relative_to(folder) else str(inside)


def _walk(place: Path, depth: int) -> Iterator[tuple[Path, list[str]]]:
    with os.scandir(place) as entries:
        items = sorted(entries, key=lambda entry: entry.name)
    yield place, [item.name for item in items if item.is_file() and not item.name.startswith(".")]
    if depth:
        for item in items:
            if item.is_dir() and not item.name.startswith("."):
                yield from _walk(Path(item.path), depth - 1)


def describe(found: dict[str, Any]) -> Iterator[str]:
    for row in found["sources"]:
        if "path" in row:
            files = f"{row['files']:,} files, " if "files" in row else ""
            yield f"{row['path']}: {files}{row['bytes'] / 1e6:,.1f} MB"
