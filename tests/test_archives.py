import io
import tarfile
import zipfile
from pathlib import Path

import py7zr
import pytest

from comp.archives import stem_of, unpack
from comp.errors import CompError

FILES = {"train-jpg/a.jpg": b"a" * 3000, "train-jpg/b.jpg": bytes(range(256)) * 40, "train.csv": b"id,tags\n"}


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def write_7z(path: Path, files: dict[str, bytes]) -> None:
    with py7zr.SevenZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(content, name)


def write_tar_7z(path: Path, files: dict[str, bytes]) -> None:
    write_tar(path.with_name("inner.tar"), files)
    with py7zr.SevenZipFile(path, "w") as archive:
        archive.write(path.with_name("inner.tar"), path.name.removesuffix(".7z"))
    path.with_name("inner.tar").unlink()


WRITERS = {
    "x.zip": write_zip,
    "x.tar": write_tar,
    "x.tar.gz": lambda path, files: write_tar(path, files, "w:gz"),
    "x.7z": write_7z,
    "x.tar.7z": write_tar_7z,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_archive_is_unpacked_whole(tmp_path: Path, name: str):
    WRITERS[name](tmp_path / name, FILES)
    unpack(tmp_path / name, tmp_path / "out")
    found = {
        str(p.relative_to(tmp_path / "out")): p.read_bytes()
        for p in (tmp_path / "out").rglob("*")
        if p.is_file()
    }
    assert found == FILES
    assert stem_of(Path(name)) == "x"


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.7z"])
@pytest.mark.parametrize("evil", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil"])
def test_nothing_leaves_the_folder(tmp_path: Path, name: str, evil: str):
    WRITERS[name](tmp_path / name, {"good.txt": b"good", evil: b"evil"})
    with pytest.raises(CompError, match="would leave the folder"):
        unpack(tmp_path / name, tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("*evil*"))
    assert not (tmp_path / "deep" / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, "../../etc/passwd"
        archive.addfile(member)
    with pytest.raises(CompError, match="no plain file"):
        unpack(tmp_path / "x.tar", tmp_path / "out")


def test_a_link_in_a_zip_is_refused(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "../secret")
    with pytest.raises(CompError, match="links"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.9])
def test_a_damaged_archive_is_named_and_leaves_nothing(tmp_path: Path, name: str, share: float):
    big = {f"{i}.bin": bytes((i * j * 7919) % 251 for j in range(5000)) for i in range(12)}
    WRITERS[name](tmp_path / name, big)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CompError, match=f"{name} is damaged or cut short"):
        unpack(tmp_path / name, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_tar_cut_between_two_members_is_noticed(tmp_path: Path):
    write_tar(tmp_path / "x.tar", {"a": b"1" * 512, "b": b"2" * 512})
    (tmp_path / "x.tar").write_bytes((tmp_path / "x.tar").read_bytes()[:1024])  # one header, one block
    with pytest.raises(CompError, match="damaged or cut short"):
        unpack(tmp_path / "x.tar", tmp_path / "out")
