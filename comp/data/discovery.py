"""Look for a competition's files in folders and archives: data/<competition>, --from, the mounts of a Kaggle
kernel. Archives are unpacked until all required files are found."""

import os
import re
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comp.artifacts.paths import cache_dir, data_dir, unpacked_dir
from comp.artifacts.safe_paths import inside, refuse_link, remove
from comp.artifacts.stamps import digest
from comp.config.competition import Competition
from comp.console import info, size_text
from comp.data.archives import parts_of, stem_of, unpack, whole_of
from comp.data.folder_files import MAX_DEPTH, folder_contents, walk
from comp.data.image_files import template_to_regex, to_nfc
from comp.data.records import unpack_records
from comp.data.table_rows import some_names
from comp.errors import CompError

IMAGE_SUFFIX = r"\.(jpe?g|png|tiff?|bmp|gif|webp|dcm|dicom|jp2|np[yz])"
UNSUPPORTED = re.compile(
    r".*\.(rar|gz|bz2|xz|zst|lz4|z\d\d|cab|iso)", re.IGNORECASE
)  # other kinds of archives
MAX_NESTING = 5  # archives inside archives that are unpacked
MAX_ARCHIVES = 20_000
SPLITS = ("train", "test")
TABLES = ("labels", "sample", "solution", "only", "table")
ALL_PARTS = (*TABLES, *SPLITS)


@dataclass(frozen=True)
class RequiredFile:
    """A file or a folder of images that a competition needs."""

    part: str  # of ALL_PARTS
    names: tuple[str, ...]  # file names, any one of which is enough; or one image template

    def __str__(self) -> str:
        kind = "images" if self.part in SPLITS else "file"
        return f"{self.part} {kind} ({' or '.join(self.names)})"

    def is_file(self, name: str) -> bool:
        """Return whether a file of this name is the required one, or an archive or records named after it."""
        inner = stem_of(Path(name)) or Path(name).name
        records = inner.removesuffix(".json") if inner.endswith(".json") else None
        if self.part in SPLITS:
            folder = split_template(self.names[0])[0][-1:]
            return stem_of(Path(name)) in folder or (records or "") in records_of(self.names[0])
        return bool({inner, f"{records}.csv"} & {Path(wanted).name for wanted in self.names})

    @property
    def is_anywhere(self) -> bool:
        """Whether an image template begins with a column: which folders it means, only a table says."""
        return self.part in SPLITS and self.names[0].startswith("{")

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
    labels, images, submission = competition.labels, competition.images, competition.submission
    solution = (submission.solution,) if submission.solution else ()
    tables = (labels.csv, submission.sample, solution, labels.only, images.table)
    found = [RequiredFile(part, names) for part, names in zip(TABLES, tables) if names]
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
        while waiting:
            archive = waiting.popleft()
            if not (missing or is_one_of_several(archive, self.competition, self.parts)):
                continue
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
            stem = stem_of(archive)
            name = stem or archive.stem
            root = self.unpacked / f"{name}-{key[:8]}"
            target = inside(self.unpacked, f"{root.name}/{within / name}", archive)
            if not target.exists():
                more = f" and {len(parts) - 1} more parts" if len(parts) > 1 else ""
                info(f"download: unpacking {archive.name}{more} ({size_text(size)})")
                if stem is None:
                    unpack_records(archive, target, self.competition.labels.id)
                else:
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
        paths: dict[str, Path] = {}
        images: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
        missing = []
        for need in required_files(self.competition, self.parts):
            if need.part in images:
                pattern = split_template(need.names[0])[1]
                if folders := self._image_folders(need, paths):
                    images[need.part] += [{"folder": self._relative(f), "pattern": pattern} for f in folders]
                    continue
            elif path := next((p for name in need.names if (p := self._file(name))), None):
                paths[need.part], files[need.part] = path, self._relative(path)
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
            for folder, real, entries in walk(place, MAX_DEPTH + deeper, left_out):
                if real not in seen:
                    seen.add(real)
                    self.listing[folder] = [entry.name for entry in entries]

        for file in self.files:
            if file.name not in (names := self.listing.setdefault(file.parent, [])):
                names.append(file.name)

    def _file(self, name: str) -> Path | None:
        *above, wanted = to_nfc(name).split("/")
        found = ((f, n) for f, names in self.listing.items() for n in names if to_nfc(n) == wanted)
        ends = ((f / n, f.parts[len(f.parts) - len(above) :]) for f, n in found)
        return next((path for path, end in ends if [*map(to_nfc, end)] == above), None)

    def _image_folders(self, need: RequiredFile, tables: dict[str, Path]) -> list[Path]:
        """Return the folder that a template's folders lead to and that has matching files; with * in the
        template each such folder, since archives are unpacked to places of their own.

        The files are in it, or in the folders that follow in the template, or in folders that are part of the
        ids. A template that begins with a column fits any file: `tables` say which are meant."""
        found: dict[Path, None] = {}
        template = to_nfc(need.names[0])
        tail, pattern = split_template(template)
        if need.is_anywhere:
            names = some_names(tables, need.part, pattern, self.competition)
            if names:
                return next(([f] for name in names if (f := folder_with(to_nfc(name), self.listing))), [])
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
                        found[root] = None
                        break
                if found and "*" not in template:
                    break
            if found:
                break
        return list(found)

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
        needed = {Path(name).name for need in required_files(competition, TABLES) for name in need.names}
        needed |= {
            part
            for t in (*competition.images.train, *competition.images.test)
            for part in split_template(t)[0]
        }
        templates = (*competition.images.train, *competition.images.test)
        records = {part for template in templates for part in records_of(template)}
        paths = {
            folder / whole_of(name): folder / name
            for folder, names in self.listing.items()
            if any(folder == place or place in folder.parents for place in places)
            for name in sorted(names, reverse=True)  # of parts, the first
            if stem_of(Path(name)) or (name.endswith(".json") and name.removesuffix(".json") in records)
        }
        return sorted(
            paths.values(),
            key=lambda path: ((stem_of(path) or path.stem) not in needed, path.stat().st_size, str(path)),
        )

    def _relative(self, path: Path) -> str:
        inside, folder = path.resolve(), self.folder.resolve()
        return str(inside.relative_to(folder)) if inside.is_relative_to(folder) else str(inside)


