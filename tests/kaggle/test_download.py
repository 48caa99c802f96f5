"""Downloads from Kaggle: the real client against a fake Kaggle on this machine that fails on demand."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from comp.cli.main import main
from comp.config.loading import load_competition
from comp.data import archives
from comp.data.manifest import read_manifest
from comp.kaggle import retries
from comp.kaggle.download import CHUNK_BYTES
from tests.data.test_archives import write_zip
from tests.fake_kaggle import MIRROR, PLANET, TRANSIENT, FakeKaggle, hpa, old_planet, planet
from tests.pipeline.test_bad_input import mounted

LABELS, SAMPLE = "train_v2.csv", "sample_submission_v2.csv"


def downloads(here: Path, name: str = "planet") -> dict[str, bytes]:
    folder = here / "data" / name / "downloads"
    files = [p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")]
    return {p.name: p.read_bytes() for p in files}


def n_images(split: str, ids: list[str]) -> int:
    return len(read_manifest(load_competition("planet")).images(split, ids, ()).paths)


def test_each_file_is_downloaded_from_the_first_source_that_has_it(here: Path, kaggle: FakeKaggle, capsys):
    planet(kaggle, n_images=60)
    assert main(["download", "planet"]) == 0
    printed = capsys.readouterr().out
    assert f"train_v2.csv (2 kB) from kaggle.com/competitions/{PLANET}" in printed
    assert f"from kaggle.com/datasets/{MIRROR}" in printed
    notes = json.loads((here / "data/planet/manifest.json").read_text())["downloads"]
    for note in notes:
        content = (here / "data/planet/downloads" / note["file"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (note["bytes"], note["sha256"])
    assert {note["name"]: note["source"].split("/")[0] for note in notes} == {
        f"{LABELS}/{LABELS}": "competitions", f"{SAMPLE}/{SAMPLE}": "competitions",
        "planets-dataset.zip": "datasets",
    }  # fmt: skip
    data = read_manifest(load_competition("planet"))
    assert n_images("train", data.labels(load_competition("planet")).ids) == 60
    assert n_images("test", data.sample_ids(load_competition("planet"))) == 45
    n_requests = len(kaggle.requests)
    assert main(["download", "planet"]) == 0
    assert "done already" in capsys.readouterr().out
    assert len(kaggle.requests) == n_requests


def test_the_archives_as_once_served(here: Path, kaggle: FakeKaggle):
    old_planet(kaggle, n_images=60)
    assert main(["download", "planet"]) == 0
    assert set(downloads(here)) == {
        "train_v2.csv.zip", "sample_submission_v2.csv.zip", "train-jpg.tar.7z", "test-jpg.tar.7z",
        "test-jpg-additional.tar.7z",
    }  # fmt: skip


def test_hpa_with_a_token(here: Path, kaggle: FakeKaggle, monkeypatch):
    hpa(kaggle, n_train=30, n_test=4)
    monkeypatch.delenv("KAGGLE_KEY")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_secret_token")
    assert main(["download", "hpa"]) == 0
    assert set(downloads(here, "hpa")) == {"train.zip", "test.zip", "train.csv", "sample_submission.csv"}


def test_present_files_are_not_downloaded(here: Path, kaggle: FakeKaggle):
    old_planet(kaggle, n_images=40)
    assert main(["download", "planet"]) == 0
    shutil.copytree(here / "data/planet/downloads", here / "mine")
    shutil.rmtree(here / "data")
    (here / "mine/test-jpg-additional.tar.7z").unlink()
    shutil.copytree(here / "mine", here / "data/planet/mine")
    assert main(["download", "planet"]) == 0
    assert set(downloads(here)) == {"test-jpg-additional.tar.7z"}


# --- error messages -----------------------------------------------------------------------------------------


def test_no_credentials(here: Path, kaggle: FakeKaggle, fails, monkeypatch, capsys):
    monkeypatch.delenv("KAGGLE_KEY")
    assert main(["download", "planet"]) == 4
    line = capsys.readouterr().err
    assert "no images in data/planet, and no Kaggle credentials" in line
    assert "kaggle.com/settings" in line and "access_token" in line
    (here / "data/planet/train-jpg").mkdir(parents=True)
    (here / "data/planet/train-jpg/train_0.jpg").touch()
    assert "download: no Kaggle credentials" in fails("download", "planet")


def test_wrong_credentials(here: Path, kaggle: FakeKaggle, fails, monkeypatch):
    planet(kaggle, n_images=40)
    monkeypatch.setenv("KAGGLE_KEY", "wrong-secret")
    line = fails("download", "planet")
    assert "refuses the credentials" in line and "wrong-secret" not in line


def test_rules_not_accepted(here: Path, kaggle: FakeKaggle, fails):
    planet(kaggle, n_images=40)
    kaggle.competitions[PLANET].accepted = False
    assert f"https://www.kaggle.com/competitions/{PLANET}/rules" in fails("download", "planet")


def test_a_wrong_slug(here: Path, kaggle: FakeKaggle, fails):
    line = fails("download", "planet", "--set", "competition.sources=['competitions/planet-amazon']")
    assert "competitions/planet-amazon" in line and "check the slug" in line
    line = fails("download", "planet", "--set", "competition.sources=['datasets/nobody/nothing']")
    assert "datasets/nobody/nothing does not exist" in line


def test_no_network(here: Path, kaggle: FakeKaggle, fails, monkeypatch):
    monkeypatch.setenv("COMP_KAGGLE_ENDPOINT", "http://127.0.0.1:9")
    assert "can't be reached" in fails("download", "planet")


def test_a_source_that_lacks_something(here: Path, kaggle: FakeKaggle, fails):
    planet(kaggle, n_images=40)
    line = fails("download", "planet", "--set", f"competition.sources=['competitions/{PLANET}']")
    assert "no train images (train-jpg/{id}.jpg)" in line and not (here / "data/planet/downloads").exists()


def test_a_full_disk_is_noticed_before_the_download(here: Path, kaggle: FakeKaggle):
    planet(kaggle, n_images=200)
    answer = mounted("size=250k", "$PY -m comp download planet; echo rc $?; find small -name '*.zip'", here)
    assert answer.stdout.splitlines()[-1] == "rc 1"
    (line,) = answer.stderr.strip().splitlines()
    assert "planets-dataset.zip takes" in line and "free" in line and "COMP_DATA" in line


# --- interruptions ------------------------------------------------------------------------------------------


def test_an_interrupted_download_resumes(here: Path, kaggle: FakeKaggle):
    planet(kaggle, n_images=400)
    kaggle.fail("cut", r"GET .*planets-dataset", at=300_000)
    kaggle.fail("cut", r"GET .*planets-dataset", at=100_000, after=1)
    assert main(["download", "planet"]) == 0
    ranges = [
        h.get("Range") for verb, path, h in kaggle.requests if "planets-dataset" in path and verb == "GET"
    ]
    began = [int(text[6:-1]) for text in ranges if text]
    assert 300_000 - CHUNK_BYTES <= began[0] <= 300_000 and began[1] > began[0]


def test_an_error_in_the_middle_loses_no_byte(here: Path, kaggle: FakeKaggle):
    planet(kaggle, n_images=400)
    kaggle.fail("cut", r"GET .*planets-dataset", at=300_000)
    kaggle.fail("503", r"GET .*planets-dataset", after=1)  # the request for the rest
    assert main(["download", "planet"]) == 0
    ranges = [h["Range"] for _, path, h in kaggle.requests if "planets-dataset" in path and "Range" in h]
    assert len(ranges) == 2 and ranges[0] == ranges[1] != "bytes=0-"


def test_a_killed_download_resumes(here: Path, kaggle: FakeKaggle):
    planet(kaggle, n_images=200)
    kaggle.fail("slow", r"GET .*planets-dataset", at=60_000)
    process = subprocess.Popen(
        [sys.executable, "-m", "comp", "download", "planet"], cwd=here, start_new_session=True
    )
    partial = here / "data/planet/downloads/.planets-dataset.zip.partial"
    while not (partial.exists() and partial.stat().st_size > 10_000):
        time.sleep(0.02)
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    had = partial.stat().st_size
    assert main(["download", "planet"]) == 0
    assert f"bytes={had}-" in [headers.get("Range") for _, _, headers in kaggle.requests]
    assert n_images("train", read_manifest(load_competition("planet")).labels(load_competition("planet")).ids)


def test_a_file_that_changed_on_kaggle_is_downloaded_from_the_start(here: Path, kaggle: FakeKaggle, fails):
    planet(kaggle, n_images=400)
    kaggle.fail("cut", r"GET .*planets-dataset", at=200_000)
    kaggle.fail("404", r"GET .*planets-dataset")
    assert f"datasets/{MIRROR} does not exist" in fails("download", "planet")
    assert (here / "data/planet/downloads/.planets-dataset.zip.partial").stat().st_size > 100_000
    planet(kaggle, n_images=440)
    assert main(["download", "planet"]) == 0
    assert len(list((here / "data/planet/unpacked").rglob("train_*.jpg"))) == 440


def test_a_later_run_replaces_files_that_were_truncated_or_changed(here: Path, kaggle: FakeKaggle, capsys):
    planet(kaggle, n_images=40)
    assert main(["download", "planet"]) == 0
    whole = downloads(here)
    folder = here / "data/planet/downloads"
    (folder / "planets-dataset.zip").write_bytes(whole["planets-dataset.zip"][:9000])
    table = bytearray(whole[LABELS])
    table[-3] ^= 1
    (folder / LABELS / LABELS).write_bytes(table)
    image = next((here / "data/planet/unpacked").rglob("train_*.jpg"))
    image.write_bytes(image.read_bytes()[:100])
    assert main(["download", "planet"]) == 0
    printed = capsys.readouterr().out
    assert "planets-dataset.zip was cut or changed" in printed and f"{LABELS} was cut or changed" in printed
    assert downloads(here) == whole
    assert image.name in {
        p.name for p in (here / "data/planet/unpacked").rglob("*.jpg") if p.stat().st_size > 100
    }


def test_a_damaged_archive_is_downloaded_again(here: Path, kaggle: FakeKaggle, fails):
    """Without checksums from the server, the archive's own checksums show the damage."""
    planet(kaggle, n_images=60)
    kaggle.with_hashes = False
    kaggle.fail("corrupt", r"GET .*planets-dataset", at=0.5)
    assert "damaged" in fails("download", "planet")
    assert main(["download", "planet"]) == 0


