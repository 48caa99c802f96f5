"""Files are found wherever a template puts them, and however their names are written; what changed is
noticed, and what is nearly there is named."""

import os
import shutil
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import py7zr
import pytest
from PIL import Image

from comp.cli.main import main
from comp.config.loading import load_recipe
from comp.data.discovery import RequiredFile
from comp.data.folder_files import folder_contents
from comp.data.image_files import find_images
from comp.data.manifest import read_manifest
from comp.errors import CompError
from comp.kaggle.client import RemoteFile
from comp.kaggle.sources import choose_files

CLASSES = ("red", "green")


def competition(template: str, ids: list[str], tests: list[str], more: str = "") -> None:
    """A recipe c.toml whose test images lie as its training images do, and its tables in src/."""
    Path("src").mkdir(exist_ok=True)
    tags = [CLASSES[i % 2] for i in range(len(ids))]
    for name, rows in (("train.csv", zip(ids, tags)), ("sample.csv", ((i, "red") for i in tests))):
        Path("src", name).write_text("id,tags\n" + "".join(f"{i},{tag}\n" for i, tag in rows), "utf-8")
    Path("c.toml").write_text(
        f'title = "c"\nslug = "c-scenes"\n[labels]\ncsv = "train.csv"\nid = "id"\ncolumn = "tags"\n[images]\n'
        f'train = "{template}"\ntest = "{template.replace("train", "test")}"\n{more}\n'
        '[submission]\nsample = "sample.csv"\n',
        "utf-8",
    )


def draw(path: Path, value: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), value).save(path)


def drawn(template: str, ids: list[str], tests: list[str], channels: tuple[str, ...] = ("",)) -> None:
    for names, part in ((ids, template), (tests, template.replace("train", "test"))):
        for name in names:
            for channel in channels:
                draw(Path("src", part.format(id=name, channel=channel)))


def images_of(split: str) -> tuple[tuple[Path, ...], ...]:
    competition = load_recipe("c.toml").competition
    data = read_manifest(competition)
    ids = data.labels(competition).ids if split == "train" else data.sample_ids(competition)
    return data.images(split, ids, competition.images.channels).paths


def as_zips(folder: Path) -> None:
    for part in [p for p in folder.iterdir() if p.is_dir()]:
        shutil.make_archive(str(part), "zip", folder, part.name)
        shutil.rmtree(part)


