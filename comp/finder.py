"""Looks for a competition's files in folders and archives: data/<competition>, a folder of the user's, or
what a Kaggle kernel mounts. Archives are unpacked until all that is needed is found."""

import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comp.archives import stem_of, unpack
from comp.artifacts import cache_dir, data_dir, digest, inside, refuse_link, remove, unpacked_dir
from comp.config import Competition
from comp.console import say, size_text

DEPTH = 5  # folders below a source that are looked at
NESTED = 5  # archives in each other that are unpacked
MOST_ARCHIVES = 20_000
SPLITS = ("train", "test")
ALL = ("labels", "sample", "solution", *SPLITS)


@dataclass(frozen=True)
class Need:
    """A file, or a folder of images, that a competition can't do without."""

    part: str  # labels, sample, solution, train, test
    names: tuple[str, ...]  # file names, of which one will do; or one image template

    def __str__(self) -> str:
        kind = "images" if self.part in SPLITS else "file"
        return f"{self.part} {kind} ({' or '.join(self.names)})"

    def is_file(self, name: str) -> bool:
        """Whether a file of this name is what is needed, or an archive that is named after it."""
        if self.part in SPLITS:
            return stem_of(Path(name)) in split_template(self.names[0])[0][-1:]
        return Path(name).name in self.names or stem_of(Path(name)) in self.names

    def is_in_place(self, name: str) -> bool:
        """Whether such an archive lies in the folders that the template begins with."""
        above = split_template(self.names[0])[0][:-1] if self.part in SPLITS else ()
        folders = Path(name).parts[:-1]
        return folders[len(folders) - len(above) :] == above

    def is_image(self, name: str) -> bool:
        """Whether a file of this name, with its folders, is one of the images needed."""
        if self.part not in SPLITS:
            return False
        tail, pattern = split_template(self.names[0])
        ending, folders = pattern.rpartition("}")[2], Path(name).parts[:-1]
        n_deeper = pattern.count("/")
        folders = folders[: len(folders) - n_deeper]
        return name.endswith(ending) and folders[len(folders) - len(tail) :] == tail


def needs(competition: Competition, parts: Collection[str] = ALL) -> list[Need]:
    found = [Need("labels", competition.labels.csv), Need("sample", competition.submission.sample)]
    if competition.submission.solution:
        found.append(Need("solution", (competition.submission.solution,)))
    images = competition.images
    found += [Need(split, (t,)) for split in SPLITS for t in getattr(images, split)]
    return [need for need in found if need.part in parts]