@pytest.mark.parametrize("seed", range(4))
def test_random_failures_end_with_the_right_bytes_or_a_clear_error(
    seed: int, here: Path, kaggle: FakeKaggle, capsys, monkeypatch
):
    """Per seed 25 downloads of 3 files, with up to half of the responses broken in one of many ways."""
    monkeypatch.setattr(retries, "TIMEOUTS", (1.0, 1.0))
    monkeypatch.setattr(retries, "PAUSES", (0.0,) * 4)
    planet(kaggle, n_images=60)
    assert main(["download", "planet"]) == 0
    right = downloads(here)
    n_whole = 0
    for i in range(25):
        shutil.rmtree(here / "data")
        kaggle.chaos(1000 * seed + i, 0.5 if i % 2 else 0.25, TRANSIENT, seconds=0.05)
        capsys.readouterr()
        code = main(["download", "planet"])
        kaggle.chaos(0, 0)
        lines = capsys.readouterr().err.strip().splitlines()
        got = downloads(here) if (here / "data/planet/downloads").exists() else {}
        assert all(right[name] == content for name, content in got.items())
        if code:
            assert len(lines) == 1 and lines[0].startswith("comp download: ")
            assert main(["download", "planet"]) == 0
        n_whole += code == 0
        assert downloads(here) == right
    assert n_whole >= 5


