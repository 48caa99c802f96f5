"""Look for a competition's files in folders and archives: data/<competition>, --from, the mounts of a Kaggle
kernel. Archives are unpacked until all required files are found."""

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
from comp.console import info, size_text
from comp.data.archives import parts_of, stem_of, unpack, whole_of
from comp.data.image_files import template_to_regex, to_nfc
from comp.errors import CompError

IMAGE_SUFFIX = r"\.(jpe?g|png|tiff?|bmp|gif|webp|dcm|jp2|npy)"
UNSUPPORTED = re.compile(
    r".*\.(rar|gz|bz2|xz|zst|lz4|z\d\d|cab|iso)", re.IGNORECASE
)  # other kinds of archives
MAX_DEPTH = 5  # folders below a source that are searched, besides those of a template's own
MAX_NESTING = 5  # archives inside archives that are unpacked
MAX_ARCHIVES = 20_000
SPLITS = ("train", "test")
ALL_PARTS = ("labels", "sample", "solution", *SPLITS)


@dataclass(frozen=True)
class RequiredFile:
    """A file or a folder of images that a competition needs."""

    part: str  # labels, sample, solution, train, test
    names: tuple[str, ...]  # file names, any one of which is enough; or one image template

    def __str__(self) -> str:
        kind = "images" if self.part in SPLITS else "file"
        return f"{self.part} {kind} ({' or '.join(self.names)})"

    def is_file(self, name: str) -> bool:
        """Return whether a file of this name is the required one, or an archive named after it."""
        if self.part in SPLITS:
            return stem_of(Path(name)) in split_template(self.names[0])[0][-1:]
        return Path(name).name in self.names or stem_of(Path(name)) in self.names

    def is_in_place(self, name: str) -> bool:
        """Return whether such an archive is in the folders that the template begins with."""
        above = split_template(self.names[0])[0][:-1] if self.part in SPLITS else ()
        folders = Path(name).parts[:-1]
        return folders[len(folders) - len(above) :] == above

    def is_image(self, name: str) -> bool:
        """Return whether a file of this name, with its folders, is one of the required images."""
        if self.part not in SPLITS:
            return False
        fits = template_to_regex(self.names[0], identifier=".+").fullmatch
        parts = to_nfc(name).split("/")
        return any(fits("/".join(parts[i:])) for i in range(len(parts)))


def required_files(competition: Competition, parts: Collection[str] = ALL_PARTS) -> list[RequiredFile]:
    found = [
        RequiredFile("labels", competition.labels.csv),
        RequiredFile("sample", competition.submission.sample),
    ]
    if competition.submission.solution:
        found.append(RequiredFile("solution", (competition.submission.solution,)))
    images = competition.images
    found += [RequiredFile(split, (t,)) for split in SPLITS for t in getattr(images, split)]
    return [need for need in found if need.part in parts]


