"""Archives from outside, unpacked so that nothing leaves its folder and nothing is left half-unpacked."""

import contextlib
import lzma
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from comp.artifacts import free_bytes, is_own
from comp.errors import CompError

SUFFIXES = (".zip", ".7z", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.7z")


# train.zip.001, train.zip.part1, train.tar.gz.aa
PART = re.compile(
    rf"(?P<whole>.+({'|'.join(map(re.escape, SUFFIXES))}))[._-](part[._-]?)?(?P<number>\d{{1,4}}|a[a-z])",
    re.I,
)


def stem_of(path: Path) -> str | None:
    """'train-jpg' of train-jpg.tar.7z, or of a part of it; None for a file that is no archive."""
    name = whole_of(path.name)
    suffix = max((s for s in SUFFIXES if name.lower().endswith(s)), key=len, default=None)
    return name[: -len(suffix)] if suffix else None


def whole_of(name: str) -> str:
    """'train.zip' of train.zip.001, which is a part of it; else the name itself."""
    part = PART.fullmatch(name)
    return part["whole"] if part else name


def parts_of(path: Path) -> list[Path]:
    """The files that an archive was cut into, in their order, of which `path` is one; else the archive alone.
    Raises CompError where one is missing."""
    if not (part := PART.fullmatch(path.name)):
        return [path]
    beside = [(m, p) for p in path.parent.iterdir() if (m := PART.fullmatch(p.name))]
    found = sorted((_number(m), p.name) for m, p in beside if m["whole"] == part["whole"])
    for number, (is_number, name) in enumerate(found, min(found[0][0], 1)):
        if number != is_number:
            raise CompError(
                f"{path.parent / part['whole']} is in parts, and the one before {name} is missing; "
                f"there are {', '.join(name for _, name in found)}"
            )
    return [path.parent / name for _, name in found]


def _number(part: re.Match[str]) -> int:
    return int(text) if (text := part["number"]).isdigit() else ord(text[1].lower()) - ord("a")


class Damaged(CompError):
    """An archive that is not whole."""

    def __init__(self, path: Path, reason: str):
        super().__init__(f"{path} is damaged or cut short ({reason}); get it again")
        self.path = path


def unpack(path: Path, folder: Path) -> None:
    """Unpack an archive into `folder`, which is there afterwards whole or not at all.

    Raises Damaged for an archive that is not whole, CompError for a member that would leave the folder or is
    a link, and for a disk that is too full."""
    partial = folder.with_name(f".{folder.name}.partial")
    joined = folder.with_name(f".{whole_of(path.name)}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if (parts := parts_of(path)) != [path]:
            with joined.open("wb") as whole:
                for part in parts:
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, whole, 1 << 20)
        _unpack(path if parts == [path] else joined, partial)
        _make_folders(partial)
        if links := [p for p in partial.rglob("*") if p.is_symlink()]:
            raise CompError(f"{path} holds links ({links[0].name}); it is not unpacked")
        partial.replace(folder)
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        lzma.LZMAError,
        zlib.error,
        EOFError,
        ValueError,
        KeyError,
    ) as error:
        raise Damaged(path, _reason(error)) from error
    except RuntimeError as error:  # also NotImplementedError, of a compression that isn't known
        raise CompError(
            f"{path} is encrypted or packed in a way that can't be read ({_reason(error)})"
        ) from error
    except OSError as error:
        raise CompError(f"cannot unpack {path}: {_reason(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        joined.unlink(missing_ok=True)


def _make_folders(folder: Path) -> None:
    """Of names with backslashes, as some programs of Windows write them into archives."""
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


def _unpack(path: Path, folder: Path) -> None:
    name = path.name.lower()
    if name.endswith(".zip"):
        with path.open("rb") as file:
            file.seek(-min(1 << 16, path.stat().st_size), 2)
            _, mark, end = file.read().rpartition(b"PK\5\6")
        if mark and (disk := int.from_bytes(end[:2], "little")) not in (0, 0xFFFF):
            raise CompError(
                f"{path} is the last of {disk + 1} parts, the first being {path.stem}.z01; join them with "
                f"`zip -s 0 {path.name} --out whole.zip`, or unpack them with `7z x {path.name}`"
            )
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            for m in members:
                if not m.flag_bits & 0x800:  # macOS writes UTF-8 and does not say so
                    with contextlib.suppress(UnicodeError):
                        m.filename = m.filename.encode("cp437").decode("utf-8")
            _check(path, folder, [m.filename for m in members], sum(m.file_size for m in members))
            if any((m.external_attr >> 16) & 0o170000 == 0o120000 for m in members):
                raise CompError(f"{path} holds links; it is not unpacked")
            archive.extractall(folder, members)
    elif name.endswith(".7z"):
        _unpack_7z(path, folder)
        for inner in list(folder.glob("*.tar")) if name.endswith(".tar.7z") else []:
            _unpack(inner, folder)
            inner.unlink()
    else:
        with path.open("rb") as file:
            file.seek(-min(512, path.stat().st_size), 2)
            if name.endswith(".tar") and file.read().strip(b"\0"):
                raise ValueError("its end is missing")
        with tarfile.open(path) as archive:
            for member in archive:
                _check(path, folder, [member.name], member.size)
                if member.isfile():
                    archive.extract(member, folder, filter="data")
                elif not member.isdir():
                    raise CompError(f"{path} holds {member.name}, which is no plain file; it is not unpacked")


def _unpack_7z(path: Path, folder: Path) -> None:
    import py7zr

    try:
        with py7zr.SevenZipFile(path) as archive:
            members = archive.list()
            _check(path, folder, [m.filename for m in members], sum(m.uncompressed or 0 for m in members))
            if any(getattr(m, "is_symlink", False) for m in members):
                raise CompError(f"{path} holds links; it is not unpacked")
            archive.extractall(folder)
    except py7zr.exceptions.PasswordRequired as error:
        raise RuntimeError("a password is asked for") from error
    except py7zr.exceptions.ArchiveError as error:
        raise ValueError(_reason(error)) from error


def _check(path: Path, folder: Path, names: Iterable[str], n_bytes: int) -> None:
    for name in (name.replace("\\", "/") for name in names):
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or ":" in name.split("/")[0]:
            raise CompError(f"{path} holds {name!r}, which would leave the folder; it is not unpacked")
        if is_own(name):
            raise CompError(f"{path} holds {name!r}, a name that comp keeps for itself; it is not unpacked")
    if n_bytes > (free := free_bytes(folder)):
        raise CompError(
            f"{path} needs {n_bytes / 1e9:.1f} GB unpacked; {folder} has {free / 1e9:.1f} GB free"
        )


def _reason(error: Exception) -> str:
    with contextlib.suppress(AttributeError):
        return error.strerror or str(error)  # type: ignore[attr-defined]
    return (str(error) or type(error).__name__).strip().splitlines()[0]