class Finder:
    """Looks for `parts` of what a competition needs in folders, and unpacks archives until all of them are
    found. Folders of images that aren't among the parts are not listed: Kaggle's mounts take a minute for
    100,000 files."""

    def __init__(self, competition: Competition, places: Sequence[Path], parts: Collection[str] = ALL):
        self.competition, self.parts = competition, parts
        self.folder, self.unpacked = data_dir(competition.name), unpacked_dir(competition.name)
        self.places = [place for place in places if place.is_dir()]
        self.archives: list[dict[str, Any]] = []
        self.depths: dict[Path, int] = {}  # by folder: the archives in each other that it came out of
        self.listing: list[tuple[Path, list[str]]] = []
        refuse_link(self.unpacked)

    def find(self) -> tuple[dict[str, Any], list[Need]]:
        """({"files": …, "images": …, "archives": …} of the manifest, paths relative to the data folder where
        they are in it; what was not found)."""
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
            home = max((p for p in self.places if p in archive.parents), key=lambda p: len(p.parts))
            depth = self.depths.get(home, 0) + 1
            if depth > NESTED or len(self.archives) == MOST_ARCHIVES:
                many = f"{NESTED} others" if depth > NESTED else f"a source with {MOST_ARCHIVES:,} archives"
                say(f"download: {archive.name} lies in {many} and is not unpacked")
                continue
            within = archive.parent.relative_to(home)  # folders of a template may end in an archive's name
            root = self.unpacked / f"{stem_of(archive)}-{key[:8]}"
            target = inside(self.unpacked, f"{root.name}/{within / str(stem_of(archive))}", archive)
            if not target.exists():
                say(f"download: unpacking {archive.name} ({size_text(facts.st_size)})")
                unpack(archive, target)
            self.archives.append({"archive": archive.name, "bytes": facts.st_size, "unpacked": root.name})
            self.places.append(root)
            self.depths[root] = depth
            self._list()
            waiting.extendleft(reversed(self._archives([target])))
            found, missing = self._look()
        return {**found, "archives": self.archives}, missing

    def remove_what_is_not_used(self) -> None:
        """What earlier calls unpacked from other archives."""
        used = {row["unpacked"] for row in self.archives}
        for path in self.unpacked.iterdir() if self.unpacked.is_dir() else []:
            if path.name not in used:
                remove(path, inside=self.unpacked)

    def _look(self) -> tuple[dict[str, Any], list[Need]]:
        files: dict[str, str] = {}
        images: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
        missing = []
        for need in needs(self.competition, self.parts):
            if need.part in images:
                if folder := self._image_folder(need.names[0]):
                    row = {"folder": self._relative(folder), "pattern": split_template(need.names[0])[1]}
                    images[need.part].append({**row, **contents(folder)})
                    continue
            elif path := next((p for name in need.names if (p := self._file(name))), None):
                files[need.part] = self._relative(path)
                continue
            missing.append(need)
        return {"files": files, "images": images}, missing

    def _list(self) -> None:
        """(folder, names of its files) of everything below the places, without what earlier calls left
        there."""
        self.listing = []
        seen = set()
        own = {self.unpacked.resolve(), cache_dir(self.competition.name).resolve()}
        tails = {
            part: {split_template(t)[0] for t in getattr(self.competition.images, part)} for part in SPLITS
        }
        wanted = set().union(*(tails[part] for part in SPLITS if part in self.parts))
        others = set().union(*tails.values()) - wanted - {()}

        def left_out(folder: Path) -> bool:
            return any(folder.parts[-len(t) :] == t for t in others) or folder.resolve() in own

        for place in self.places:
            for folder, names in _walk(place, DEPTH, left_out):
                if folder.resolve() not in seen:
                    seen.add(folder.resolve())
                    self.listing.append((folder, names))

    def _file(self, name: str) -> Path | None:
        return next((folder / name for folder, names in self.listing if name in names), None)

    def _image_folder(self, template: str) -> Path | None:
        """The folder whose path ends as the template's does, and that holds files of its kind."""
        tail, pattern = split_template(template)
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
            part
            for t in (*competition.images.train, *competition.images.test)
            for part in split_template(t)[0]
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


def split_template(template: str) -> tuple[tuple[str, ...], str]:
    """(folders, rest): 'a/b/{id}/{channel}.png' -> (('a', 'b'), '{id}/{channel}.png')."""
    parts = template.split("/")
    first = next(i for i, part in enumerate(parts) if "{" in part)
    return tuple(parts[:first]), "/".join(parts[first:])


def contents(folder: Path) -> dict[str, Any]:
    """How many files a folder holds, their bytes, and a digest of their names and sizes."""
    with os.scandir(folder) as entries:
        sizes = sorted((entry.name, entry.stat().st_size) for entry in entries if entry.is_file())
    return {"files": len(sizes), "bytes": sum(size for _, size in sizes), "digest": digest(sizes)}


def _walk(place: Path, depth: int, left_out: Callable[[Path], bool]) -> Iterator[tuple[Path, list[str]]]:
    with os.scandir(place) as entries:
        items = sorted(entries, key=lambda entry: entry.name)
    yield place, [item.name for item in items if item.is_file() and not item.name.startswith(".")]
    if depth:
        for item in items:
            if item.is_dir() and not item.name.startswith(".") and not left_out(Path(item.path)):
                yield from _walk(Path(item.path), depth - 1, left_out)
