import io
import random
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import py7zr
import pytest

from comp.cli.main import main
from comp.data import archives
from comp.data import discovery as finder
from comp.data.archives import DamagedArchive, stem_of, unpack
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
    with pytest.raises(CompError, match="link, which is not a plain file"):
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


# --- damaged in any way -------------------------------------------------------------------------------------


def write_7z_by(filter_id: int, **settings: int):
    def write(path: Path, files: dict[str, bytes]) -> None:
        with py7zr.SevenZipFile(path, "w", filters=[{"id": filter_id, **settings}]) as archive:
            for name, content in files.items():
                archive.writestr(content, name)

    return write


KINDS = {
    **WRITERS,
    "x.tar.xz": lambda path, files: write_tar(path, files, "w:xz"),
    "x.tar.bz2": lambda path, files: write_tar(path, files, "w:bz2"),
    "zstd.7z": write_7z_by(py7zr.FILTER_ZSTD, level=3),
    "brotli.7z": write_7z_by(py7zr.FILTER_BROTLI, level=5),
    "bzip2.7z": write_7z_by(py7zr.FILTER_BZIP2),
}
PPMD = write_7z_by(py7zr.FILTER_PPMD, order=6, mem=24)


def damaged(content: bytes, seed: str, n: int) -> Iterator[bytes]:
    """Variants that are cut, or in which bits are flipped, or ranges are zeroed, doubled, lost or put in."""
    draw = random.Random(seed)
    for i in range(n):
        bad, at = bytearray(content), draw.randrange(len(content))
        length = draw.choice((1, 2, 8, 32, 200, 1000))
        match i % 6:
            case 0:
                del bad[at:]
            case 1:
                bad[at] ^= 1 << draw.randrange(8)
            case 2:
                bad[at : at + length] = bytes(len(bad[at : at + length]))
            case 3:
                bad[at:at] = bad[max(0, at - length) : at]
            case 4:
                del bad[at : at + length]
            case 5:
                bad[at:at] = draw.randbytes(length)
        if bad != content:
            yield bytes(bad)


@pytest.mark.parametrize("name", KINDS)
def test_whatever_is_damaged_there_is_one_line_and_nothing_wrong_is_unpacked(tmp_path: Path, name: str):
    """A plain tar has checksums of its headers alone."""
    KINDS[name](tmp_path / name, FILES | {"empty": b""})
    whole, out = (tmp_path / name).read_bytes(), tmp_path / "out"
    n_damaged = 0
    for bad in damaged(whole, name, 40):
        (tmp_path / name).write_bytes(bad)
        try:
            unpack(tmp_path / name, out)
            found = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()}
            assert found == FILES | {"empty": b""} or (name == "x.tar" and found.keys() == {*FILES, "empty"})
            archives.remove(out, inside=tmp_path)
        except CompError as error:
            n_damaged += isinstance(error, DamagedArchive)
            assert name in str(error) and "\n" not in str(error)
        assert [p.name for p in tmp_path.iterdir()] == [name]
    assert n_damaged > 20


@pytest.mark.parametrize("error", [IndexError("x"), SystemError(), KeyError(), AssertionError("\n"),
                                   MemoryError(), OSError("Invalid data"), RecursionError()])  # fmt: skip
