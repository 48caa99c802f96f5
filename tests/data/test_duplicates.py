"""Equal and nearly equal images: found, shown, and never on both sides of a fold."""

import base64
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance
from scipy.fft import dctn

from comp.cli.main import main
from comp.config.competition import Drawn
from comp.config.loading import load_competition, load_recipe
from comp.data.duplicates import (
    find_copies,
    find_duplicates,
    fingerprints,
    read_groups,
    similar_pairs,
    with_duplicate_groups,
)
from comp.data.folds import assign_folds, check_groups
from comp.data.labels import Labels
from comp.data.manifest import read_manifest, read_training
from comp.data.synthetic.generate import generate_files
from comp.errors import CompError
from comp.evaluation.duplicates_page import render_page
from comp.training.extra_images import read_extras
from tests.conftest import TINY

RECIPE = re.sub("drawn = .*\n", "", TINY).replace(', solution = "solution.csv"', "")
SIZE = 128


def again(image: Image.Image, quality: int = 75) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=quality)
    return Image.open(data)


COPIES = {  # image: what it is a copy of, and how it was changed
    "train_80": ("train_3", lambda image: image),
    "train_81": ("train_4", lambda image: again(image)),
    "train_82": ("train_5", lambda image: ImageEnhance.Brightness(image).enhance(1.1)),
    "train_83": ("train_6", lambda image: again(image.resize((SIZE * 3 // 4,) * 2)).resize((SIZE,) * 2)),
    "train_84": ("train_7", lambda image: image.crop((1, 1, SIZE, SIZE)).resize((SIZE,) * 2)),
    "train_85": ("train_81", lambda image: ImageEnhance.Contrast(image).enhance(1.2)),
    "test_50": ("train_8", lambda image: again(image)),
    "test_51": ("test_9", lambda image: image),
}
GROUPS = [
    {"train_3", "train_80"}, {"train_4", "train_81", "train_85"}, {"train_5", "train_82"},
    {"train_6", "train_83"}, {"train_7", "train_84"}, {"train_8", "test_50"}, {"test_9", "test_51"},
]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn competition in which some images are copies of others; one copy has other labels."""
    folder = tmp_path_factory.mktemp("planted")
    drawn = Drawn(n_train=90, n_test=60, size=SIZE)
    generate_files(load_competition("demo").model_copy(update={"drawn": drawn}), folder)
    folder = folder / "drawn"
    table = pd.read_csv(folder / "train.csv").set_index("image_name")
    for copy, (source, change) in COPIES.items():
        paths = [folder / f"{name.split('_')[0]}-jpg" / f"{name}.jpg" for name in (source, copy)]
        with Image.open(paths[0]) as image:
            change(image.convert("RGB")).save(paths[1], quality=90)
        if copy.startswith("train"):
            table.loc[copy, "tags"] = table.loc[source, "tags"]
    table.loc["train_82", "tags"] = "clear mine"
    table.reset_index().to_csv(folder / "train.csv", index=False)
    return folder


@pytest.fixture
def planted(files: Path, here: Path) -> Path:
    (here / "tiny.toml").write_text(RECIPE)
    assert main(["download", "tiny.toml", "--from", str(files)]) == 0
    return here


def found(folder: Path) -> list[set[str]]:
    table = pd.read_csv(folder / "folds" / "tiny-duplicates.csv")
    assert all(table["id"].str.startswith(split).all() for split, table in table.groupby("split"))
    return [set(ids) for _, ids in table.groupby("group")["id"]]


def test_copies_are_found_and_none_else_and_stay_in_one_fold(planted: Path, capsys):
    assert main(["duplicates", "tiny.toml"]) == 0
    assert sorted(map(sorted, found(planted))) == sorted(map(sorted, GROUPS))
    printed = capsys.readouterr().out
    assert [re.findall(rf"{kind} +(\d+) +(\d+) +(\d+) ", printed)[0] for kind in (
        "within train", "within test", "across train, test"
    )] == [("5", "11", "1"), ("1", "2", "0"), ("1", "2", "0")]  # fmt: skip
    train = [group for group in GROUPS if len([name for name in group if name.startswith("train")]) > 1]
    torn = 0
    for seed in range(8):
        options = ["--set", "n_folds=5", "--set", f"seed={seed}"]
        assert main(["folds", "tiny.toml", *options]) == 0
        fold_of = pd.read_csv(planted / "folds" / f"tiny-k5-s{seed}.csv").set_index("id")["fold"]
        assert all(fold_of[list(group)].nunique() == 1 for group in train)
        recipe = load_recipe("tiny.toml")
        labels = read_manifest(recipe.competition).labels(recipe.competition)
        without = pd.Series(assign_folds(labels, 5, seed), labels.ids)
        torn += sum(without[list(group)].nunique() > 1 for group in train)
    assert torn > 20  # of 40: so it is no accident


def test_the_page_shows_every_group_and_needs_nothing_else(planted: Path, files: Path):
    assert main(["duplicates", "tiny.toml"]) == 0
    page = (planted / "folds" / "tiny-duplicates.html").read_text()
    assert not re.search(r"https?:|url\(|<script|<link|@import", page)
    sources = re.findall(r'<img alt="(\w+)" src="([^"]+)"', page)
    assert len(sources) == sum(map(len, GROUPS))
    for name, source in sources:
        assert source.startswith("data:image/jpeg;base64,")
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))), float)
        split = name.split("_")[0]
        truth = np.asarray(Image.open(files / f"{split}-jpg" / f"{name}.jpg"), float)
        assert np.abs(shown - truth).mean() < 6
    sections = page.split("<section>")[1:]
    assert "train_8<" in sections[0]  # across train and test
    assert "train_82" in sections[1]
    assert "labels differ" in sections[1]
    assert "<mark>mine</mark>" in sections[1]
    assert not any("<mark>" in section for section in sections[2:])


def test_it_runs_once_and_another_likeness_needs_force(planted: Path, fails, capsys):
    assert main(["duplicates", "tiny.toml", "--likeness", "0.99"]) == 0
    assert len(found(planted)) < len(GROUPS)
    assert "likeness = 0.99, not 0.9; --force" in fails("duplicates", "tiny.toml")
    assert main(["duplicates", "tiny.toml", "--force"]) == 0
    assert len(found(planted)) == len(GROUPS)
    assert main(["duplicates", "tiny.toml"]) == 0
    assert "done already" in capsys.readouterr().out
    assert "0.5 to 1 is expected" in fails("duplicates", "tiny.toml", "--likeness", "7")


def test_all_images_are_resized_on_the_way_for_training(planted: Path):
    assert main(["duplicates", "tiny.toml", "--set", "phases.1.size=64"]) == 0
    names = [path.name.rsplit("-", 1)[0] for path in (planted / "data" / "tiny" / "cache").glob("*.npy")]
    assert sorted(names) == ["test-32", "test-64", "train-16", "train-32", "train-64"]
    shutil.rmtree(planted / "data" / "tiny" / "cache")
    filtered = ["--set", 'filter="dehaze"', "--likeness", "0.91", "--force"]
    assert main(["duplicates", "tiny.toml", "--set", "phases.1.size=64", *filtered]) == 0
    assert len(list((planted / "data" / "tiny" / "cache").glob("*-32-*.npy"))) == 2
    assert not list((planted / "data" / "tiny" / "cache").glob("*-64-*.npy"))


def test_stopped_and_killed_it_goes_on_to_the_same(planted: Path):
    assert main(["duplicates", "tiny.toml"]) == 0
    folds, cache = planted / "folds", planted / "data" / "tiny" / "cache"
    whole = {path.name: path.read_bytes() for path in folds.iterdir()}
    shutil.rmtree(folds)
    shutil.rmtree(cache)
    assert main(["duplicates", "tiny.toml", "--time-budget", "0.001s"]) == 3
    assert not folds.exists()
    process = subprocess.Popen([sys.executable, "-m", "comp", "duplicates", "tiny.toml"], cwd=planted)
    deadline = time.monotonic() + 60
    while not list(cache.glob("train-*.npy")):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert main(["duplicates", "tiny.toml"]) == 0
    assert {path.name: path.read_bytes() for path in folds.iterdir()} == whole


def test_duplicates_of_other_images_are_refused_by_folds(planted: Path, files: Path, fails):
    assert main(["duplicates", "tiny.toml"]) == 0
    other = shutil.copytree(files, planted / "other")
    shutil.copy(other / "train-jpg" / "train_1.jpg", other / "train-jpg" / "train_2.jpg")
    shutil.rmtree(planted / "data")
    assert main(["download", "tiny.toml", "--from", "other"]) == 0
    assert "is about other train images; run `comp duplicates --force`" in fails("folds", "tiny.toml")
    (planted / "folds" / "tiny-duplicates.json").unlink()  # a table of one's own
    assert main(["duplicates", "tiny.toml"]) == 0
    assert main(["folds", "tiny.toml"]) == 0


def test_external_copies_of_what_is_held_out_are_not_learned(planted: Path, files: Path, capsys):
    folder = planted / "more" / "jpg"
    folder.mkdir(parents=True)
    copied = [f"train_{i}" for i in range(10, 30)]
    for name in (*copied, "test_1", "test_2"):
        with Image.open(files / f"{name.split('_')[0]}-jpg" / f"{name}.jpg") as image:
            again(image).save(folder / f"x_{name}.jpg", quality=90)
    names = [f"x_{name}" for name in (*copied, "test_1", "test_2")]
    table = pd.DataFrame({"image_name": names, "tags": "clear"})
    table.to_csv(planted / "more" / "train.csv", index=False)
    more = ["--set", 'external={ csv = "more/train.csv", images = "more/jpg/{id}.jpg" }']
    for stage in ("duplicates", "folds"):
        assert main([stage, "tiny.toml"]) == 0
    recipe = load_recipe("tiny.toml", more[1:])
    data, labels, fold_of = read_training(recipe)
    with pytest.raises(CompError, match="is about other external images"):
        read_extras(recipe, [0], data, labels, fold_of)
    for n_done in (0, 1):
        assert main(["duplicates", "tiny.toml", *more]) == 0  # external images are added without --force
        assert capsys.readouterr().out.count("done already") == n_done
    assert main(["duplicates", "tiny.toml"]) == 0
    assert "done already" in capsys.readouterr().out
    rows = dict(zip(labels.ids.tolist(), fold_of.tolist()))
    extras = read_extras(recipe, [0, 1, 2], data, labels, fold_of)
    for fold in (0, 1):
        (extra,) = extras[fold]
        assert extra.used.tolist() == [*(rows[name] != fold for name in copied), True, True]
    assert extras[2][0].used.all()  # a network that holds nothing out
    assert len({extras[fold][0].fingerprint for fold in (0, 1, 2)}) == 3


# --- the parts ----------------------------------------------------------------------------------------------


def labels_of(names: list[str], groups: list[str] | None = None) -> Labels:
    targets = np.ones((len(names), 1), np.uint8)
    return Labels(np.array(names), ("a",), targets, None if groups is None else np.array(groups))


def write(groups: str) -> None:
    Path("folds").mkdir(exist_ok=True)
    rows = [
        f"{name.split('-')[0]},{name},{pair[0]}" for pair in groups.split() for name in pair[2:].split("+")
    ]
    Path("folds/c-duplicates.csv").write_text("\n".join(["split,id,group", *rows]) + "\n")


def test_groups_of_the_labels_and_of_duplicates_are_united_through_each_other(here: Path):
    names = [f"train-{c}" for c in "abcdefgh"]
    labels = labels_of(names, ["1", "1", "2", "2", "3", "4", "5", "5"])
    write("x:train-b+train-c y:train-d+test-z+train-e z:train-f+test-f")
    united = with_duplicate_groups(labels, "c", "").fold_groups
    assert united is not None
    assert united.tolist() == ["1", "1", "1", "1", "1", "4", "5", "5"]
    order = np.random.default_rng(0).permutation(8)
    shuffled = labels_of([names[i] for i in order], labels.fold_groups[order].tolist())  # type: ignore[index]
    assert with_duplicate_groups(shuffled, "c", "").fold_groups.tolist() == united[order].tolist()  # type: ignore[union-attr]
    alone = with_duplicate_groups(labels_of(names), "c", "").fold_groups
    assert alone is not None
    assert [int(np.flatnonzero(alone == name)[0]) for name in alone] == [0, 1, 1, 3, 3, 5, 6, 7]
    with pytest.raises(CompError, match="more than one fold"):
        check_groups(with_duplicate_groups(labels, "c", ""), np.arange(8) % 2, Path("folds.csv"))


def test_without_duplicates_labels_stay_as_they_are(here: Path):
    labels = labels_of(["train-a", "train-b"])
    assert with_duplicate_groups(labels, "c", "") is labels
    assert read_groups("c") == {}
    write("x:test-a+test-b")
    assert with_duplicate_groups(labels, "c", "") is labels
    write("x:train-a+train-q")
    with pytest.raises(CompError, match="labels don't have: 1 \\(train-q\\)"):
        with_duplicate_groups(labels, "c", "")


def test_copies_of_held_out_images_are_named(here: Path):
    write("x:train-a+external-1+external-2 y:train-b+external-3 z:external-4+external-5")
    names = [f"external-{i}" for i in range(7)]
    leaking = find_copies(["train-a", "train-c"], "external", names, read_groups("c"))
    assert np.flatnonzero(leaking).tolist() == [1, 2]
    assert not find_copies(["train-c"], "external", names, read_groups("c")).any()


def test_a_fingerprint_is_what_its_definition_says():
    thumbnails = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    for image, print_ in zip(thumbnails, fingerprints(thumbnails, joined=False)):
        grey = image @ [0.299, 0.587, 0.114]
        waves = dctn(grey, norm="ortho")[:16, :16] * np.hypot(*np.mgrid[:16, :16])
        rounding = (np.hypot(*np.mgrid[:16, :16]) ** 2).sum() / 12
        expected = waves.ravel() / np.sqrt((waves**2).sum() + rounding)
        assert np.allclose(print_, expected, atol=1e-5)


def drift(n: int) -> np.ndarray:
    """(n, 32, 32, 3) of a camera that stands still while light changes: each like the next, and the last one
    not like the first."""
    ends = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3))
    shares = np.linspace(0, 1, n)[:, None, None, None]
    return (ends[0] * (1 - shares) + ends[1] * shares).round().astype(np.uint8)


def test_images_of_a_still_camera_end_as_groups_of_the_most_alike():
    scenes = np.random.default_rng(1).integers(0, 256, (16, 32, 32, 3), np.uint8)
    train, test = np.concatenate([drift(44), scenes]), np.concatenate([scenes[:2], drift(44)[:30:7]])
    chained = find_duplicates([train, test], joined=False)
    assert (chained.group[:44] == 0).all()
    assert chained.split_likeness == 0
    cut = find_duplicates([train, test], joined=False, max_group=10)
    assert np.bincount(cut.group[:60]).max() == 10
    assert 0.9 < cut.split_likeness < 1
    assert cut.group[44:62].tolist() == [*range(44, 60), 44, 45]  # others stay as they are
    assert (cut.likeness[44:62] == chained.likeness[44:62]).all()
    assert cut.group[62:].tolist() == cut.group[:30:7].tolist()  # equal ones are never torn
    _, sizes = np.unique(cut.group, return_counts=True)
    alone = np.isin(cut.group, np.unique(cut.group)[sizes == 1])
    assert (cut.likeness[alone] == 0).all()
    assert (cut.likeness[~alone] >= 0.9).all()
    labels = Labels(np.arange(60).astype(str), ("a",), np.ones((60, 1), np.uint8), cut.group[:60].astype(str))
    assert np.bincount(assign_folds(labels, 5, 0)).tolist() == [12] * 5


def test_folds_are_even_though_a_camera_stands_still(files: Path, here: Path, capsys):
    own = shutil.copytree(files, here / "own")
    for i, frame in enumerate(drift(60)):
        Image.fromarray(frame).save(own / "train-jpg" / f"train_{i}.jpg", quality=95)
    (here / "tiny.toml").write_text(RECIPE)
    assert main(["download", "tiny.toml", "--from", "own"]) == 0
    for stage in ("duplicates", "folds"):
        assert main([stage, "tiny.toml", "--set", "n_folds=5"]) == 0
    assert "groups are cut at 10 train images, so that folds can be even" in capsys.readouterr().out
    assert max(map(len, found(here))) == 10
    sizes = pd.read_csv(here / "folds" / "tiny-k5-s42.csv")["fold"].value_counts()
    assert sizes.max() - sizes.min() <= 2


def test_most_does_nothing_where_groups_are_smaller():
    images = np.concatenate([drift(8), np.random.default_rng(1).integers(0, 256, (20, 32, 32, 3), np.uint8)])
    for answer in (
        find_duplicates([images], joined=False),
        find_duplicates([images], joined=False, max_group=10),
    ):
        assert answer.group.tolist() == [*[0] * 8, *range(8, 28)]
        products = fingerprints(images[:8], joined=False) @ fingerprints(images[:8], joined=False).T
        np.fill_diagonal(products, 0)
        assert np.allclose(answer.likeness[:8], products.max(0), atol=1e-6)


def test_an_empty_page_says_that_nothing_was_found():
    assert "no two of 1,500 images" in render_page([], 1500, "Duplicates")


def test_all_pairs_are_those_of_brute_force():
    rng = np.random.default_rng(0)
    prints = rng.normal(size=(2300, 16)).astype(np.float32)
    prints /= np.linalg.norm(prints, axis=1, keepdims=True)
    products = np.triu(prints.astype(float) @ prints.T.astype(float), 1)
    assert not np.any(abs(products - 0.7) < 1e-7)
    i, j = np.nonzero(products >= 0.7)
    assert len(i) > 1000
    pairs = [np.stack([i, j], 1) for i, j, _ in similar_pairs(prints, 0.7)]
    answer = np.concatenate(pairs)
    assert sorted(map(tuple, answer.tolist())) == list(zip(i.tolist(), j.tolist()))


def test_images_without_contrast_are_no_duplicates_of_each_other():
    rng = np.random.default_rng(0)
    haze = (120 + rng.normal(0, 0.7, (400, 32, 32, 3))).round().astype(np.uint8)
    black = np.zeros((5, 32, 32, 3), np.uint8)
    answer = find_duplicates([haze, black], joined=False)
    assert (answer.group == np.arange(405)).all()
    assert answer.n_blank >= 5


def cells(rng: np.random.Generator) -> np.ndarray:
    """(32, 32): bright blobs on black."""
    y, x = np.mgrid[:32, :32]
    spots = [np.exp(-((x - a) ** 2 + (y - b) ** 2) / s) for a, b, s in rng.uniform(2, 30, (12, 3))]
    return np.minimum(np.sum(spots, 0), 1)


def test_joined_channels_are_alike_where_all_of_them_are():
    rng = np.random.default_rng(0)
    fields = np.stack([[cells(rng) for _ in range(4)] for _ in range(40)]).transpose(0, 2, 3, 1)
    fields[:10, :, :, 1] = 0  # no protein
    fields[10:20, :, :, 1] = np.add.outer(np.arange(32), np.arange(32)) / 160  # but for the shading
    images, stretched = fields * 200, fields[:25] * [60, 220, 120, 240]
    same_protein = images[25:30].copy()
    same_protein[..., [0, 2, 3]] = images[30:35, :, :, [0, 2, 3]]
    sets = [part.round().astype(np.uint8) for part in (images, stretched, same_protein)]
    answer = find_duplicates(sets, joined=True)
    assert answer.group.tolist() == [*range(40), *range(25), *range(65, 70)]


def test_real_scenes_of_which_one_is_there_twice(shared: Path):
    archive = zipfile.ZipFile(shared / "ucmerced" / "ucmerced.zip")
    names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))[::7]
    names += [name for name in archive.namelist() if re.search("(train_1056|train_1307)[.]jpg", name)]
    names = sorted(set(names))
    images = [
        Image.open(archive.open(name)).convert("RGB").resize((32, 32), Image.Resampling.BOX) for name in names
    ]
    answer = find_duplicates([np.stack(images)], joined=False)
    rows = np.flatnonzero(answer.likeness)
    assert [Path(names[row]).stem for row in rows] == ["train_1056", "train_1307"]
