"""Names from outside: whatever a note, a manifest, a journal, an id, a dataset or a link says, nothing but
comp's own files is removed or written."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from comp.artifacts.files import lock, write_json, write_text
from comp.artifacts.paths import kernel_output_dir, run_dir, submission_path
from comp.artifacts.resumable import GrowingArray
from comp.artifacts.safe_paths import below, inside, is_own, remove
from comp.cli.main import main
from comp.compute import ray_worker
from comp.compute.ray_jobs import RayJobRunner
from comp.console import ProgressBars
from comp.data.archives import unpack
from comp.data.image_files import find_images
from comp.errors import CompError
from comp.kaggle import ledger
from comp.kaggle.client import Kaggle, RemoteFile
from comp.kaggle.download import read_notes
from comp.kaggle.kernels import build as kernels
from tests.conftest import TINY
from tests.data.test_archives import WRITERS, write_zip
from tests.fake_kaggle import MIRROR, FakeKaggle, planet
from tests.tuning.test_tune import toy

OUT = ("..", "../x", "a/../../x", "a/..", "/x", "a\0b", 5, None)


def contents_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def mine(here: Path) -> Iterator[Path]:
    """A user's folder beside comp's, which is at the end as it was."""
    folder = here / "mine"
    for name in ("thesis.txt", "deep/photo.jpg", "model.safetensors", "fold0/model.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"my {name}")
    before = contents_of(folder)
    yield folder
    assert contents_of(folder) == before


@pytest.fixture
def downloaded(here: Path, mine: Path, kaggle: FakeKaggle) -> Path:
    planet(kaggle, data=None, n_images=40)
    assert main(["download", "planet"]) == 0
    return here / "data" / "planet"


# --- the functions that all go through ----------------------------------------------------------------------


@pytest.mark.parametrize("name", OUT)
def test_no_name_leads_out_of_its_folder(mine: Path, name: object):
    for check in (below, inside):
        with pytest.raises(CompError, match=r"^note: .* points outside mine"):
            check(Path("mine"), name, "note")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["..", "link/thesis.txt", "../mine", "../mine/thesis.txt", "", "link/deep"])
def test_nothing_beside_a_folder_is_removed(here: Path, mine: Path, name: str):
    (here / "own").mkdir()
    (here / "own/link").symlink_to(mine)
    with pytest.raises(CompError, match="is not removed"):
        remove(here / "own" / name, inside=here / "own")
    with pytest.raises(CompError, match="is a link"):
        remove(here / "own/link/thesis.txt", inside=here / "own/link")
    with pytest.raises(CompError, match="points outside"):
        inside(here / "own", "link/thesis.txt", "note")


def test_links_are_removed_and_what_they_lead_to_stays(here: Path, mine: Path):
    (here / "own/deep").mkdir(parents=True)
    for name, target in (("a", mine), ("b", mine / "thesis.txt"), ("c", here / "nothing"), ("deep/d", mine)):
        (here / "own" / name).symlink_to(target)
    for name in ("a", "b", "c", "deep", "absent"):
        remove(here / "own" / name, inside=here / "own")
    assert not list((here / "own").iterdir())


def test_comps_own_names_are_known_however_they_are_written():
    own = (".x.zip.fetched.json", ".X.FETCHED.JSON", "a/.x.partial", ".x.partial.json", ".lock",
           ".train.lock", ".x.npy.done", ".x.npy.stamp.json", ".x.fetched.j\u017fon", ".x.fet\u200cched.json",
           "a\\.x.partial", ".x.partial/y.jpg")  # fmt: skip
    for name in own:
        assert is_own(name), name
    for name in ("x.fetched.json", "poetry.lock", ".DS_Store", "a.partial", "manifest.json", ".gitignore"):
        assert not is_own(name), name


def test_what_is_written_in_place_is_never_written_through_a_link(here: Path, mine: Path):
    target = mine / "thesis.txt"
    for name in (".a.json.partial", "b.json", ".x.npy.partial", ".x.npy.done", ".x.npy.stamp.json"):
        Path(name).symlink_to(target)
    write_text(Path("a.json"), "{}")
    write_json(Path("b.json"), {})
    array = GrowingArray(Path("x.npy"), (2, 2), "uint8", {})
    array.put([0, 1], np.ones((2, 2), np.uint8))  # type: ignore[arg-type]
    array.finish()
    Path(".lock").symlink_to(here / "made")
    with pytest.raises(OSError), lock(Path(".lock"), "testing"):
        pass
    assert not (here / "made").exists()


# --- notes about fetched files ------------------------------------------------------------------------------


def test_a_note_removes_nothing_but_the_file_beside_it(downloaded: Path, mine: Path, fails):
    before = contents_of(downloaded)
    note = downloaded / "downloads" / ".x.fetched.json"
    names = ("../../../mine/thesis.txt", str(mine / "thesis.txt"), "x/../../manifest.json", "", ".", "..",
             "train_v2.csv", "a/x", "x\0", 5, None, ["x"])  # fmt: skip
    for named in names:
        write_json(note, {"file": named, "name": "x", "source": "", "bytes": 1, "sha256": "", "mtime_ns": 0})
        for options in ((), ("--force",)):
            line = fails("download", "planet", *options)
            assert str(note.relative_to(downloaded.parents[1])) in line and "delete this note" in line
    note.write_text("[1]")
    assert "delete this note" in fails("download", "planet")
    note.unlink()
    assert contents_of(downloaded) == before


@pytest.mark.parametrize(
    "name", ["..fetched.json", "...fetched.json", "....fetched.json", ".deep.fetched.json"]
)
def test_a_note_is_about_no_folder(here: Path, mine: Path, name: str):
    shutil.copytree(mine, here / "downloads")
    for file in ("", ".", "..", "deep"):
        write_json(here / "downloads" / name, {"file": file, "bytes": 1, "sha256": "", "mtime_ns": 0})
        with pytest.raises(CompError, match="comp leaves the file alone"):
            read_notes(here / "downloads")


# --- the manifest -------------------------------------------------------------------------------------------


def test_a_manifest_removes_nothing_beside_what_was_unpacked(downloaded: Path, fails):
    (downloaded / "by-hand.csv").write_text("mine")
    path, here = downloaded / "manifest.json", downloaded.parents[1]
    content = json.loads(path.read_text())
    row = content["images"]["train"][0]
    for named in ("unpacked/..", "unpacked/../..", "..", "unpacked/a/../../..", "unpacked"):
        row["folder"] = named
        write_json(path, content)
        before = contents_of(here)
        line = fails("download", "planet")
        assert "points outside" in line or "is not removed" in line
        assert contents_of(here) == before
    for named in ("unpacked/..", "unpacked/../../../mine"):  # of the user's own, which is read alone
        row["folder"] = f"{downloaded}/{named}"
        write_json(path, content)
        assert main(["download", "planet"]) == 0
        path.write_bytes(before["data/planet/manifest.json"])
        assert contents_of(here) == before


def test_a_manifest_names_no_table_outside(downloaded: Path, mine: Path, fails):
    path = downloaded / "manifest.json"
    content = json.loads(path.read_text())
    content["files"]["labels"] = "../../mine/thesis.txt"
    write_json(path, content)
    for stage in ("download", "folds"):
        assert "'../../mine/thesis.txt' points outside data/planet" in fails(stage, "planet")


# --- links in a data folder ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unpacked", "downloads"])
def test_a_link_in_place_of_comps_folder_is_refused(
    here: Path, mine: Path, kaggle: FakeKaggle, fails, name: str
):
    planet(kaggle, data=None, n_images=40)
    (here / "data/planet").mkdir(parents=True)
    (here / "data/planet" / name).symlink_to(mine)
    assert f"data/planet/{name} is a link" in fails("download", "planet")


def test_links_below_comps_folders_lead_nowhere(downloaded: Path, mine: Path):
    (downloaded / "unpacked/old-0123abcd").symlink_to(mine)
    (downloaded / "downloads/deep").symlink_to(mine)
    zipped = downloaded / "downloads/planets-dataset.zip"
    zipped.unlink()
    zipped.symlink_to(mine / "thesis.txt")  # not what came: the link goes, and the file comes anew
    (downloaded / "downloads/.planets-dataset.zip.partial").symlink_to(mine / "thesis.txt")
    assert main(["download", "planet"]) == 0
    assert not zipped.is_symlink() and zipped.stat().st_size > 10_000
    assert not (downloaded / "unpacked/old-0123abcd").exists()


def test_a_data_folder_that_is_a_link_is_as_good_as_any(here: Path, kaggle: FakeKaggle):
    planet(kaggle, data=None, n_images=40)
    (here / "disk").mkdir()
    (here / "data").mkdir()
    (here / "data/planet").symlink_to(here / "disk")
    for options in ((), ("--force",)):
        assert main(["download", "planet", *options]) == 0
    table = here / "disk/downloads/train_v2.csv/train_v2.csv"
    table.write_text(table.read_text()[:-9])
    assert main(["download", "planet"]) == 0
    (here / "drive").mkdir()
    (here / "data/tiny").symlink_to(here / "drive")
    assert main(["download", "tiny.toml"]) == 0


# --- over HTTP, and out of archives -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../x.zip", "../../../mine/thesis.txt", "/x.zip", "a/../../x.zip", "..",
                                  "link/thesis.txt", "link/new.txt"])  # fmt: skip
def test_a_dataset_writes_nothing_outside(here: Path, mine: Path, kaggle: FakeKaggle, name: str):
    kaggle.add_dataset("mallory/data", {"a.zip": b"evil"})
    kaggle.datasets["mallory/data"].versions[-1].files[name] = kaggle.datasets["mallory/data"].files["a.zip"]
    (here / "downloads").mkdir()
    (here / "downloads/link").symlink_to(mine)
    with pytest.raises(CompError, match="points outside"):
        Kaggle().fetch("datasets/mallory/data", RemoteFile(name, 4), here / "downloads")
    assert [p.name for p in (here / "downloads").iterdir()] == ["link"]


@pytest.mark.parametrize("name", [".a.zip.fetched.json", "d/.A.Fetched.JSON", ".a.zip.partial",
                                  ".a.zip.partial.json", ".lock", ".a.partial/a.zip"])  # fmt: skip
def test_a_dataset_has_no_name_that_comp_keeps(here: Path, kaggle: FakeKaggle, name: str):
    kaggle.add_dataset("mallory/data", {"a.zip": b"evil"})
    kaggle.datasets["mallory/data"].versions[-1].files[name] = kaggle.datasets["mallory/data"].files["a.zip"]
    with pytest.raises(CompError, match="a name that comp keeps for its own files"):
        Kaggle().fetch("datasets/mallory/data", RemoteFile(name, 4), here / "downloads")
    assert not (here / "downloads").exists()


def test_a_note_that_a_public_dataset_carries_is_refused(here: Path, mine: Path, kaggle: FakeKaggle, fails):
    """It names the labels so that they are wanted; and in the zip of all files."""
    planet(kaggle, data=None, n_images=40)
    note = json.dumps({"file": "../../../mine/thesis.txt", "bytes": 1, "sha256": "", "mtime_ns": 0}).encode()
    files = kaggle.datasets[MIRROR].files
    kaggle.add_dataset(MIRROR, {**files, "downloads/.thesis.txt.fetched.json": note})
    assert "a name that comp keeps" in fails("download", "planet")
    line = fails("download", "planet", "--set", "competition.labels.csv=['.thesis.txt.fetched.json']")
    assert "a name that comp keeps" in line
    assert not list((here / "data").rglob(".thesis*"))


def test_a_name_that_is_a_folder_here_is_one_line(here: Path, kaggle: FakeKaggle):
    kaggle.add_dataset("mallory/data", {"a/b.zip": b"one", "a": b"two"})
    Kaggle().fetch("datasets/mallory/data", RemoteFile("a/b.zip", 3), here / "downloads")
    with pytest.raises(CompError, match="is a folder"):
        Kaggle().fetch("datasets/mallory/data", RemoteFile("a", 3), here / "downloads")


@pytest.mark.parametrize("archive", WRITERS)
@pytest.mark.parametrize(
    "name", [".a.zip.fetched.json", "downloads/.A.FETCHED.json", "d/.x.partial", ".lock"]
)
def test_an_archive_has_no_name_that_comp_keeps(here: Path, archive: str, name: str):
    WRITERS[archive](here / archive, {"a.jpg": b"a", name: b"{}"})
    with pytest.raises(CompError, match="a name that comp keeps"):
        unpack(here / archive, here / "out")
    assert sorted(p.name for p in here.iterdir()) == ["tiny.toml", archive]


def test_an_archive_may_name_its_files_as_comp_names_those_in_the_data_folder(here: Path, kaggle: FakeKaggle):
    """They come into a folder of their own, where comp looks for none of these names."""
    planet(kaggle, data=None, n_images=40)
    files = {"manifest.json": b"{}", "cache/x.npy": b"x", "downloads/y": b"y", "unpacked/z": b"z"}
    kaggle.add_dataset(MIRROR, {**kaggle.datasets[MIRROR].files, **files})
    assert main(["download", "planet"]) == 0
    assert json.loads((here / "data/planet/manifest.json").read_text())["competition"] == "planet"
    assert not (here / "data/planet/cache").exists()


# --- names of runs, trials, kernels, submissions, images ----------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        lambda: run_dir("../mine"),
        lambda: run_dir("/etc"),
        lambda: run_dir("tiny/tune/../../../mine"),
        lambda: submission_path("../mine/thesis"),
        lambda: kernel_output_dir("tiny", "train", "1/../../../mine"),  # type: ignore[arg-type]
    ],
)
def test_no_name_of_a_run_leads_elsewhere(path: Callable[[], Path]):
    with pytest.raises(CompError, match="points outside"):
        path()


def test_a_journal_removes_no_weights_but_those_of_trials(here: Path, mine: Path, fails):
    tuned = TINY.replace("n_trials = 5\n", 'n_trials = 5\n[tune]\n"phases.0.lr" = [1e-3, 3e-3]\n', 1)
    (here / "tiny.toml").write_text(tuned)
    study = toy("shared.log")
    trial = study.study.ask(study.space)
    for name in ("../../../mine", str(mine)):
        trial.set_user_attr("folder", name)
        with pytest.raises(CompError, match="points outside"), study.working_on(trial):
            pass
    Path("runs/tiny/tune").mkdir(parents=True)
    Path("runs/tiny/tune/0abc-1").symlink_to(mine)
    with pytest.raises(CompError, match="is not removed"):
        remove(Path("runs/tiny/tune/0abc-1/fold0/model.safetensors"), inside=Path("runs/tiny/tune"))


def test_a_kernels_folder_that_is_a_link_is_refused(here: Path, mine: Path):
    Path("runs/tiny").mkdir(parents=True)
    Path("runs/tiny/kernel-train").symlink_to(mine)
    with pytest.raises(CompError, match="is a link"):
        kernels.write({"kernel/a.py": b""}, Path("runs/tiny/kernel-train"))
    for name in ("weights/../../../../mine/deep/photo.jpg", "link/thesis.txt"):
        Path("built").mkdir(exist_ok=True)
        if not Path("built/link").exists():
            Path("built/link").symlink_to(mine)
        with pytest.raises(CompError, match="points outside"):
            kernels.write({name: b"evil"}, Path("built"))


@pytest.mark.parametrize("event", ["file", "gone"])
def test_a_machine_of_a_cluster_writes_and_removes_nothing_but_its_jobs_files(
    here: Path, mine: Path, event: str
):
    jobs = SimpleNamespace(files={"fold 0": SimpleNamespace(paths=(Path("runs/a"),))}, machines={})
    with pytest.raises(CompError, match="not one of its files"):
        RayJobRunner._take(
            jobs, "fold 0", {event: mine / "thesis.txt", "pieces": 0}, iter(()), ProgressBars()
        )  # type: ignore[arg-type]


def test_a_clusters_copies_are_kept_in_no_folder_of_another(
    here: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
):
    for path in (mine / "thesis.txt", mine / "deep"):
        os.utime(path, (0, 0))
    (here / f"comp-ray-{os.getuid()}").symlink_to(mine)
    monkeypatch.setattr(ray_worker.tempfile, "gettempdir", lambda: str(here))
    events: list = []
    parcel = SimpleNamespace(deadline=float("inf"), runs=Path("runs"))
    ray_worker._work(parcel, None, SimpleNamespace(put=events.append))  # type: ignore[arg-type]
    assert "remove it" in events[0]["error"] and events[1] is None


@pytest.mark.parametrize("template", ["../{id}.jpg", "/{id}.jpg", "a/../../{id}.jpg", "{id}/../../x.jpg"])
def test_a_recipe_draws_and_reads_nothing_outside(here: Path, mine: Path, fails, template: str):
    line = fails("download", "tiny.toml", "--set", f"competition.images.train='{template}'")
    assert "points outside the data folder" in line
    assert not (here / "data").exists()
    with pytest.raises(CompError, match="points outside the image folder"):
        find_images("train", np.array(["thesis"]), [(mine, template)], ())
    for csv in ("..", ".", ""):
        assert "a file name is expected" in fails(
            "download", "tiny.toml", "--set", f"competition.labels.csv='{csv}'"
        )


@pytest.mark.parametrize("name", ["../thesis", "/etc/passwd", "a/../../thesis"])
def test_no_id_leads_out_of_the_images(mine: Path, name: str):
    with pytest.raises(CompError, match="points outside the image folder"):
        find_images("train", np.array([name]), [(mine / "deep", "{id}.txt")], ())
    with pytest.raises(CompError, match="points outside the image folder"):
        find_images("train", np.array(["a"]), [(mine / "deep", "{id}{channel}.txt")], [f"/../{name}"])


def test_a_ledger_sends_no_file_outside(here: Path, mine: Path, kaggle: FakeKaggle, fails):
    ledger.add({"name": "../mine/thesis", "time": ledger.now(), "recipe": "tiny", "competition": "tiny"})
    ledger.update(ledger.read()[0], status="sending", slug="x", sent=ledger.now())
    kaggle.add_competition("x", {"train.csv": b"id\n", "sample.csv": b"id,tags\n1,a\n"}, sample="sample.csv",
                           solution=b"id,tags,Usage\n1,a,Public\n")  # fmt: skip
    assert main(["ledger", "--sync"]) in (0, 1)
    assert not kaggle.submissions


def test_a_zip_with_a_slash_in_front_is_refused(here: Path):
    write_zip(here / "x.zip", {"/etc/evil": b""})
    with pytest.raises(CompError, match="would leave"):
        unpack(here / "x.zip", here / "out")