def test_any_error_of_an_archives_library_is_one_line(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise error

    write_zip(tmp_path / "x.zip", FILES)
    monkeypatch.setattr(zipfile.ZipFile, "extractall", fail)
    with pytest.raises(CompError, match=r"^[^\n]*x\.zip is (damaged or cut short|encrypted) [^\n]*$"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_a_damaged_header_in_a_tar_is_not_taken_for_its_end(tmp_path: Path, name: str):
    write_tar(tmp_path / "x.tar", {"a": b"1" * 512, "b": b"2" * 512})
    content = bytearray((tmp_path / "x.tar").read_bytes())
    content[1024 + 150] ^= 1  # in the checksum of the second
    (tmp_path / "x.tar").write_bytes(content)
    if name.endswith(".gz"):
        import gzip

        (tmp_path / name).write_bytes(gzip.compress(content))
    with pytest.raises(DamagedArchive):
        unpack(tmp_path / name, tmp_path / "out")


def test_a_header_of_zeros_in_a_tar_is_not_taken_for_its_end(tmp_path: Path):
    write_tar(tmp_path / "x.tar", {"a": b"1" * 512, "b": b"2" * 512})
    content = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(content[:1024] + bytes(512) + content[1536:])
    with pytest.raises(DamagedArchive):
        unpack(tmp_path / "x.tar", tmp_path / "out")


def test_a_member_that_a_damaged_list_of_a_zip_swallows_is_missed(tmp_path: Path):
    write_zip(tmp_path / "x.zip", {"a": b"1", "b": b"2"})
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[content.index(b"PK\1\2") + 32] = 46 + 1  # the comment of the first is as long as the second
    (tmp_path / "x.zip").write_bytes(content)
    assert zipfile.ZipFile(tmp_path / "x.zip").namelist() == ["a"]
    with pytest.raises(DamagedArchive, match="list of members"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


def test_an_archive_whose_decoder_may_kill_its_process_is_unpacked_in_one_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    PPMD(tmp_path / "x.7z", FILES)
    unpack(tmp_path / "x.7z", tmp_path / "out")
    assert (tmp_path / "out/train.csv").read_bytes() == FILES["train.csv"]
    monkeypatch.setattr(archives, "UNPACK_SCRIPT", "import os; os.kill(os.getpid(), 11)")
    with pytest.raises(DamagedArchive):
        unpack(tmp_path / "x.7z", tmp_path / "again")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x.7z"]


def test_a_checksum_behind_the_end_of_a_compressed_tar_is_looked_at(tmp_path: Path):
    write_tar(tmp_path / "x.tar.gz", FILES, "w:gz")
    content = bytearray((tmp_path / "x.tar.gz").read_bytes())
    content[-6] ^= 1
    (tmp_path / "x.tar.gz").write_bytes(content)
    with pytest.raises(DamagedArchive):
        unpack(tmp_path / "x.tar.gz", tmp_path / "out")


# --- more than there is room for ----------------------------------------------------------------------------


def test_a_zip_of_one_body_under_many_names_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a", b"a" * 10_000)
        archive.filelist += archive.filelist * 1999
    monkeypatch.setattr(zipfile.ZipFile, "extractall", None)
    with pytest.raises(DamagedArchive, match="its members overlap"):
        unpack(tmp_path / "x.zip", tmp_path / "out")


def test_a_7z_archive_where_py7zr_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_7z(tmp_path / "x.7z", FILES)
    monkeypatch.setitem(sys.modules, "py7zr", None)  # as if it were absent
    with pytest.raises(
        CompError, match="x.7z is a 7z archive, and py7zr is not installed; pip install py7zr"
    ):
        unpack(tmp_path / "x.7z", tmp_path / "out")


@pytest.mark.parametrize("name", KINDS)
def test_all_members_together_have_to_fit(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    KINDS[name](tmp_path / name, FILES)
    size = sum(map(len, FILES.values()))
    monkeypatch.setattr(archives, "free_bytes", lambda _: size - 1)
    with pytest.raises(CompError, match="needs more than"):
        unpack(tmp_path / name, tmp_path / "out")
    monkeypatch.setattr(archives, "free_bytes", lambda _: 10 * size)
    monkeypatch.setattr(archives, "MAX_FILES", 2)
    with pytest.raises(CompError, match="more files than"):
        unpack(tmp_path / name, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == [name]
    monkeypatch.setattr(archives, "MAX_FILES", 3)
    unpack(tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize("size", [0, 10, 9_999])
def test_no_more_is_written_than_a_zip_says(tmp_path: Path, size: int):
    """Its list of members says another size than there is."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"a" * 10_000)
        archive.filelist[0].file_size = size
    with pytest.raises(CompError):
        unpack(tmp_path / "x.zip", tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "size"),
    [(tarfile.GNUTYPE_LONGNAME, 2**40), (tarfile.XHDTYPE, 2**40), (tarfile.REGTYPE, -1024), (b"x", -512)],
)
def test_a_tars_header_makes_nothing_endless(tmp_path: Path, kind: bytes, size: int):
    member = tarfile.TarInfo("a")
    member.type, member.size = kind, size
    (tmp_path / "x.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with pytest.raises(DamagedArchive):
        unpack(tmp_path / "x.tar", tmp_path / "out")


def test_archives_in_archives_are_unpacked_to_a_depth(here: Path, fails, monkeypatch: pytest.MonkeyPatch):
    write_zip(here / "0.zip", {"x.txt": b"x"})
    for i in range(1, 20):
        write_zip(here / f"{i}.zip", {f"{i - 1}.zip": (here / f"{i - 1}.zip").read_bytes()})
    recipe = (here / "tiny.toml").read_text()
    (here / "tiny.toml").write_text(
        recipe.replace("drawn = { n_train = 90, n_test = 60, size = 32 }\n", "").replace(
            'extends = "demo"', 'backbone = "test_resnet"'
        )
    )
    (here / "in").mkdir()
    (here / "19.zip").rename(here / "in/19.zip")
    assert "no labels file" in fails("download", "tiny.toml", "--from", "in")
    assert len(list((here / "data/tiny/unpacked").iterdir())) == finder.MAX_NESTING
    (here / "in/19.zip").unlink()
    for i in range(3):
        (here / f"{i}.zip").rename(here / f"in/{i}.zip")
    monkeypatch.setattr(finder, "MAX_ARCHIVES", 2)
    assert main(["download", "tiny.toml", "--from", "in"]) == 1
    assert len(list((here / "data/tiny/unpacked").iterdir())) == finder.MAX_NESTING + 2


def test_a_downloaded_zip_is_used_up_where_it_does_not_fit_beside_its_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    files = {f"{i}.bin": random.Random(i).randbytes(3 * archives.BLOCK) for i in range(8)}
    write_zip(tmp_path / "x.zip", files)
    monkeypatch.setattr(archives, "free_bytes", lambda _: 4 * archives.BLOCK)
    with pytest.raises(CompError, match="needs more than"):
        unpack(tmp_path / "x.zip", tmp_path / "out")
    assert (tmp_path / "x.zip").exists()
    unpack(tmp_path / "x.zip", tmp_path / "out", 0)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == files
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_reserve_keeps_space_free_and_small_archives_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archives, "free_bytes", lambda _: 1_000_000)
    for reserve, left in ((0, True), (990_000, False), (10**9, True)):
        write_zip(tmp_path / "x.zip", FILES)  # 13 kB
        unpack(tmp_path / "x.zip", tmp_path / f"out{reserve}", reserve)
        assert (tmp_path / "x.zip").exists() == left