@pytest.fixture(autouse=True)
def nobody(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no credentials for Kaggle."""
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(here))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "template",
    [
        "train/{id}/T2w/Image-10.png",
        "train/{id}/image.png",
        "a/train/{id}/{id}.png",
        "train/{id}/{id}_{channel}.png",
        "train/{channel}/{id}.png",
        "train/p_{id}/x/{channel}/y.png",
        "./train//{id}.png",
        "train\\\\{id}.png",
        "train/{id}",
    ],
)
def test_a_template_is_found_wherever_its_id_stands(here: Path, template: str, packed: bool):
    channels = ("r", "g") if "{channel}" in template else ("",)
    ids, tests = (["a1.png", "a2.png"], ["t1.png"]) if template.endswith("{id}") else (["a1", "a2"], ["t1"])
    competition(template, ids, tests, 'channels = ["r", "g"]' if "{channel}" in template else "")
    drawn("deep/er/" + template.replace("\\\\", "/"), ids, tests, channels)
    if packed:
        as_zips(Path("src"))
    assert main(["download", "c.toml", "--from", "src"]) == 0
    assert [len(paths) for paths in images_of("train")] == [len(channels)] * 2
    assert all(path.is_file() for paths in (*images_of("train"), *images_of("test")) for path in paths)


@pytest.mark.parametrize("separator", ["/", "\\"])
def test_folders_may_be_part_of_the_ids(here: Path, separator: str):
    ids, tests = ["p1/a", "p2/a"], ["q/x/t1"]
    drawn("train/{id}.png", ids, tests)
    ids, tests = ([name.replace("/", separator) for name in names] for names in (ids, tests))
    competition("train/{id}.png", ids, tests)
    assert main(["download", "c.toml", "--from", "src"]) == 0
    assert [str(paths[0].relative_to(here / "src")) for paths in images_of("train")] == [
        "train/p1/a.png",
        "train/p2/a.png",
    ]
    assert images_of("test")[0][0].is_file()


@pytest.mark.parametrize("template", ["train/{id}/T2w/x.png", "train/{id}.png", "{id}.png"])
def test_changed_images_are_noticed_in_every_folder(
    here: Path, capsys: pytest.CaptureFixture[str], template: str
):
    ids = ["p1/a", "p2/a"] if template == "train/{id}.png" else ["a1", "a2"]
    if template == "{id}.png":
        competition(template, ids, ids)
        drawn(template, ids, [])
    else:
        competition(template, ids, ["t1"])
        drawn(template, ids, ["t1"])
    assert main(["download", "c.toml", "--from", "src"]) == 0
    before = read_manifest(load_recipe("c.toml").competition).fingerprint
    capsys.readouterr()
    assert main(["download", "c.toml"]) == 0
    assert "done already" in capsys.readouterr().out
    Path("src", template.format(id=ids[1])).write_bytes(b"another image")
    assert main(["download", "c.toml"]) == 0
    assert "changed since the last download" in capsys.readouterr().out
    assert read_manifest(load_recipe("c.toml").competition).fingerprint != before


def test_what_stages_write_is_no_change_of_images(here: Path):
    competition("{id}.png", ["a1"], ["a1"])
    draw(here / "a1.png")
    first = folder_contents(Path(), "{id}.png")
    for place in ("runs/r/explain-a1.png", "data/c/cache/x.png", "data/c/unpacked/y.png", ".hidden/z.png"):
        draw(here / place)
    assert folder_contents(Path(), "{id}.png") == first
    assert first["files"] == 1


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ("train/a1.JPG", "src/train/a1.JPG is there: should images.train match it?"),
        ("Train/a1.jpg", "src/Train/a1.jpg is there: should images.train match it?"),
        ("pictures/a1.png", "src/pictures/a1.png is there: should images.train match it?"),
        ("train.rar", "comp can't unpack src/train.rar: unpack it yourself"),
        ("train.tar.zst", "comp can't unpack src/train.tar.zst: unpack it yourself"),
    ],
)
def test_a_folder_that_is_not_found_is_told_from_one_that_is_nearly_there(
    here: Path, fails, kept: str, said: str
):
    competition("train/{id}.jpg", ["a1", "a2"], ["t1"])
    drawn("test/{id}.jpg", [], ["t1"])
    draw(here / "x.png")
    (here / "src" / kept).parent.mkdir(exist_ok=True)
    (here / "x.png").replace(here / "src" / kept)
    line = fails("download", "c.toml", "--from", "src")
    assert "no train images (train/{id}.jpg) in data/c, src" in line
    assert line.endswith(f"; {said}")


@pytest.mark.parametrize(
    ("pattern", "image_id", "there", "said"),
    [
        ("{id}.jpg", "a1", "a1.JPG", "add a template that ends in {id}.JPG"),
        ("{id}.jpg", "a1", "a1.png", "add a template that ends in {id}.png"),
        ("{id}.jpg", "a1.jpg", "a1.jpg", "add a template that ends in {id}"),
        ("{id}", "a1", "a1.tif", "add a template that ends in {id}.tif"),
        ("{id}/x/y.png", "a1", "a1/x/y.tif", "add a template that ends in {id}/x/y.tif"),
        ("{id}.jpg", "a1", "A1.jpg", "'a1.jpg' is expected"),
        ("{id}.jpg", "a1 ", "a1.jpg", "'a1 .jpg' is expected"),
        ("{id}.jpg", "b c", "b%20c.jpg", "'b c.jpg' is expected"),
        ("{id}.jpg", "d:e", "d_e.jpg", "'d:e.jpg' is expected"),
        ("{id}/x.jpg", "P1", "p1/X.jpg", "'P1/x.jpg' is expected"),
        ("{id}.jpg", "17", "00017.jpg", "'17.jpg' is expected"),
        ("{id}.jpg", "17.0", "17.jpg", "'17.0.jpg' is expected"),
        ("{id}.jpg", "\u200bb c\xa0", "b_c.jpg", "is expected"),
        ("{id}.jpg", "a1.tif", "a1.jpg", "'a1.tif.jpg' is expected"),
    ],
)
def test_a_missing_image_is_told_from_one_that_is_nearly_there(
    tmp_path: Path, pattern: str, image_id: str, there: str, said: str
):
    draw(tmp_path / "x.png")
    (tmp_path / there).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "x.png").replace(tmp_path / there)
    with pytest.raises(CompError, match="no image for 1") as error:
        find_images("train", np.array([image_id]), [(tmp_path, pattern)], [])
    assert f"{tmp_path / there} is there" in str(error.value) and said in str(error.value)


def test_nothing_is_said_to_be_nearly_there_where_it_is_not(tmp_path: Path):
    draw(tmp_path / "b1.png")
    with pytest.raises(CompError, match=r"looked for \S+\{id\}\.png$"):
        find_images("train", np.array(["a1"]), [(tmp_path, "{id}.png")], [])


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("template", ["zug/{id}.png", "zug/{id}/bäd.png", "größe/{id}_{channel}.png"])
def test_accents_may_be_composed_or_not(here: Path, form: str, template: str):
    names = ["München", "Ñandú"]
    other = "NFD" if form == "NFC" else "NFC"
    channels = ("é", "g") if "{channel}" in template else ()
    competition(
        unicodedata.normalize(form, template),
        [unicodedata.normalize(form, name) for name in names],
        [unicodedata.normalize(form, names[0])],
        f"channels = {list(channels)}" if channels else "",
    )
    drawn(
        unicodedata.normalize(other, template),
        [unicodedata.normalize(other, name) for name in names],
        [],
        tuple(unicodedata.normalize(other, channel) for channel in channels) or ("",),
    )
    shutil.move("src/train.csv", "src/Übung.csv")
    text = Path("c.toml").read_text("utf-8").replace("train.csv", unicodedata.normalize("NFD", "Übung.csv"))
    Path("c.toml").write_text(text, "utf-8")
    assert main(["download", "c.toml", "--from", "src"]) == 0
    assert len({path for paths in images_of("train") for path in paths if path.is_file()}) == 2 * max(
        1, len(channels)
    )


def zip_of_train(path: Path, separator: str = "/") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        if separator == "\\":
            archive.writestr("train\\", b"")
        for file in sorted(Path("src/train").iterdir()):
            archive.writestr(f"train{separator}{file.name}", file.read_bytes())


def test_backslashes_in_an_archive_are_folders(here: Path):
    competition("train/{id}.png", ["a1", "a2"], ["t1"])
    drawn("train/{id}.png", ["a1", "a2"], ["t1"])
    zip_of_train(here / "src" / "all.zip", "\\")
    shutil.rmtree("src/train")
    assert main(["download", "c.toml", "--from", "src"]) == 0
    assert all(path.is_file() for (path,) in images_of("train"))


def test_names_in_a_zip_of_macos_are_utf_8(here: Path):
    names = [unicodedata.normalize("NFD", name) for name in ("Bär", "Föhn")]
    competition("train/{id}.png", ["Bär", "Föhn"], ["t1"])
    drawn("train/{id}.png", names, ["t1"])
    zip_of_train(here / "src" / "train.zip")
    shutil.rmtree("src/train")
    content = bytearray((here / "src" / "train.zip").read_bytes())
    for mark, at in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):  # the flag that says UTF-8, of both headers
        start = -1
        while (start := content.find(mark, start + 1)) >= 0:
            content[start + at + 1] &= ~0x08
    (here / "src" / "train.zip").write_bytes(content)
    assert main(["download", "c.toml", "--from", "src"]) == 0
    assert all(path.is_file() for (path,) in images_of("train"))


@pytest.mark.parametrize(
    "form",
    ["train.zip.{:03}", "train.zip.part{}", "train.7z.{:03}", "train.zip.a{letter}", "train.zip.{:02}"],
)
def test_an_archive_in_parts_is_joined(here: Path, fails, form: str):
    competition("train/{id}.png", ["a1", "a2"], ["t1"])
    drawn("train/{id}.png", ["a1", "a2"], ["t1"])
    if "7z" in form:
        with py7zr.SevenZipFile("all", "w") as archive:
            archive.writeall("src/train", "train")
    else:
        zip_of_train(here / "all")
    shutil.rmtree("src/train")
    content, first = (here / "all").read_bytes(), 0 if form.endswith(":02}") else 1
    names = [form.format(i + first, letter="abcdefghijkl"[i]) for i in range(12)]
    size = len(content) // 12 + 1
    for i, name in enumerate(names):
        (here / "src" / name).write_bytes(content[i * size : (i + 1) * size])
    (here / "src" / names[4]).rename(here / "later")
    line = fails("download", "c.toml", "--from", "src")
    assert f"in parts, and the one before {names[5]} is missing" in line
    (here / "later").rename(here / "src" / names[4])
    (here / "src" / names[11]).rename(here / "later")
    assert "is damaged or cut short" in fails("download", "c.toml", "--from", "src")
    (here / "later").rename(here / "src" / names[11])
    assert main(["download", "c.toml", "--from", "src"]) == 0
    assert all(path.is_file() for (path,) in images_of("train"))
    assert not [p for p in (here / "data").rglob(".*") if p.is_file() and p.name != ".lock"]


def test_a_zip_in_parts_of_its_own_kind_is_told_how_to_join(here: Path, fails):
    competition("train/{id}.png", ["a1"], ["t1"])
    drawn("train/{id}.png", ["a1"], ["t1"])
    zip_of_train(here / "src" / "train.zip")
    before, mark, after = (here / "src" / "train.zip").read_bytes().rpartition(b"PK\x05\x06")
    (here / "src" / "train.zip").write_bytes(before + mark + b"\2\0" + after[2:])
    shutil.rmtree("src/train")
    line = fails("download", "c.toml", "--from", "src")
    assert "src/train.zip is the last of 3 parts; the first is train.z01" in line
    assert "`zip -s 0" in line


def test_all_parts_of_an_archive_are_fetched():
    need = RequiredFile("train", ("train/{id}.jpg",))
    names = ["train.zip.001", "train.zip.002", "train.zip.003", "test.zip.001", "sample.csv"]
    files = [RemoteFile(name, 1000 - i) for i, name in enumerate(names)]
    chosen, left = choose_files([need], files, all_listed=True)
    assert [file and file.name for file in chosen] == names[:3] and not left


@pytest.mark.parametrize("name", ["all.zip", "all.zip.001"])
def test_the_files_may_be_in_one_archive(here: Path, fails, capsys: pytest.CaptureFixture[str], name: str):
    competition("train/{id}.png", ["a1", "a2"], ["t1"])
    drawn("train/{id}.png", ["a1", "a2"], ["t1"])
    shutil.make_archive("all", "zip", "src")
    assert "this file is not an archive" in fails("download", "c.toml", "--from", "src/train.csv")
    (here / "all.zip").rename(here / name)
    if name.endswith("1"):
        content = (here / name).read_bytes()
        (here / name).write_bytes(content[:500])
        (here / "all.zip.002").write_bytes(content[500:])
    shutil.rmtree("src")
    assert main(["download", "c.toml", "--from", name]) == 0
    assert all(path.is_file() for (path,) in images_of("train"))
    shutil.rmtree(here / "data" / "c" / "unpacked")
    capsys.readouterr()
    assert main(["download", "c.toml", "--force"]) == 0
    assert f"unpacking {name}" in capsys.readouterr().out  # the manifest knows where it came from
