"""Looks for a competition's files in folders and archives: data/<competition>, a folder of the user's, or
what a Kaggle kernel mounts. Archives are unpacked until all that is needed is found."""

import os
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from comp.archives import stem_of, unpack
from comp.artifacts import cache_dir, data_dir, digest, unpacked_dir
from comp.config import Competition
from comp.console import say
from comp.errors import CompError

DEPTH = 5  # folders below a source that are looked at


class Finder:
    """Looks for what a competition needs in folders, and unpacks archives until all of it is found."""

    def __init__(self, competition: Competition, places: Sequence[Path]):
        self.competition = competition
        self.folder, self.unpacked = data_dir(competition.name), unpacked_dir(competition.name)
        self.places = [place for place in places if place.is_dir()]
        self.archives: list[dict[str, Any]] = []
        self.listing: list[tuple[Path, list[str]]] = []

    def find(self) -> dict[str, Any]:
        """{"files": …, "images": …, "archives": …} of the manifest, paths relative to the data folder where
        they are in it. Raises CompError that names what is missing."""
        self._list()
        found, missing = self._look()
        waiting, seen = deque(self._archives(self.places)), set()
        while missing and waiting:
            archive = waiting.popleft()
            facts = archive.stat()
            key = digest(str(archive.resolve()), facts.st_size, facts.st_mtime_ns)
            if key in seen:
                continue
            seen.add(key)
            target = self.unpacked / f"{stem_of(archive)}-{key[:8]}" / str(stem_of(archive))
            if not target.exists():
                say(f"download: unpacking {archive.name} ({facts.st_size / 1e6:,.1f} MB)")
                unpack(archive, target)
            self.archives.append(
                {"archive": archive.name, "bytes": facts.st_size, "unpacked": target.parent.name}
            )
            self.places.append(target.parent)
            self._list()
            waiting.extendleft(reversed(self._archives([target])))
            found, missing = self._look()
        if missing and not self._enough(found):
            where = ", ".join(map(str, self.places)) or str(self.folder)
            raise CompError(
                f"{self.competition.name}: no {' and no '.join(missing)} in {where}; put the competition's "
                "archives or folders there, or name their folder with --from"
            )
        return {**found, "archives": self.archives}

    def remove_what_is_not_used(self) -> None:
        """What earlier calls unpacked from other archives."""
        used = {row["unpacked"] for row in self.archives}
        for path in self.unpacked.iterdir() if self.unpacked.is_dir() else []:
            if path.name not in used:
                shutil.rmtree(path)

    def _enough(self, found: dict[str, Any]) -> bool:
        """One of several image folders may be absent: some copies of a competition keep all images in one."""
        return {"labels", "sample"} <= found["files"].keys() and all(found["images"].values())

    def _look(self) -> tuple[dict[str, Any], list[str]]:
        competition, missing = self.competition, []
        files: dict[str, str] = {}
        wanted = {"labels": competition.labels.csv, "sample": competition.submission.sample}
        if competition.submission.solution:
            wanted["solution"] = (competition.submission.solution,)
        for name, candidates in wanted.items():
            path = next((p for c in candidates if (p := self._file(c))), None)
            if path:
                files[name] = self._relative(path)
            else:
                missing.append(f"{name} file ({' or '.join(candidates)})")
        images: dict[str, list[dict[str, Any]]] = {}
        for split, templates in (("train", competition.images.train), ("test", competition.images.test)):
            places = {template: self._image_folder(template) for template in templates}
            images[split] = [
                {"folder": self._relative(folder), "pattern": _split(template)[1], **_contents(folder)}
                for template, folder in places.items()
                if folder
            ]
            if absent := [template for template, folder in places.items() if not folder]:
                missing.append(f"{split} images ({', '.join(absent)})")
        return {"files": files, "images": images}, missing

    def _list(self) -> None:
        """(folder, names of its files) of everything below the places, without what earlier calls left
        there."""
        self.listing = []
        seen = set()
        own = {self.unpacked.resolve(), cache_dir(self.competition.name).resolve()}
        for place in self.places:
            for folder, names in _walk(place, DEPTH, own):
                if folder.resolve() not in seen:
                    seen.add(folder.resolve())
                    self.listing.append((folder, names))

    def _file(self, name: str) -> Path | None:
        return next((folder / name for folder, names in self.listing if name in names), None)

    def _image_folder(self, template: str) -> Path | None:
        """The folder whose path ends as the template's does, and that holds files of its kind."""
        tail, pattern = _split(template)
        ending = pattern.rpartition("}")[2]
        for folder, names in self.listing:
            if tail and folder.parts[-len(tail) :] != tail:
                continue
            deeper = (n for f, n in self.listing if folder in f.parents) if "/" in pattern else ()
            if any(name.endswith(ending) for group in (names, *deeper) for name in group):
                return folder
        return None

    def _archives(self, places: Sequence[Path]) -> list[Path]:
        """Archives below these places, those with the name of something needed first, then small ones."""
        competition = self.competition
        needed = {*competition.labels.csv, *competition.submission.sample}
        needed |= {
            part for t in (*competition.images.train, *competition.images.test) for part in _split(t)[0]
        }
        paths = [
            folder / name
            for folder, names in self.listing
            if any(folder == place or place in folder.parents for place in places)
            for name in names
            if stem_of(Path(name))
        ]
        return sorted(paths, key=lambda path: (stem_of(path) not in needed, path.stat().st_size, str(path)))

    def _relative(self, path: Path) -> str:
        inside, folder = path.resolve(), self.folder.resolve()
        return str(inside.relative_to(folder)) if inside.is_relative_to(folder) else str(inside)


def _split(template: str) -> tuple[tuple[str, ...], str]:
    """(folders, rest): 'a/b/{id}/{channel}.png' -> (('a', 'b'), '{id}/{channel}.png')."""
    parts = template.split("/")
    first = next(i for i, part in enumerate(parts) if "{" in part)
    return tuple(parts[:first]), "/".join(parts[first:])


def _contents(folder: Path) -> dict[str, Any]:
    """How many files a folder holds, their bytes, and a digest of their names and sizes."""
    with os.scandir(folder) as entries:
        sizes = sorted((entry.name, entry.stat().st_size) for entry in entries if entry.is_file())
    return {"files": len(sizes), "bytes": sum(size for _, size in sizes), "digest": digest(sizes)}


def _walk(place: Path, depth: int, without: set[Path]) -> Iterator[tuple[Path, list[str]]]:
    with os.scandir(place) as entries:
        items = sorted(entries, key=lambda entry: entry.name)
    yield place, [item.name for item in items if item.is_file() and not item.name.startswith(".")]
    if depth:
        for item in items:
            if item.is_dir() and not item.name.startswith(".") and Path(item.path).resolve() not in without:
                yield from _walk(Path(item.path), depth - 1, without)
