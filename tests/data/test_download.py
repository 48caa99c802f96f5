"""Where a competition's files may come from."""

import json
import shutil
from pathlib import Path

import pytest

from comp.cli.main import main
from comp.config.loading import load_recipe
from comp.data.manifest import read_manifest
from tests.data.test_archives import write_tar_7z, write_zip


@pytest.fixture
def drawn(here: Path) -> dict[str, dict[str, bytes]]:
    """The files of the tiny competition by their top folder or name, and a recipe that expects them."""
    assert main(["download", "tiny.toml"]) == 0
    files: dict[str, dict[str, bytes]] = {}
    root = here / "data" / "tiny" / "drawn"
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = str(path.relative_to(root))
        files.setdefault(name.split("/")[0], {})[name] = path.read_bytes()
    shutil.rmtree(here / "data")
    text = (here / "tiny.toml").read_text().replace("drawn = { n_train = 90, n_test = 60, size = 32 }\n", "")
    (here / "tiny.toml").write_text(text.replace('extends = "demo"', 'backbone = "test_resnet"'))
    (here / "in").mkdir()
    return files


def found(here: Path) -> dict:
    data = read_manifest(load_recipe("tiny.toml").competition)
    assert len(data.images("train", data.labels(load_recipe("tiny.toml").competition).ids, ()).paths) == 90
    return json.loads((here / "data" / "tiny" / "manifest.json").read_text())


def test_archives_of_each_part(here: Path, drawn):
    for name, files in drawn.items():
        (write_tar_7z if name.endswith("jpg") else write_zip)(
            here / "in" / f"{name}.{'tar.7z' if name.endswith('jpg') else 'zip'}", files
        )
    assert main(["download", "tiny.toml", "--from", "in"]) == 0
    assert len(found(here)["archives"]) == 5


def test_one_archive_of_archives(here: Path, drawn):
    (here / "parts").mkdir()
    for name, files in drawn.items():
        write_zip(here / "parts" / f"{name}.zip", {k.removeprefix(f"{name}/"): v for k, v in files.items()})
    write_zip(here / "in" / "all.zip", {p.name: p.read_bytes() for p in (here / "parts").iterdir()})
    assert main(["download", "tiny.toml", "--from", "in"]) == 0
    assert len(found(here)["archives"]) == 6


def test_archives_with_the_same_name_in_different_folders(here: Path, drawn):
    for name in ("train-jpg", "test-jpg"):
        (here / "in" / name).mkdir()
        write_zip(here / "in" / name / "images.zip", drawn.pop(name))
    write_zip(here / "in" / "tables.zip", {k: v for files in drawn.values() for k, v in files.items()})
    assert main(["download", "tiny.toml", "--from", "in"]) == 0
    found(here)


def test_folders_are_used_in_place_and_never_removed(here: Path, drawn):
    for files in drawn.values():
        for name, content in files.items():
            (here / "in" / name).parent.mkdir(exist_ok=True)
            (here / "in" / name).write_bytes(content)
    assert main(["download", "tiny.toml", "--from", "in"]) == 0
    first = read_manifest(load_recipe("tiny.toml").competition).fingerprint
    assert [p.name for p in (here / "data" / "tiny").iterdir() if not p.name.startswith(".")] == [
        "manifest.json"
    ]
    shutil.move(here / "in", here / "data" / "tiny" / "mine")
    assert main(["download", "tiny.toml", "--force"]) == 0
    assert (
        main(["download", "tiny.toml", "--force", "--set", "competition.images.test='test-jpg/{id}.jpg'"])
        == 0
    )
    assert len(list((here / "data" / "tiny" / "mine" / "train-jpg").iterdir())) == 90
    assert (
        read_manifest(load_recipe("tiny.toml").competition).fingerprint == first
    )  # moved data is the same data


def test_a_corrected_archive_is_unpacked_again(here: Path, drawn, fails):
    everything = {k: v for files in drawn.values() for k, v in files.items()}
    write_zip(here / "in" / "all.zip", {k: v for k, v in everything.items() if k != "train.csv"})
    assert "no labels file (train.csv)" in fails("download", "tiny.toml", "--from", "in")
    write_zip(here / "in" / "all.zip", everything)
    assert main(["download", "tiny.toml", "--from", "in"]) == 0
    assert len(list((here / "data" / "tiny" / "unpacked").iterdir())) == 1  # the first copy is gone
    found(here)


def test_an_archive_with_a_password_is_one_line(here: Path, drawn, fails):
    import py7zr

    with py7zr.SevenZipFile(here / "in" / "all.7z", "w", password="secret") as archive:
        archive.writestr(b"id,tags\n", "train.csv")
    line = fails("download", "tiny.toml", "--from", "in")
    assert "encrypted" in line or "damaged" in line


def test_files_are_found_in_every_layout_of_a_kernels_mounts(
    here: Path, drawn, monkeypatch: pytest.MonkeyPatch
):
    text = (
        (here / "tiny.toml").read_text().replace('name = "tiny"\n', 'name = "tiny"\nslug = "tiny-scenes"\n')
    )
    (here / "tiny.toml").write_text(text)
    for i, place in enumerate(("competitions/tiny-scenes", "tiny-scenes")):
        for name, content in (item for files in drawn.values() for item in files.items()):
            path = here / f"input{i}" / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        monkeypatch.setenv("COMP_KAGGLE_INPUT", str(here / f"input{i}"))
        monkeypatch.setenv("COMP_DATA", f"data{i}")
        assert main(["download", "tiny.toml"]) == 0
        assert (here / f"data{i}" / "tiny" / "manifest.json").exists()