class FileFinder:
    """Looks for the required files of `parts` in folders, and unpacks archives until all are found.

    Folders of images of other parts are not listed: 100,000 files of a Kaggle mount take a minute."""

    def __init__(self, competition: Competition, places: Sequence[Path], parts: Collection[str] = ALL_PARTS):
        self.competition, self.parts = competition, parts
        # by archive that may be removed while it is unpacked: the bytes that are to stay free
        self.reserves: dict[Path, int] = {}
        self.folder, self.unpacked = data_dir(competition.name), unpacked_dir(competition.name)
        self.places = [place for place in places if place.is_dir()]
        self.files = [place for place in places if place.is_file()]
        self.archives: list[dict[str, Any]] = []
        self.listing: dict[Path, list[str]] = {}  # folder: names of its files
        self.depths: dict[Path, int] = {}  # folder: number of archives around it
        refuse_link(self.unpacked)

    def find(self) -> tuple[dict[str, Any], list[RequiredFile]]:
        """Return (the manifest's {"files": …, "images": …, "archives": …}, the files that were not found).
        Paths in the data folder are relative to it."""
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
            if depth > MAX_NESTING or len(self.archives) == MAX_ARCHIVES:
                many = (
                    f"{MAX_NESTING} others"
                    if depth > MAX_NESTING
                    else f"a source with {MAX_ARCHIVES:,} archives"
                )
                info(f"download: {archive.name} is inside {many} and is not unpacked")
                continue
            within = archive.parent.relative_to(home)  # a template's folders may include an archive's name
            root = self.unpacked / f"{stem_of(archive)}-{key[:8]}"
            target = inside(self.unpacked, f"{root.name}/{within / str(stem_of(archive))}", archive)
            if not target.exists():
                more = f" and {len(parts) - 1} more parts" if len(parts) > 1 else ""
                info(f"download: unpacking {archive.name}{more} ({size_text(size)})")
                unpack(archive, target, self.reserves.get(archive.resolve()))
            self.archives.append({"archive": archive.name, "bytes": size, "unpacked": root.name})
            self.places.append(root)
            self.depths[root] = depth
            self._list()
            waiting.extendleft(reversed(self._archives([target])))
            found, missing = self._look()
        for row in (row for rows in found["images"].values() for row in rows):
            row |= folder_contents(self.folder / row["folder"], row["pattern"])
        return {**found, "archives": self.archives}, missing

    def remove_unused(self) -> None:
        """Remove what earlier calls unpacked from other archives."""
        used = {row["unpacked"] for row in self.archives}
        for path in self.unpacked.iterdir() if self.unpacked.is_dir() else []:
            if path.name not in used:
                remove(path, inside=self.unpacked)

    def _look(self) -> tuple[dict[str, Any], list[RequiredFile]]:
        files: dict[str, str] = {}
        images: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
        missing = []
        for need in required_files(self.competition, self.parts):
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
        """List the files below the places, without caches and what earlier calls unpacked."""
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
            for folder, real, entries in _walk(place, MAX_DEPTH + deeper, left_out):
                if real not in seen:
                    seen.add(real)
                    self.listing[folder] = [entry.name for entry in entries]

        for file in self.files:
            if file.name not in (names := self.listing.setdefault(file.parent, [])):
                names.append(file.name)

    def _file(self, name: str) -> Path | None:
        wanted = to_nfc(name)
        return next((f / n for f, names in self.listing.items() for n in names if to_nfc(n) == wanted), None)

    def _image_folder(self, template: str) -> Path | None:
        """Return the folder that a template's folders lead to and that has matching files.

        The files are in it, or in the folders that follow in the template, or in folders that are part of the
        ids."""
        tail, pattern = split_template(to_nfc(template))
        n_deeper = pattern.count("/")
        for identifier in ("[^/]+", ".+"):
            fits = template_to_regex(pattern, identifier=identifier).fullmatch
            for folder, names in self.listing.items():
                parts = tuple(map(to_nfc, folder.parts))
                highest = len(folder.parents) if identifier == ".+" else min(n_deeper, len(folder.parents))
                for n in range(n_deeper, highest + 1):
                    root = folder.parents[n - 1] if n else folder
                    if root not in self.listing:
                        break  # above the places
                    end = len(parts) - n
                    if parts[max(0, end - len(tail)) : end] != tail:
                        continue
                    if any(fits("/".join((*parts[end:], to_nfc(name)))) for name in names):
                        return root
        return None

    def hints(self, missing: Sequence[RequiredFile]) -> str:
        """Return the end of a message: images with another name, and archives of an unknown kind."""
        paths = [f"{folder}/{name}" for folder, names in self.listing.items() for name in names]
        said = []
        for need in missing:
            if need.part in SPLITS:
                form = template_to_regex(re.sub(r"\.\w+$", "", need.names[0])).pattern
                for expression in (f"(.*/)?{form}{IMAGE_SUFFIX}", f".*{IMAGE_SUFFIX}"):
                    fits = re.compile(expression, re.IGNORECASE).fullmatch
                    if path := next((path for path in paths if fits(to_nfc(path))), None):
                        said.append(f"; {path} is there: should images.{need.part} match it?")
                        break
        if path := next((path for path in paths if UNSUPPORTED.fullmatch(path)), None):
            said.append(f"; comp can't unpack {path}: unpack it yourself")
        return "".join(dict.fromkeys(said))

    def _archives(self, places: Sequence[Path]) -> list[Path]:
        """Return the archives below these places: those named after a required file first, then by size."""
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
    """Split into (folders, rest): 'a/b/{id}/{channel}.png' -> (('a', 'b'), '{id}/{channel}.png')."""
    parts = template.split("/")
    first = next(i for i, part in enumerate(parts) if "{" in part)
    return tuple(parts[:first]), "/".join(parts[first:])


def source_path(source: str) -> Path:
    """Return the path of --from: a folder or an archive. Raise CompError for anything else."""
    path = Path(source)
    if path.is_file() and stem_of(path) is None:
        raise CompError(f"--from {source}: this file is not an archive; give the folder that contains it")
    if not path.exists():
        raise CompError(f"--from {source}: no such folder or archive")
    return path


def folder_contents(folder: Path, pattern: str) -> dict[str, Any]:
    """Return the number of files in a folder that match a pattern, their bytes, and a digest of their names
    and sizes. An id may include folders."""
    fits, folder = template_to_regex(pattern, identifier=".+").fullmatch, folder.absolute()
    start = len(str(folder)) + 1
    written = {
        os.path.realpath(path) for name in ("cache", "unpacked") for path in data_dir("").glob(f"*/{name}")
    }
    written.add(os.path.realpath(runs_dir()))
    sizes = []
    for _, _, entries in _walk(folder, MAX_DEPTH + pattern.count("/"), lambda _, real: real in written):
        names = ((to_nfc(entry.path[start:]), entry) for entry in entries)
        sizes += [(name, entry.stat().st_size) for name, entry in names if fits(name)]
    sizes.sort()
    return {"files": len(sizes), "bytes": sum(size for _, size in sizes), "digest": digest(sizes)}


def _walk(
    place: Path, depth: int, left_out: Callable[[Path, str], bool], real: str = ""
) -> Iterator[tuple[Path, str, list[os.DirEntry[str]]]]:
    """Yield (folder, its path without links, its files) for a place and the folders below it, without hidden
    files and folders."""
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
