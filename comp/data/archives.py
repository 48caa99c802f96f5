"""Unpack archives: no member leaves the folder, and no folder is left half-unpacked."""

import contextlib
import errno
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from comp.artifacts.files import free_bytes
from comp.artifacts.safe_paths import is_own, remove
from comp.console import info
from comp.errors import CompError

SUFFIXES = (".zip", ".7z", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.7z")
MAX_FILES = 10_000_000  # in an archive
ZIP_HEADER, ZIP_END = 30, 22  # bytes: a member's header before its name; the end record without a comment
BLOCK = 4096  # bytes that a file takes at least
MAX_TAR_NAME = 1 << 20  # bytes
# The PPMd decoder crashes its process on damaged data, so it gets a process of its own.
UNPACK_SCRIPT = "import py7zr, sys; py7zr.SevenZipFile(sys.argv[1]).extractall(sys.argv[2])"
MAX_TAR_PADDING, CHUNK = 1 << 26, 1 << 20  # bytes after the end of a tar: read at most, and at once


# train.zip.001, train.zip.part1, train.tar.gz.aa
PART = re.compile(
    rf"(?P<whole>.+({'|'.join(map(re.escape, SUFFIXES))}))[._-](part[._-]?)?(?P<number>\d{{1,4}}|a[a-z])",
    re.I,
)


def stem_of(path: Path) -> str | None:
    """Return 'train-jpg' for train-jpg.tar.7z or a part of it, or None for a file that is not an archive."""
    name = whole_of(path.name)
    suffix = max((s for s in SUFFIXES if name.lower().endswith(s)), key=len, default=None)
    return name[: -len(suffix)] if suffix else None


def whole_of(name: str) -> str:
    """Return 'train.zip' for train.zip.001, a part of it; for other names the name itself."""
    part = PART.fullmatch(name)
    return part["whole"] if part else name


def parts_of(path: Path) -> list[Path]:
    """Return the parts of an archive in order, given one of them, or the archive alone if it has no parts.
    Raise CompError for a missing part."""
    if not (part := PART.fullmatch(path.name)):
        return [path]
    beside = [(m, p) for p in path.parent.iterdir() if (m := PART.fullmatch(p.name))]
    found = sorted((_number(m), p.name) for m, p in beside if m["whole"] == part["whole"])
    for number, (is_number, name) in enumerate(found, min(found[0][0], 1)):
        if number != is_number:
            raise CompError(
                f"{path.parent / part['whole']} is in parts, and the one before {name} is missing; "
                f"found: {', '.join(name for _, name in found)}"
            )
    return [path.parent / name for _, name in found]


def _number(part: re.Match[str]) -> int:
    return int(text) if (text := part["number"]).isdigit() else ord(text[1].lower()) - ord("a")


def unpacking_bytes(path: Path, n_bytes: int) -> int:
    """Return the bytes that the disk must have, besides those of the file itself, for a downloaded file of
    `n_bytes` to be unpacked: none for a zip, which is cut shorter meanwhile, or a file that is no archive."""
    return 0 if stem_of(path) is None or path.suffix.lower() == ".zip" else n_bytes


class DamagedArchive(CompError):
    """The archive is damaged or incomplete."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path} is damaged or cut short ({reason}); download or copy it again")
        self.path = path


def unpack(path: Path, folder: Path, reserve: int | None = None) -> None:
    """Unpack an archive into `folder`, which then exists completely or not at all. With a `reserve`, a zip is
    cut shorter member by member and removed, unless that many bytes stay free beside it and its contents.

    Raise DamagedArchive for a damaged archive. Raise CompError for a member that would leave the folder, is a
    link or has a name that comp uses itself, and for members that do not fit on the disk."""
    partial = folder.with_name(f".{folder.name}.partial")
    joined = folder.with_name(f".{whole_of(path.name)}")
    try:
        remove(partial, inside=folder.parent)
        partial.mkdir(parents=True)
        if (parts := parts_of(path)) != [path]:
            with joined.open("wb") as target:
                for part in parts:
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, target, 1 << 20)
        whole = path if parts == [path] else joined
        used_up = _unpack(whole, partial, 0 if whole == joined else reserve)
        _make_folders(partial)
        if links := [p for p in partial.rglob("*") if p.is_symlink()]:
            raise CompError(f"{path} contains links ({links[0].name}); it is not unpacked")
        partial.replace(folder)
        if used_up:
            whole.unlink()
    except CompError:
        raise
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # an error of the archive, not of the disk
            raise DamagedArchive(path, _reason(error)) from error
        raise CompError(f"cannot unpack {path}: {_reason(error)}") from error
    except RuntimeError as error:  # also NotImplementedError for an unknown compression
        raise CompError(f"{path} is encrypted or compressed in an unknown way ({_reason(error)})") from error
    except Exception as error:  # libraries raise nearly anything for damaged archives
        raise DamagedArchive(path, _reason(error)) from error
    finally:
        with contextlib.suppress(CompError):
            remove(partial, inside=folder.parent)
        joined.unlink(missing_ok=True)


def _make_folders(folder: Path) -> None:
    """Replace backslashes in names, as some Windows programs write them, by folders."""
    for path in [path for path in folder.rglob("*") if not path.is_dir()]:
        inner = str(path)[len(str(folder)) + 1 :]
        if "\\" in inner:
            target = folder / inner.replace("\\", "/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if inner.endswith("\\"):  # a folder
                path.unlink()
                target.mkdir(exist_ok=True)
            else:
                path.replace(target)


def _unpack(path: Path, folder: Path, reserve: int | None = None) -> bool:
    """Unpack an archive, and return whether it is used up: cut shorter to make space."""
    name, room = path.name.lower(), UnpackLimits(path, folder)
    if name.endswith(".zip"):
        with path.open("rb") as file:
            file.seek(-min(ZIP_END + 65_535, path.stat().st_size), 2)
            _, mark, listed = file.read().rpartition(b"PK\5\6")
        if mark and (disk := int.from_bytes(listed[:2], "little")) not in (0, 0xFFFF):
            raise CompError(
                f"{path} is the last of {disk + 1} parts; the first is {path.stem}.z01. Join them with "
                f"`zip -s 0 {path.name} --out whole.zip`, or unpack them with `7z x {path.name}`"
            )
        with zipfile.ZipFile(path) as archive:
            members = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
            _check_members(path, members)
            n_bytes = sum(entry.file_size for entry in members)
            to_keep = reserve if reserve and n_bytes > reserve / 100 else 0  # a small one makes no space
            tight = reserve is not None and n_bytes + to_keep > room.free
            for entry in reversed(members) if tight else members:
                room.take(entry.filename, -(-entry.file_size // BLOCK) * BLOCK if tight else entry.file_size)
                room.free += entry.compress_size if tight else 0
            n_listed = int.from_bytes(listed[6:8], "little")
            if n_listed not in (room.n_files % 65_536, 65_535):  # 65,535: the number is elsewhere (zip64)
                raise ValueError("its list of members is damaged")
            if not tight:
                archive.extractall(folder, archive.infolist())
                return False
            info(f"download: {path.name} is removed while it is unpacked, as the disk is small")
            for entry in reversed(members):
                archive.extract(entry, folder)
                os.truncate(path, entry.header_offset)
            return True
    elif name.endswith(".7z"):
        _unpack_7z(path, folder, room)
        for inner in list(folder.glob("*.tar")) if name.endswith(".tar.7z") else []:
            _unpack(inner, folder)
            inner.unlink()
    else:
        with path.open("rb") as file:
            file.seek(-min(512, path.stat().st_size), 2)
            if name.endswith(".tar") and file.read().strip(b"\0"):
                raise ValueError("its end is missing")
        with tarfile.open(path, tarinfo=CheckedMember) as archive:
            for member in archive:
                room.take(member.name, member.size)
                if member.isfile():
                    archive.extract(member, folder, filter="data")
                elif not member.isdir():
                    raise CompError(
                        f"{path} contains {member.name}, which is not a plain file; it is not unpacked"
                    )
            _check_end(archive)
    return False


def _check_members(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Raise an error for links and a zip bomb among a zip's members, which are in the order of the file. Mend
    names that macOS wrote."""
    end = 0
    for entry in members:
        if entry.header_offset < end:  # one body under many names
            raise ValueError("its members overlap")
        end = entry.header_offset + ZIP_HEADER + entry.compress_size
        if (entry.external_attr >> 16) & 0o170000 == 0o120000:
            raise CompError(f"{path} contains links; it is not unpacked")
        if not entry.flag_bits & 0x800:  # macOS writes UTF-8 without this flag
            with contextlib.suppress(UnicodeError):
                entry.filename = entry.filename.encode("cp437").decode("utf-8")


class CheckedMember(tarfile.TarInfo):
    """A tar header without the values that make tarfile loop or run out of memory."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> "CheckedMember":
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type not in tarfile.REGULAR_TYPES and member.size > MAX_TAR_NAME):
            raise tarfile.ReadError("a header in it is damaged")
        return member


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise ValueError if tarfile stopped before the end of the archive. Reading up to the end also compares
    the checksums of compressed tars."""
    file: Any = archive.fileobj
    file.seek(archive.offset)
    for _ in range(MAX_TAR_PADDING // CHUNK):
        if (piece := file.read(CHUNK)).strip(b"\0"):
            raise ValueError("a header in it is damaged")
        if not piece:
            return


def _unpack_7z(path: Path, folder: Path, room: "UnpackLimits") -> None:
    try:
        import py7zr
    except ImportError as error:  # a kernel on Kaggle comes without it, since Kaggle unpacks archives
        raise CompError(
            f"{path} is a 7z archive, and py7zr is not installed; pip install py7zr, or unpack it yourself"
        ) from error
    try:
        with py7zr.SevenZipFile(path) as archive:
            for member in archive.list():
                if getattr(member, "is_symlink", False):
                    raise CompError(f"{path} contains links; it is not unpacked")
                room.take(member.filename, member.uncompressed or 0)
            if "PPMd" not in archive.archiveinfo().method_names:
                archive.extractall(folder)
                return
        answer = subprocess.run([sys.executable, "-c", UNPACK_SCRIPT, path, folder], capture_output=True)
        if answer.returncode:
            raise ValueError(
                (answer.stderr.decode(errors="replace").strip().splitlines() or ["no reason"])[-1]
            )
    except py7zr.exceptions.PasswordRequired as error:
        raise RuntimeError("it needs a password") from error


class UnpackLimits:
    """Limits for the names of members, their number and their size on the disk."""

    def __init__(self, path: Path, folder: Path):
        self.path, self.n_files, self.n_bytes = path, 0, 0
        self.free, facts = free_bytes(folder), os.statvfs(folder)
        self.max_files = min(MAX_FILES, facts.f_favail or MAX_FILES)  # 0: the file system does not count them

    def take(self, name: str, n_bytes: int) -> None:
        """Count a member. Raise CompError if its name is not allowed or if it does not fit."""
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in name.split("/")[0]:
            raise CompError(
                f"{self.path} contains {name!r}, which would leave the folder; it is not unpacked"
            )
        if is_own(name):
            raise CompError(
                f"{self.path} contains {name!r}, a name that comp keeps for its own files; it is not unpacked"
            )
        if n_bytes < 0:
            raise ValueError(f"{name!r} has {n_bytes} bytes")
        self.n_files, self.n_bytes = self.n_files + 1, self.n_bytes + n_bytes
        if self.n_bytes > self.free:
            raise CompError(
                f"{self.path} needs more than the {self.free / 1e9:.1f} GB that are free here to unpack it"
            )
        if self.n_files > self.max_files:
            raise CompError(f"{self.path} contains more files than the {self.max_files:,} that fit here")


def _reason(error: Exception) -> str:
    text = str(getattr(error, "strerror", None) or error).strip()
    return text.splitlines()[0].rstrip(":") if text else type(error).__name__