def test_retry_after_is_respected(here: Path, kaggle: FakeKaggle):
    planet(kaggle, n_images=40)
    kaggle.fail("429", r"GET .*planets-dataset", seconds=2)
    started = time.monotonic()
    assert main(["download", "planet"]) == 0
    assert time.monotonic() - started > 2


def test_a_long_retry_after_ends_the_command(here: Path, kaggle: FakeKaggle, fails):
    planet(kaggle, n_images=40)
    kaggle.fail("429", r"ListDataFiles", seconds=3600)
    assert "rate limit" in fails("download", "planet")


def test_tables_of_one_source_and_images_of_another(here: Path, kaggle: FakeKaggle):
    planet(kaggle, n_images=40)
    images = {n: p for n, p in kaggle.datasets[MIRROR].files.items() if n.endswith(".jpg")}
    kaggle.add_dataset("o/images", images)
    sources = f"competition.sources=['datasets/o/images', 'competitions/{PLANET}']"
    assert main(["download", "planet", "--set", sources]) == 0


def test_archives_of_one_name_in_different_folders(here: Path, kaggle: FakeKaggle):
    planet(kaggle, n_images=40)
    files = kaggle.datasets[MIRROR].files
    archives: dict[str, bytes | Path] = {}
    for split, part in (("train", "planet/planet/train-jpg"), ("test", "")):
        inside = {Path(n).name: p.read_bytes() for n, p in files.items() if n.endswith(".jpg")}
        inside = {n: c for n, c in inside.items() if n.startswith("train") == bool(part)}
        write_zip(here / f"{split}.zip", inside)
        archives[f"{split}/images.zip"] = here / f"{split}.zip"
    tables = kaggle.competitions[PLANET].files
    kaggle.add_competition("two", {**{n: p for n, p in tables.items() if n.endswith(".csv")}, **archives})
    images = "{ train = 'train/images/{id}.jpg', test = 'test/images/{id}.jpg' }"
    settings = ["--set", "competition.sources='competitions/two'", "--set", f"competition.images={images}"]
    assert main(["download", "planet", *settings]) == 0
    manifest = json.loads((here / "data/planet/manifest.json").read_text())
    assert [len(manifest["images"][s]) for s in ("train", "test")] == [1, 1]
    assert manifest["images"]["train"][0]["files"] == 40


def test_a_small_disk_holds_each_image_once(here: Path, kaggle: FakeKaggle, monkeypatch, capsys):
    hpa(kaggle, None, 12, 6)
    with monkeypatch.context() as patch:
        patch.setattr(archives, "free_bytes", lambda _: 400_000)
        assert main(["download", "hpa"]) == 0
    printed = capsys.readouterr().out
    assert "hpa takes about 18.4 GB of archives, as much unpacked, and 45.0 GB of resized images" in printed
    assert "train.zip is removed while it is unpacked" in printed
    assert not list((here / "data/hpa/downloads").glob("*.zip"))
    assert len(list((here / "data/hpa/unpacked").rglob("*.png"))) == 4 * (12 + 6)
    assert main(["download", "hpa"]) == 0
    assert "done already" in capsys.readouterr().out
