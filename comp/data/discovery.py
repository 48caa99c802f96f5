"""Looks for a competition's files in folders and archives: data/<competition>, a folder of the user's, or
what a Kaggle kernel mounts. Archives are unpacked until all that is needed is found."""

import os
import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comp.artifacts.paths import cache_dir, data_dir, runs_dir, unpacked_dir
from comp.artifacts.safe_paths import inside, refuse_link, remove
from comp.artifacts.stamps import digest
from comp.config.competition import Competition
from comp.console import say, size_text
from comp.data.archives import parts_of, stem_of, unpack, whole_of
from comp.data.image_files import as_expression, composed
from comp.errors import CompError

IMAGE = r"\.(jpe?g|png|tiff?|bmp|gif|webp|dcm|jp2|npy)"
UNKNOWN = re.compile(r".*\.(rar|gz|bz2|xz|zst|lz4|z\d\d|cab|iso)", re.IGNORECASE)  # packed in other ways
DEPTH = 5  # folders below a source that are looked at, besides those of a template's own
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
        fits = as_expression(self.names[0], identifier=".+").fullmatch
        parts = composed(name).split("/")
        return any(fits("/".join(parts[i:])) for i in range(len(parts)))


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
        self.files = [place for place in places if place.is_file()]
        self.archives: list[dict[str, Any]] = []
        self.listing: dict[Path, list[str]] = {}  # by folder the names of its files
        self.depths: dict[Path, int] = {}  # by folder: the archives in each other that it came out of
        refuse_link(self.unpacked)

    def find(self) -> tuple[dict[str, Any], list[Need]]:
        """({"files": …, "images": …, "archives": …} of the manifest, paths relative to the data folder where
        they are in it; what was not found)."""
        self._list()
        found, missing = self._look()
        waiting, seen = deque(self._archives([*self.places, *(file.parent for file in self.files)])), set()
        while missing and waiting:
            archive = waiting.popleft()
            parts = parts_of(archive)
            facts = [part.stat() for part in parts]
            size, newest = sum(f.st_size for f in facts), max(f.st_mtime_ns for f in facts)
            key = digest(str(archive.resolve()), size, newest)
            if key in seen:
                continue
            seen.add(key)
            homes = [p for p in self.places if p in archive.parents] or [archive.parent]
            home = max(homes, key=lambda p: len(p.parts))
            depth = self.depths.get(home, 0) + 1
            if depth > NESTED or len(self.archives) == MOST_ARCHIVES:
                many = f"{NESTED} others" if depth > NESTED else f"a source with {MOST_ARCHIVES:,} archives"
                say(f"download: {archive.name} lies in {many} and is not unpacked")
                continue
            within = archive.parent.relative_to(home)  # folders of a template may end in an archive's name
            root = self.unpacked / f"{stem_of(archive)}-{key[:8]}"
            target = inside(self.unpacked, f"{root.name}/{within / str(stem_of(archive))}", archive)
            if not target.exists():
                more = f" and {len(parts) - 1} more parts" if len(parts) > 1 else ""
                say(f"download: unpacking {archive.name}{more} ({size_text(size)})")
                unpack(archive, target)
            self.archives.append({"archive": archive.name, "bytes": size, "unpacked": root.name})
            self.places.append(root)
            self.depths[root] = depth
            self._list()
            waiting.extendleft(reversed(self._archives([target])))
            found, missing = self._look()
        for row in (row for rows in found["images"].values() for row in rows):
            row |= contents(self.folder / row["folder"], row["pattern"])
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
                    images[need.part].append(row)
                    continue
            elif path := next((p for name in need.names if (p := self._file(name))), None):
                files[need.part] = self._relative(path)
                continue
            missing.append(need)
        return {"files": files, "images": images}, missing

    def _list(self) -> None:
        """(folder, names of its files) of everything below the places, without what earlier calls left
        there."""
        self.listing = {}
        seen = set()
        own = {os.path.realpath(f) for f in (self.unpacked, cache_dir(self.competition.name))}
        images = self.competition.images
        tails = {part: {split_template(t)[0] for t in getattr(images, part)} for part in SPLITS}
        wanted = set().union(*(tails[part] for part in SPLITS if part in self.parts))
        others = set().union(*tails.values()) - wanted - {()}
        deeper = max(split_template(t)[1].count("/") for t in (*images.train, *images.test))

        def left_out(folder: Path, real: str) -> bool:
            return real in own or any(folder.parts[-len(t) :] == t for t in others)

        for place in self.places:
            for folder, real, entries in _walk(place, DEPTH + deeper, left_out):
                if real not in seen:
                    seen.add(real)
                    self.listing[folder] = [entry.name for entry in entries]

        for file in self.files:
            if file.name not in (names := self.listing.setdefault(file.parent, [])):
                names.append(file.name)

    def _file(self, name: str) -> Path | None:
        wanted = composed(name)
        return next(
            (f / n for f, names in self.listing.items() for n in names if composed(n) == wanted), None
        )

    def _image_folder(self, template: str) -> Path | None:
        """The folder whose path ends as the template's does, and that holds files of its kind: in it, or in
        the folders that the template goes on with, or else in folders that are part of the ids."""
        tail, pattern = split_template(composed(template))
        n_deeper = pattern.count("/")
        for identifier in ("[^/]+", ".+"):
            fits = as_expression(pattern, identifier=identifier).fullmatch
            for folder, names in self.listing.items():
                parts = tuple(map(composed, folder.parts))
                highest = len(folder.parents) if identifier == ".+" else min(n_deeper, len(folder.parents))
                for n in range(n_deeper, highest + 1):
                    root = folder.parents[n - 1] if n else folder
                    if root not in self.listing:
                        break  # above the places
                    end = len(parts) - n
                    if parts[max(0, end - len(tail)) : end] != tail:
                        continue
                    if any(fits("/".join((*parts[end:], composed(name)))) for name in names):
                        return root
        return None

    def nearly(self, missing: Sequence[Need]) -> str:
        """What is said of files that may be what is missing: images under another name, and archives that
        are not unpacked here."""
        paths = [f"{folder}/{name}" for folder, names in self.listing.items() for name in names]
        said = []
        for need in missing:
            if need.part in SPLITS:
                form = as_expression(re.sub(r"\.\w+$", "", need.names[0])).pattern
                for expression in (f"(.*/)?{form}{IMAGE}", f".*{IMAGE}"):
                    fits = re.compile(expression, re.IGNORECASE).fullmatch
                    if path := next((path for path in paths if fits(composed(path))), None):
                        said.append(f"; {path} is there: does images.{need.part} mean it?")
                        break
        if path := next((path for path in paths if UNKNOWN.fullmatch(path)), None):
            said.append(f"; {path} is not unpacked by comp: do it yourself")
        return "".join(dict.fromkeys(said))

    def _archives(self, places: Sequence[Path]) -> list[Path]:
        """Archives below these places, those with the name of something needed first, then small ones."""
        competition = self.competition
        needed = {*competition.labels.csv, *competition.submission.sample}
        needed |= {
            part
            for t in (*competition.images.train, *competition.images.test)
            for part in split_template(t)[0]
        }
        paths = {
            folder / whole_of(name): folder / name
            for folder, names in self.listing.items()
            if any(folder == place or place in folder.parents for place in places)
            for name in sorted(names, reverse=True)  # of parts, the first
            if stem_of(Path(name))
        }
        return sorted(
            paths.values(), key=lambda path: (stem_of(path) not in needed, path.stat().st_size, str(path))
        )

    def _relative(self, path: Path) -> str:
        inside, folder = path.resolve(), self.folder.resolve()
        return str(inside.relative_to(folder)) if inside.is_relative_to(folder) else str(inside)


