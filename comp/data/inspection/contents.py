"""The files of a competition as `comp init` sees them: names of images, and tables as text, from folders,
archives and Kaggle's list."""

import os
import re
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from comp.artifacts.csv_tables import OTHER_TABLES, is_index, read_table
from comp.artifacts.safe_paths import below
from comp.console import size_text
from comp.data.archives import parts_of, stem_of
from comp.data.discovery import IMAGE_SUFFIX
from comp.data.image_files import to_nfc
from comp.errors import CompError

IS_IMAGE = re.compile(rf".+{IMAGE_SUFFIX}", re.IGNORECASE)
IS_TABLE = re.compile(r".+\.(csv|tsv|json|parquet)(\.gz|\.bz2|\.xz)?", re.IGNORECASE)
MAX_UNPACKED = 2_000_000_000  # bytes of an archive that has to be read as a whole; zips have a list
MAX_TABLE = 500_000_000  # bytes
MAX_DEPTH = 3  # archives inside archives


@dataclass
class Contents:
    """What there is. Paths are relative, with / between folders; the contents of an archive are in a folder
    of its name."""

    images: list[str] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)  # path: every cell as text
    paths: dict[str, Path] = field(default_factory=dict)  # path of a table: the file to read
    archives: list[str] = field(default_factory=list)  # that were not looked into
    notes: list[str] = field(default_factory=list)  # what was not read, and why
    is_complete: bool = True  # False for a list of Kaggle that ends early
    root: str = ""  # the folder's name; "" on Kaggle

    @property
    def may_hold_more(self) -> bool:
        """Whether there may be images that were not seen: in archives, and where Kaggle's list ends early or
        has none at all."""
        return not self.is_complete or bool(self.archives) or not (self.root or self.images)

    def add_name(self, name: str) -> None:
        """Note a file by its name."""
        if IS_IMAGE.fullmatch(name):
            self.images.append(to_nfc(name))
        elif name.lower().endswith(OTHER_TABLES):
            self.notes.append(f"{name} is not looked into: save it as CSV if it is a table of images")

    def add_table(self, name: str, path: Path) -> None:
        """Read a table; note why if it can't be read."""
        if path.stat().st_size > MAX_TABLE:
            self.notes.append(f"{name} has {size_text(path.stat().st_size)} and is not looked into")
            return
        try:
            frame = read_table(path, [])
        except CompError as error:
            self.notes.append(str(error).replace(str(path), name))
            return
        while is_index(frame) and frame.shape[1] > 1:
            frame = frame.iloc[:, 1:]
        self.tables[name], self.paths[name] = frame, path


def look_into(folder: Path, scratch: Path) -> Contents:
    """Return the contents of a folder, also those of its archives. Tables in archives are unpacked to
    `scratch`."""
    contents = Contents(root=folder.resolve().name)
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner = Path(place).relative_to(folder).as_posix()
        start = "" if inner == "." else f"{inner}/"
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(place, name)
            if IS_TABLE.fullmatch(name):
                contents.add_table(start + name, path)
            elif stem_of(path):
                _add_archive(contents, path, start, scratch, 0)
            else:
                contents.add_name(start + name)
    return contents


def _add_archive(contents: Contents, path: Path, start: str, scratch: Path, depth: int) -> None:
    """Add the names in an archive, and what is in the tables and archives of it: only these are unpacked,
    since writing 100,000 images takes minutes."""
    name, size = f"{start}{path.name}", path.stat().st_size
    listable = path.suffix.lower() == ".zip" or size <= MAX_UNPACKED  # other kinds are read from end to end
    target = scratch / str(len(list(scratch.iterdir())))
    target.mkdir()
    try:
        if depth == MAX_DEPTH or not listable or parts_of(path) != [path]:
            raise CompError(f"{path} ({size_text(size)}) is not looked into")
        prefix = f"{start}{stem_of(path)}/"
        for inner in _members(path, target):
            if (target / inner).is_file():
                file = target / inner
                if IS_TABLE.fullmatch(inner):
                    contents.add_table(prefix + inner, file)
                    continue
                whole = path.name.lower().endswith(".tar.7z") and inner.endswith(".tar")
                folder = f"{prefix}{inner.rpartition('/')[0]}/" if "/" in inner else prefix
                deeper = scratch / f"{target.name}-{len(contents.images)}"
                deeper.mkdir(exist_ok=True)
                if whole:  # train.tar.7z holds train.tar, whose folder is this one
                    file = file.rename(file.with_name(f"{stem_of(path)}.tar"))
                    _add_archive(contents, file, start, deeper, depth)
                else:
                    _add_archive(contents, file, folder, deeper, depth + 1)
            else:
                contents.add_name(prefix + inner)
    except (CompError, OSError, EOFError, ValueError, zipfile.BadZipFile, tarfile.TarError) as error:
        contents.archives.append(name)
        contents.notes.append(str(error).replace(str(path), name))


def _members(path: Path, target: Path) -> list[str]:
    """Return the names of an archive's files; its tables and archives are unpacked to `target`. Raise
    CompError for a 7z that can't be read."""

    def wanted(name: str, size: int) -> bool:
        is_read = IS_TABLE.fullmatch(name) or stem_of(Path(name))
        return bool(is_read) and size <= MAX_UNPACKED and below(target, name, path) is not None

    kind = path.name.lower()
    if kind.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            entries = [e for e in archive.infolist() if not e.is_dir() and _is_plain(e.filename)]
            archive.extractall(target, [e for e in entries if wanted(e.filename, e.file_size)])
        return [entry.filename for entry in entries]
    if kind.endswith(".7z"):
        import py7zr

        try:
            with py7zr.SevenZipFile(path) as packed:
                names = [e.filename for e in packed.list() if not e.is_directory and _is_plain(e.filename)]
                sizes = {e.filename: e.uncompressed or 0 for e in packed.list()}
                packed.extract(target, [name for name in names if wanted(name, sizes[name])])
        except (py7zr.exceptions.ArchiveError, py7zr.exceptions.PasswordRequired) as error:
            raise CompError(f"{path} can't be read ({error})") from error
        return names
    names = []
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isfile() and _is_plain(member.name):
                names.append(member.name.removeprefix("./"))
                if wanted(member.name, member.size):
                    tar.extract(member, target, filter="data")
    return names


def _is_plain(name: str) -> bool:
    return not name.startswith("__MACOSX/") and not name.rpartition("/")[2].startswith(".")


def listed(names: Iterable[str], tables: dict[str, Path], *, is_complete: bool) -> Contents:
    """Return the contents that Kaggle lists by these names; `tables` are the files downloaded of them."""
    contents = Contents(is_complete=is_complete)
    for name in names:
        if name in tables:
            contents.add_table(name.removesuffix(".zip"), tables[name])
        elif stem_of(Path(name)):
            contents.archives.append(name)
        else:
            contents.add_name(name)
    return contents
