"""The files of a competition as `comp init` sees them: names of images, and tables as text, from folders,
archives and Kaggle's list."""

import os
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from comp.artifacts.csv_tables import is_index, read_table
from comp.artifacts.safe_paths import below
from comp.console import size_text
from comp.data.archives import stem_of, unpack
from comp.data.discovery import IMAGE_SUFFIX
from comp.data.image_files import to_nfc
from comp.errors import CompError

IS_IMAGE = re.compile(rf".+{IMAGE_SUFFIX}", re.IGNORECASE)
IS_TABLE = re.compile(r".+\.(csv|tsv)(\.gz|\.bz2|\.xz)?", re.IGNORECASE)
OTHER_TABLES = (".json", ".parquet", ".xlsx", ".feather", ".pkl", ".mat")  # forms that comp doesn't read
MAX_UNPACKED = 2_000_000_000  # bytes of an archive that is unpacked to look inside; zips are only listed
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
            self.notes.append(f"{name} is not looked into: tables are read from CSV files only")

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
    """Return the contents of a folder, also those of its archives. Tables in archives, and archives other
    than zip, are unpacked to `scratch`."""
    contents = Contents(root=folder.resolve().name)
    _add_folder(contents, folder, "", scratch, 0)
    return contents


def _add_folder(contents: Contents, folder: Path, prefix: str, scratch: Path, depth: int) -> None:
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inner = Path(place).relative_to(folder).as_posix()
        start = prefix if inner == "." else f"{prefix}{inner}/"
        for name in sorted(name for name in names if not name.startswith(".")):
            path = Path(place, name)
            if IS_TABLE.fullmatch(name):
                contents.add_table(start + name, path)
            elif stem_of(path):
                _add_archive(contents, path, start, scratch, depth)
            else:
                contents.add_name(start + name)


def _add_archive(contents: Contents, path: Path, start: str, scratch: Path, depth: int) -> None:
    name = f"{start}{path.name}"
    target = scratch / str(len(list(scratch.iterdir())))
    size = path.stat().st_size
    try:
        if depth < MAX_DEPTH and path.suffix.lower() == ".zip":
            target.mkdir()
            _add_zip(contents, path, f"{start}{stem_of(path)}/", target, depth)
        elif depth < MAX_DEPTH and size <= MAX_UNPACKED:
            unpack(path, target)
            _add_folder(contents, target, f"{start}{stem_of(path)}/", scratch, depth + 1)
        else:
            contents.archives.append(name)
            contents.notes.append(f"{name} ({size_text(size)}) is not looked into")
    except (CompError, OSError, zipfile.BadZipFile) as error:
        contents.archives.append(name)
        contents.notes.append(str(error).replace(str(path), name))


def _add_zip(contents: Contents, path: Path, start: str, target: Path, depth: int) -> None:
    """List a zip, and unpack the tables and archives in it."""
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = entry.filename.replace("\\", "/")
            if entry.is_dir() or name.startswith("__MACOSX/") or Path(name).name.startswith("."):
                continue
            is_table, is_archive = IS_TABLE.fullmatch(name), stem_of(Path(name))
            if not (is_table or is_archive):
                contents.add_name(start + name)
                continue
            if entry.file_size > MAX_UNPACKED:
                contents.notes.append(f"{start}{name} ({size_text(entry.file_size)}) is not looked into")
                continue
            file = below(target, name, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, file.open("wb") as copy:
                while block := source.read(1 << 20):
                    copy.write(block)
            if is_table:
                contents.add_table(start + name, file)
            else:
                inner = f"{start}{Path(name).parent.as_posix()}/".replace("/./", "/")
                nested = target.with_name(f"{target.name}-nested")
                nested.mkdir(exist_ok=True)
                _add_archive(contents, file, inner, nested, depth + 1)


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