def folder_with(name: str, listing: Mapping[Path, Sequence[str]]) -> Path | None:
    """Return the folder below which there is a file of this name, which may include folders."""
    *inner, last = name.split("/")
    for folder, names in listing.items():
        parts = tuple(map(to_nfc, folder.parts))
        if parts[len(parts) - len(inner) :] == tuple(inner) and last in map(to_nfc, names):
            return folder.parents[len(inner) - 1] if inner else folder
    return None


def is_one_of_several(archive: Path, competition: Competition, parts: Collection[str]) -> bool:
    """Return whether an archive is named as a template's folder with *: all of these are unpacked."""
    templates = (t for part in SPLITS if part in parts for t in getattr(competition.images, part))
    folders = (folder for t in templates for folder in t.split("/")[:-1] if "*" in folder)
    return any(template_to_regex(folder).fullmatch(stem_of(archive) or "") for folder in folders)


def split_template(template: str) -> tuple[tuple[str, ...], str]:
    """Split into (folders, rest): 'a/b/{id}/{channel}.png' -> (('a', 'b'), '{id}/{channel}.png'). The rest
    begins with the first field or *."""
    parts = template.split("/")
    first = next(i for i, part in enumerate(parts) if "{" in part or "*" in part)
    return tuple(parts[:first]), "/".join(parts[first:])


def records_of(template: str) -> tuple[str, ...]:
    """Return the name, without .json, of the records that are unpacked to a template of .npy files: train for
    'train/{id}_{channel}.npy'."""
    return split_template(template)[0][-1:] if template.endswith(".npy") else ()


def source_path(source: str) -> Path:
    """Return the path of --from: a folder or an archive. Raise CompError for anything else."""
    path = Path(source)
    if path.is_file() and stem_of(path) is None:
        raise CompError(f"--from {source}: this file is not an archive; give the folder that contains it")
    if not path.exists():
        raise CompError(f"--from {source}: no such folder or archive")
    return path
