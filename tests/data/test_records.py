"""JSON files of records, as statoil-iceberg has them: two bands of 75 x 75 numbers a record. Here 12 x 12."""

import json
from pathlib import Path

import numpy as np
import pytest

from comp.cli.main import main
from comp.config.loading import load_recipe
from comp.data import records
from comp.data.decoding import decode
from comp.data.manifest import read_manifest
from comp.data.records import unpack_records
from comp.errors import CompError

RECIPE = """
backbone = "test_resnet"
pretrained = false
n_folds = 2
[competition]
name = "radar"
labels = { csv = "train.csv", id = "id", classes = ["is_iceberg"], empty = true }
submission = { sample = "sample_submission.csv" }
metric = { average = "macro", beta = 1 }
[competition.images]
train = "train/{id}_{channel}.npy"
test = "test/{id}_{channel}.npy"
channels = ["band_1", "band_2"]
[[phases]]
size = 32
epochs = 1
lr = 1e-3
batch_size = 8
"""


def drawn(n: int, *, labelled: bool) -> list[dict]:
    """Return synthetic records: a bright spot in the middle is an iceberg."""
    rng, found = np.random.default_rng(n), []
    for i in range(n):
        bands = rng.normal(-20, 3, (2, 144))
        bands[:, 60:80] += 15 * (i % 2)
        record = {
            "id": f"{i:04x}",
            "band_1": bands[0].round(3).tolist(),
            "band_2": bands[1].round(3).tolist(),
        }
        record["inc_angle"] = "na" if i % 5 == 0 else 39.5
        found.append(record | ({"is_iceberg": i % 2} if labelled else {}))
    return found


def test_a_competition_of_records_has_files_and_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import py7zr

    monkeypatch.chdir(tmp_path)
    train, test = drawn(24, labelled=True), drawn(6, labelled=False)
    Path("in").mkdir()
    Path("train.json").write_text(json.dumps(train))
    with py7zr.SevenZipFile("in/train.json.7z", "w") as archive:
        archive.write("train.json")
    Path("in/test.json").write_text(json.dumps(test))
    Path("in/sample_submission.csv").write_text("id,is_iceberg\n" + "".join(f"{r['id']},0\n" for r in test))
    Path("radar.toml").write_text(RECIPE)
    assert main(["download", "radar.toml", "--from", "in"]) == 0
    competition = load_recipe("radar.toml").competition
    data = read_manifest(competition)
    labels = data.labels(competition)
    assert labels.targets[:, 0].tolist() == [0, 1] * 12
    images = data.images("train", labels.ids, competition.images.channels)
    assert images.limits and -32 < images.limits.low < -25 and -9 < images.limits.high < 6
    assert np.array_equal(np.load(images.paths[3][1]).ravel(), np.float32(train[3]["band_2"]))
    decoded = decode(images.paths[3], joined=True, limits=images.limits)
    assert decoded.shape == (12, 12, 2) and decoded.std() > 20
    table = images.paths[0][0].with_name("train.csv").read_text().splitlines()
    assert table[:2] == ["id,inc_angle,is_iceberg", "0000,na,0"]
    assert main(["download", "radar.toml", "--from", "in"]) == 0  # done already


def test_records_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(records, "CHUNK", 7)
    given = [{"id": i, "image": [[1, 2], [3, i]], "tags": ["a", "b"]} for i in range(5)]
    (tmp_path / "r.json").write_text(json.dumps(given, indent=1))
    unpack_records(tmp_path / "r.json", tmp_path / "r", "id")
    assert np.load(tmp_path / "r" / "4_image.npy").tolist() == [[1, 2], [3, 4]]
    assert (tmp_path / "r" / "r.csv").read_text().splitlines()[1] == '0,"[""a"", ""b""]"'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"images": []}', "a JSON list of records is expected"),
        ("[]", "holds no records"),
        ('[{"id": "a", "x": [1, 2, 3, 4]}, {"id": "a"}]', "record 2: an id of its own is expected"),
        ('[{"id": "../a", "x": [1, 2, 3, 4]}]', "points outside|can't be the name"),
        ('[{"id": "b/a", "x": [1, 2, 3, 4]}]', "can't be the name of a file"),
        ('[{"id": "a", "x": [1, 2, 3]}]', r"record a, x has \(3,\) numbers; a square image"),
        ('[{"id": "a", "x": [1, "b"]}]', "a list of numbers is expected"),
        ('[{"id": "a", "x": [1, 2, 3, 4]}', "damaged or cut short"),
        ('[{"id": "a", "x": [1, 2', "damaged or cut short"),
        ("[1, 2]", "an id of its own is expected"),
    ],
)
def test_records_that_are_no_images_are_refused_and_leave_nothing(tmp_path: Path, text: str, says: str):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(CompError, match=says):
        unpack_records(tmp_path / "r.json", tmp_path / "r", "id")
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_files_with_other_bands_than_the_toml_says_are_refused_at_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    for split, names in (("train", "abcdefgh"), ("test", "xy")):
        Path("in", split).mkdir(parents=True)
        for name in names:
            np.save(f"in/{split}/{name}.npy", np.random.default_rng(ord(name)).random((9, 9 + 2, 4)))
    Path("in/train.csv").write_text(
        "id,is_iceberg\n" + "".join(f"{n},{k % 2}\n" for k, n in enumerate("abcdefgh"))
    )
    Path("in/sample_submission.csv").write_text("id,is_iceberg\nx,0\ny,0\n")
    text = RECIPE.replace("_{channel}", "").replace('channels = ["band_1", "band_2"]', "")
    Path("radar.toml").write_text(text)
    assert main(["download", "radar.toml", "--from", "in"]) == 1
    assert "4 bands, but only 3 would be read: list in images.bands" in capsys.readouterr().err
    Path("radar.toml").write_text(text.replace("[[phases]]", "bands = 4\n[[phases]]"))
    assert load_recipe("radar.toml").channels == ("1", "2", "3", "4")
    for stage in ("download", "folds", "train"):
        assert main([stage, "radar.toml", *(["--from", "in"] if stage == "download" else [])]) == 0
    cached = np.load(next(Path("data/radar/cache").glob("train-11-*.npy")))
    assert cached.shape == (8, 11, 11, 4) and cached.std() > 50