def split_template(template: str) -> tuple[tuple[str, ...], str]:
    """(folders, rest): 'a/b/{id}/{channel}.png' -> (('a', 'b'), '{id}/{channel}.png')."""
    parts = template.split("/")
    first = next(i for i, part in enumerate(parts) if "{" in part)
    return tuple(parts[:first]), "/".join(parts[first:])


def from_folder(source: str) -> Path:
    """What --from names: a folder, or an archive. Raises CompError for anything else."""
    path = Path(source)
    if path.is_file() and stem_of(path) is None:
        raise CompError(f"--from {source}: this file is no archive; name the folder that it lies in")
    if not path.exists():
        raise CompError(f"--from {source}: no such folder, and no such archive")
    return path


def contents(folder: Path, pattern: str) -> dict[str, Any]:
    """How many files that fit a pattern a folder holds, their bytes, and a digest of their names and sizes.
    An id may have folders of its own."""
    fits, folder = as_expression(pattern, identifier=".+").fullmatch, folder.absolute()
    start = len(str(folder)) + 1
    written = {
        os.path.realpath(path) for name in ("cache", "unpacked") for path in data_dir("").glob(f"*/{name}")
    }
    written.add(os.path.realpath(runs_dir()))
    sizes = []
    for _, _, entries in _walk(folder, DEPTH + pattern.count("/"), lambda _, real: real in written):
        names = ((composed(entry.path[start:]), entry) for entry in entries)
        sizes += [(name, entry.stat().st_size) for name, entry in names if fits(name)]
    sizes.sort()
    return {"files": len(sizes), "bytes": sum(size for _, size in sizes), "digest": digest(sizes)}


def _walk(
    place: Path, depth: int, left_out: Callable[[Path, str], bool], real: str = ""
) -> Iterator[tuple[Path, str, list[os.DirEntry[str]]]]:
    """(folder, its path without links, its files) of a place and of the folders below it, but for hidden
    ones."""
    real = real or os.path.realpath(place)
    with os.scandir(place) as entries:
        items = sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    yield place, real, [item for item in items if item.is_file()]
    for item in items if depth else ():
        if item.is_dir():
            path = Path(item.path)
            below = os.path.realpath(path) if item.is_symlink() else f"{real}/{item.name}"
            if not left_out(path, below):
                yield from _walk(path, depth - 1, left_out, below)
