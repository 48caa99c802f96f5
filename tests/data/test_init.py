"""`comp init` on folders in the forms of known competitions: their tables and names are real in form, their
images are empty files."""

import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from comp.cli.main import main
from comp.config.loading import load_competition, load_recipe
from comp.data.manifest import read_manifest
from tests.fake_kaggle import FakeKaggle

N, N_TEST = 90, 30
RANDOM = random.Random(5)
WEATHER = ("clear", "partly_cloudy", "cloudy", "haze")


def draw(choices: Any, k: int | None = None) -> Any:
    return RANDOM.choice(choices) if k is None else sorted(RANDOM.sample(choices, k))


def images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def csv(folder: Path, name: str, **columns: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(columns).to_csv(folder / name, index=False)


def ids(start: str = "", end: str = "", n: int = N, first: int = 0) -> list[str]:
    return [f"{start}{i:04x}{end}" for i in range(first, first + n)]


def planet(folder: Path) -> None:
    train, test = [f"train_{i}" for i in range(N)], [f"test_{i}" for i in range(N_TEST)]
    tags = [
        " ".join([draw(WEATHER), *draw(["primary", "road", "water", "habitation"], draw([1, 2, 3]))])
        for _ in train
    ]
    csv(folder, "train_v2.csv", image_name=train, tags=tags)
    csv(folder, "sample_submission_v2.csv", image_name=test, tags="primary clear road")
    images(folder, *[f"train-jpg/{i}.jpg" for i in train], *[f"train-tif-v2/{i}.tif" for i in train])
    images(
        folder,
        *[f"test-jpg/{i}.jpg" for i in test[:20]],
        *[f"test-jpg-additional/{i}.jpg" for i in test[20:]],
    )


def atlas(folder: Path) -> None:
    train, test = ids(end="-bad0-11e8"), ids(end="-bad0-11e8", n=N_TEST, first=500)
    csv(
        folder,
        "train.csv",
        Id=train,
        Target=[" ".join(map(str, draw(range(12), draw([1, 2, 3])))) for _ in train],
    )
    csv(folder, "sample_submission.csv", Id=test, Predicted="0")
    for split, names in (("train", train), ("test", test)):
        images(folder, *[f"{split}/{i}_{c}.png" for i in names for c in ("red", "green", "blue", "yellow")])


def leaves_2021(folder: Path) -> None:
    train, test = ids("8", ".jpg"), ids("9", ".jpg", N_TEST)
    forms = [
        "healthy",
        "scab",
        "rust",
        "complex",
        "scab rust",
        "rust complex",
        "scab rust complex",
        "powdery_mildew",
    ]
    csv(folder, "train.csv", image=train, labels=[forms[i % len(forms)] for i in range(N)])
    csv(folder, "sample_submission.csv", image=test, labels="healthy")
    images(folder, *[f"train_images/{i}" for i in train], *[f"test_images/{i}" for i in test])


def leaves_2020(folder: Path) -> None:
    train, test = [f"Train_{i}" for i in range(N)], [f"Test_{i}" for i in range(N_TEST)]
    names = ["healthy", "multiple_diseases", "rust", "scab"]
    columns = {name: [int(i % 4 == k) for i in range(N)] for k, name in enumerate(names)}
    csv(folder, "train.csv", image_id=train, **columns)
    csv(folder, "test.csv", image_id=test)
    csv(folder, "sample_submission.csv", image_id=test, **dict.fromkeys(names, 0.25))
    images(folder, *[f"images/{i}.jpg" for i in (*train, *test)])


def catheters(folder: Path) -> None:
    train, test = ids("1.2.826.0.1."), ids("1.2.826.0.2.", n=N_TEST)
    names = [
        "ETT - Abnormal",
        "ETT - Normal",
        "NGT - Abnormal",
        "CVC - Borderline",
        "Swan Ganz Catheter Present",
    ]
    columns = {name: [0, *(RANDOM.randint(0, 1) for _ in train[1:])] for name in names}
    patients = [f"p{i // 3}" for i in range(N)]
    csv(folder, "train.csv", StudyInstanceUID=train, **columns, PatientID=patients)
    csv(folder, "sample_submission.csv", StudyInstanceUID=test, **dict.fromkeys(names, 0))
    csv(folder, "train_annotations.csv", StudyInstanceUID=train[:40], label="ETT - Normal", data="[[1, 2]]")
    images(folder, *[f"train/{i}.jpg" for i in train], *[f"test/{i}.jpg" for i in test])


def cactus(folder: Path) -> None:
    train, test = ids(end=".jpg"), ids(end=".jpg", n=N_TEST, first=500)
    csv(folder, "train.csv", id=train, has_cactus=[int(i % 4 > 0) for i in range(N)])
    csv(folder, "sample_submission.csv", id=test, has_cactus=0.5)
    for split, names in (("train", train), ("test", test)):  # as Kaggle serves them
        with zipfile.ZipFile(folder / f"{split}.zip", "w") as archive:
            for name in names:
                archive.writestr(f"{split}/{name}", b"x")


def cassava(folder: Path) -> None:
    train, test = ids("1", ".jpg"), ids("2", ".jpg", N_TEST)
    csv(folder, "train.csv", image_id=train, label=[i % 5 for i in range(N)])
    csv(folder, "sample_submission.csv", image_id=test, label=4)
    (folder / "label_num_to_disease_map.json").write_text("{}")
    images(folder, *[f"train_images/{i}" for i in train], *[f"test_images/{i}" for i in test])


def wild(folder: Path) -> None:
    train, test = ids(), ids(n=N_TEST, first=500)
    kinds, places = [draw(["0", "1", "3", "13", "22"]) for _ in train], [str(i % 17) for i in range(N)]
    more = {"width": 1024, "height": 747, "seq_id": ids("s"), "rights_holder": "Erin"}
    files = [f"{i}.jpg" for i in train]
    csv(folder, "train.csv", category_id=kinds, file_name=files, id=train, location=places, **more)
    csv(
        folder, "test.csv", date_captured="2012", file_name=[f"{i}.jpg" for i in test], id=test, location="99"
    )
    csv(folder, "sample_submission.csv", Id=test, Category=0)
    images(folder, *[f"train_images/{i}.jpg" for i in train], *[f"test_images/{i}.jpg" for i in test])


def seedlings(folder: Path) -> None:
    names = {
        f"{kind}/{i:03x}.png": kind for kind in ("Black-grass", "Common wheat", "Fat Hen") for i in range(30)
    }
    test = ids(end=".png", n=N_TEST, first=500)
    csv(folder, "sample_submission.csv", file=test, species="Fat Hen")
    images(folder, *[f"train/{name}" for name in names], *[f"test/{i}" for i in test])


def pets(folder: Path) -> None:
    train, test = ids("a"), ids("b", n=N_TEST)
    csv(folder, "train.csv", Id=train, Eyes=1, Face=0, Pawpularity=[1 + i % 88 for i in range(N)])
    csv(folder, "sample_submission.csv", Id=test, Pawpularity=[20.01 + i for i in range(N_TEST)])
    images(folder, *[f"train/{i}.jpg" for i in train], *[f"test/{i}.jpg" for i in test])


FORMS: dict[str, tuple[Callable[[Path], None], dict[str, Any], str]] = {
    "planet-like": (
        planet,
        {"labels": {"csv": ("train_v2.csv",), "id": "image_name", "column": "tags", "single": False,
                    "exclusive": (tuple(sorted(WEATHER)),)},
         "images": {"train": ("train-jpg/{id}.jpg",),
                    "test": ("test-jpg-additional/{id}.jpg", "test-jpg/{id}.jpg")}},
        "tags separated by spaces in column tags (8 different, 2 to 4 an image)",
    ),
    "atlas": (
        atlas,
        {"labels": {"id": "Id", "column": "Target", "indices": True},
         "images": {"train": ("train/{id}_{channel}.png",), "channels": ("red", "green", "blue", "yellow")},
         "submission": {"column": "Predicted"}},
        "channels red, green, blue, yellow",
    ),
    "leaves-2021": (
        leaves_2021,
        {"labels": {"id": "image", "column": "labels", "single": False},
         "images": {"train": ("train_images/{id}",), "test": ("test_images/{id}",)},
         "metric": {"beta": 2, "average": "samples"}},
        "not certain: the metric: samples F2 is the default",
    ),
    "leaves-2020": (
        leaves_2020,
        {"labels": {"id": "image_id", "column": None, "single": True,
                    "classes": ("healthy", "multiple_diseases", "rust", "scab")},
         "images": {"train": ("images/{id}.jpg",), "test": ("images/{id}.jpg",)},
         "metric": {"name": "roc_auc"}},
        "the sample holds 0.25, so probabilities count; roc_auc is assumed",
    ),
    "catheters": (
        catheters,
        {"labels": {"csv": ("train.csv",), "column": None, "empty": True, "group": "PatientID",
                    "classes": ("ETT - Abnormal", "ETT - Normal", "NGT - Abnormal", "CVC - Borderline",
                                "Swan Ganz Catheter Present")}},
        "group: PatientID (30 different)",
    ),
    "cactus": (
        cactus,
        {"labels": {"id": "id", "column": None, "classes": ("has_cactus",), "empty": True},
         "images": {"train": ("train/{id}",), "test": ("test/{id}",)},
         "metric": {"name": "roc_auc"}},
        "the sample holds 0.5, so probabilities count",
    ),
    "cassava": (
        cassava,
        {"labels": {"column": "label", "single": True, "indices": True}, "metric": {"name": "accuracy"}},
        "the metric: accuracy is the default",
    ),
    "iwildcam-2020-fgvc7": (
        wild,
        {"labels": {"csv": ("train.csv",), "id": "id", "column": "category_id", "single": True},
         "images": {"train": ("train_images/{id}.jpg",)}, "submission": {"id": "Id", "column": "Category"},
         "metric": {"name": "accuracy"}},
        "not certain: whether images of one location belong together (17 different)",
    ),
    "seedlings": (
        seedlings,
        {"labels": {"csv": (), "id": "file", "column": "label", "single": True},
         "images": {"train": ("train/{label}/{id}.png",), "test": ("test/{id}",)},
         "submission": {"id": None, "column": "species"}},
        "the name of each folder in train/ is a label",
    ),
}  # fmt: skip


def x_rays(folder: Path) -> None:
    train = [f"{i // 3:08d}_{i % 3:03d}.png" for i in range(N)]
    findings = ["No Finding", "Cardiomegaly", "Effusion|Mass", "Mass", "Cardiomegaly|Effusion", "Hernia|Mass"]
    columns = {
        "Finding Labels": [findings[i % 6] for i in range(N)],
        "Patient ID": [i // 3 for i in range(N)],
    }
    csv(
        folder,
        "Data_Entry_2017.csv",
        **{"Image Index": train},
        **columns,
        **{"View Position": ["PA", "AP"] * (N // 2)},
    )
    images(folder, *[f"images_{i % 4 + 1:03d}/images/{name}" for i, name in enumerate(train)])


def dogs_and_cats(folder: Path) -> None:
    images(folder, *[f"train/{kind}.{i}.jpg" for kind in ("cat", "dog") for i in range(30)])
    images(folder, *[f"test/{i}.jpg" for i in range(1, N_TEST)])
    csv(folder, "sample_submission.csv", id=list(range(1, N_TEST)), label=0.5)


def breeds(folder: Path) -> None:
    names = [f"breed_{k}" for k in range(6)]
    csv(folder, "labels.csv", id=ids("a"), breed=[names[i % 6] for i in range(N)])
    csv(folder, "sample_submission.csv", id=ids("b", n=N_TEST), **dict.fromkeys(names, 0.1667))
    images(folder, *[f"train/{i}.jpg" for i in ids("a")], *[f"test/{i}.jpg" for i in ids("b", n=N_TEST)])


def folders(folder: Path) -> None:
    images(folder, *[f"{kind}/{i}.{'jpg' if i % 2 else 'png'}" for kind in ("a b", "c") for i in range(20)])


def chest(folder: Path) -> None:
    train, test = ids("p"), ids("q", n=N_TEST)
    columns = {
        name: [int(i % 4 == k or i % 5 == k) for i in range(N)] for k, name in ((1, "Edema"), (2, "Mass"))
    }
    none = [int(a + b == 0) for a, b in zip(*columns.values())]
    csv(folder, "train.csv", image=train, **{"No Finding": none}, **columns)
    csv(folder, "valid.csv", image=ids("v"), **{"No Finding": none}, **columns)
    csv(folder, "test.csv", image=test, age=50)
    images(folder, *[f"files/{name}.png" for name in (*train, *ids("v"), *test)])


def masks(folder: Path) -> None:
    csv(
        folder,
        "train_labels.csv",
        id=list(range(1, N)),
        tags=[f"{'abc'[i % 3]};{'de'[i % 2]}" for i in range(1, N)],
    )
    csv(folder, "sample_submission.csv", id=list(range(1, N_TEST)), tags="a;d")
    images(folder, *[f"train/{kind}/{i}.png" for i in range(1, N) for kind in ("images", "masks")])
    images(folder, *[f"test/images/{i}.png" for i in range(1, N_TEST)])


MORE: dict[str, tuple[Callable[[Path], None], dict[str, Any], str]] = {
    "x-rays": (
        x_rays,
        {"labels": {"id": "Image Index", "column": "Finding Labels", "separator": "|", "none": "No Finding",
                    "group": "Patient ID"},
         "images": {"train": ("images_00*/images/{id}",)},
         "submission": {"sample": ("test-ids.csv",)}},
        "the test set: there is none. 20 training images stand in",
    ),
    "dogs": (
        dogs_and_cats,
        {"labels": {"csv": (), "classes": ("dog",), "none": "cat"}, "metric": {"name": "roc_auc"},
         "images": {"train": ("train/{label}.{id}.jpg",), "test": ("test/{id}.jpg",)}},
        "the start of each name in train/ is a label",
    ),
    "breeds": (
        breeds,
        {"labels": {"column": "breed", "single": True, "classes": tuple(f"breed_{k}" for k in range(6))},
         "submission": {"column": ""}, "metric": {"name": "log_loss"}},
        "6 different, the columns of the sample",
    ),
    "folders": (
        folders,
        {"labels": {"single": True},
         "images": {"train": ("folders/{label}/{id}.jpg", "folders/{label}/{id}.png"),
                    "test": ("folders/{id}.jpg", "folders/{id}.png")}},
        "the name of each folder in folders/ is a label",
    ),
    "chest": (
        chest,
        {"labels": {"csv": ("train.csv",), "classes": ("Edema", "Mass"), "none": "No Finding"},
         "images": {"train": ("files/{id}.png",), "table": ("test.csv",)}, "submission": {"sample": ()}},
        "valid.csv has labels too and is not used",
    ),
    "pets": (
        pets,
        {"labels": {"column": "Pawpularity", "single": False}, "metric": {"name": "rmse"}},
        "the sample holds 20.01, so rmse is assumed",
    ),
    "masks": (
        masks,
        {"labels": {"separator": ";", "exclusive": (("d", "e"), ("a", "b", "c"))},
         "images": {"train": ("train/images/{id}.png",), "test": ("test/images/{id}.png",)}},
        "exactly one of d, e; a, b, c in every row",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*FORMS, *MORE])
def test_the_toml_of_a_competition_is_right_at_once(
    here: Path, name: str, capsys: pytest.CaptureFixture[str]
):
    RANDOM.seed(5)
    build, expected, said = (FORMS | MORE)[name]
    build(here / name)
    assert main(["init", name, "--to", "mine.toml"]) == 0
    printed = capsys.readouterr().out
    print(printed, (here / "mine.toml").read_text())
    assert said in printed
    assert printed.splitlines()[-1].endswith(f"next: comp run mine.toml --from {name}")
    competition = load_competition("mine.toml")
    for table, keys in expected.items():
        found = getattr(competition, table)
        assert {key: getattr(found, key) for key in keys} == keys
    assert main(["download", "mine.toml", "--from", name]) == 0
    data = read_manifest(competition)
    data.images("train", data.labels(competition).ids, competition.images.channels)
    data.images("test", data.test_ids(competition), competition.images.channels)


def test_what_is_no_table_of_images_is_refused_with_what_would_help(here: Path, fails: Callable[..., str]):
    csv(here / "deep", "train.csv", Path=[f"chest/train/p{i}/view.jpg" for i in range(30)], Edema=[0, 1] * 15)
    images(here / "deep", *[f"train/p{i}/view.jpg" for i in range(30)])
    assert "name the folder that chest/ is in" in fails("init", "deep")
    csv(here / "bare", "train.csv", a=[1, 2], b=["x", "y"])
    assert "found 0 images, and the tables train.csv (a, b)" in fails("init", "bare")
    assert "no such folder" in fails("init", "../nothing")
    (here / "cat.toml").write_text("mine")
    cassava(here / "cat")
    assert "cat.toml exists; --force replaces it" in fails("init", "cat")
    assert (here / "cat.toml").read_text() == "mine"


def files_below(folder: Path) -> dict[str, bytes | Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def test_a_competition_on_kaggle_is_looked_at_by_its_list_and_its_tables(
    here: Path, kaggle: FakeKaggle, capsys
):
    wild(here / "wild")
    kaggle.add_competition("iwildcam-2020-fgvc7", files_below(here / "wild"))
    assert main(["init", "iwildcam-2020-fgvc7", "--name", "wild"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "lists 123 files; read" in lines[0]
    assert lines[-1].endswith("next: comp run wild.toml")
    competition = load_competition("wild.toml")
    assert (competition.slug, str(competition.metric)) == ("iwildcam-2020-fgvc7", "accuracy")
    assert competition.images.train == ("train_images/{id}.jpg",)
    assert main(["download", "wild.toml"]) == 0
    data = read_manifest(competition)
    data.images("train", data.labels(competition).ids, ())
    data.images("test", data.sample_ids(competition), ())


def test_images_that_kaggle_has_in_archives_are_assumed_and_not_certain(
    here: Path, kaggle: FakeKaggle, capsys
):
    cactus(here / "cactus")
    kaggle.add_competition("cacti", files_below(here / "cactus"))
    assert main(["init", "cacti"]) == 0
    printed = capsys.readouterr().out
    assert "not certain: train images: none was seen; train/{id} is assumed" in printed
    assert main(["download", "cacti.toml"]) == 0


def test_a_competition_that_comes_with_comp_is_extended(here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["init", "planet-understanding-the-amazon-from-space", "--to", "mine.toml"]) == 0
    assert "next: comp run mine.toml" in capsys.readouterr().out
    assert load_recipe("mine.toml").competition == load_recipe("planet").competition
