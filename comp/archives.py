"""Archives from outside, unpacked so that nothing leaves its folder and nothing is left half-unpacked."""

import contextlib
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from comp.artifacts import free_bytes, is_own
from comp.errors import CompError

SUFFIXES = (".zip", ".7z", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.7z")


def stem_of(path: Path) -> str | None:
    """'train-jpg' of train-jpg.tar.7z; None for a file that is no archive."""
    suffix = max((s for s in SUFFIXES if path.name.lower().endswith(s)), key=len, default=None)
    return path.name[: -len(suffix)] if suffix else None


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
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _unpack(path, partial)
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


def _unpack(path: Path, folder: Path) -> None:
    name = path.name.lower()
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not m.is_dir()]
            _check(path, folder, [m.filename for m in members], sum(m.file_size for m in members))
            if any((m.external_attr >> 16) & 0o170000 == 0o120000 for m in members):
                raise CompError(f"{path} holds links; it is not unpacked")
            archive.extractall(folder)
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
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/"))
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
