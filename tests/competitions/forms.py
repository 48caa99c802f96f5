"""Folders in the form of real competitions: tables, names and folders as Kaggle serves them, images drawn so
that they show their labels as far as `signal` says. `build(name, folder)` writes one and returns what is in
it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from comp.config.loading import load_competition

SIZE, N_RINGS = 24, 4  # pixels
LIGHTS = (
    (110, 110, 110),
    (-70, -70, -70),
    (110, 0, 0),
    (0, 110, 0),
    (0, 0, 110),
)  # brighter, darker, colours


@dataclass
class Form:
    """What a folder holds: one row an image."""

    ids: list[str]  # of the training images
    classes: tuple[str, ...]
    targets: np.ndarray  # (N, C): 0 and 1, NaN for unknown, or numbers
    test_ids: list[str]
    truth: np.ndarray  # (n_test, C), for a grader
    groups: list[str] | None = None  # (N,)
    answers: list[str] | None = None  # (n_test,): which answer a test image belongs to
    features: int = 0  # columns of numbers beside an image


@dataclass
class Draft:
    """A folder that is being written."""

    folder: Path
    n: int
    n_test: int
    signal: float
    rng: np.random.Generator = field(repr=False)

    @property
    def n_all(self) -> int:
        return self.n + self.n_test

    def single(self, n_classes: int) -> np.ndarray:
        """Return (n_all, C): one 1 a row, each class about as often."""
        return np.eye(n_classes, dtype=np.uint8)[self.rng.permutation(self.n_all) % n_classes]

    def several(self, n_classes: int, share: float = 0.35) -> np.ndarray:
        """Return (n_all, C): any number of ones a row; each class has some of each."""
        drawn = (self.rng.random((self.n_all, n_classes)) < share).astype(np.uint8)
        for c in range(n_classes):
            drawn[c % self.n, c], drawn[(c + 1) % self.n, c] = 1, 0
        return drawn

    def table(self, name: str, columns: dict[str, Any]) -> None:
        pd.DataFrame(columns).to_csv(self.folder / name, index=False)

    def json(self, name: str, content: Any) -> None:
        (self.folder / name).write_text(json.dumps(content))

    def images(self, names: Sequence[str], values: np.ndarray) -> None:
        """Write an image for each row of `values` (n, C), each from 0 to 1."""
        for name, row in zip(names, values):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path, draw(row, self.signal, self.rng))

    def split(self, rows: Any) -> tuple[Any, Any]:
        """Return the rows of the training and of the test images."""
        return rows[: self.n], rows[self.n :]


def draw(values: np.ndarray, signal: float, rng: np.random.Generator) -> np.ndarray:
    """Return (SIZE, SIZE, 3) uint8: noise, in which a square ring shows each class by its light or colour, as
    strongly as its value. Rings look alike from every side, as views of an image are, and eight classes also
    in one channel."""
    image = rng.normal(100, 25, (SIZE, SIZE, 3))
    middle = np.abs(np.arange(SIZE) - (SIZE - 1) / 2)
    ring_of = np.maximum.outer(middle, middle) // (SIZE / 2 / N_RINGS)
    for c, value in enumerate(values.tolist()):
        light = LIGHTS[c // N_RINGS % len(LIGHTS)]
        image[ring_of == c % N_RINGS] += np.array(light) * signal * value
    return image.clip(0, 255).astype(np.uint8)


def write_image(path: Path, pixels: np.ndarray) -> None:
    if path.suffix == ".dcm":
        _write_dicom(path, pixels)
    else:
        Image.fromarray(pixels).save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


def _write_dicom(path: Path, pixels: np.ndarray) -> None:
    """Write the red channel as 12 bits of a mammogram or a slice of a CT."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = (
        ExplicitVRLittleEndian,
        SecondaryCaptureImageStorage,
    )
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    scan = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    scan.SOPClassUID, scan.SOPInstanceUID = SecondaryCaptureImageStorage, meta.MediaStorageSOPInstanceUID
    scan.Rows, scan.Columns, scan.SamplesPerPixel = *pixels.shape[:2], 1
    scan.PhotometricInterpretation, scan.PixelRepresentation = "MONOCHROME2", 0
    scan.BitsAllocated, scan.BitsStored, scan.HighBit = 16, 12, 11
    scan.PixelData = (pixels[..., 0].astype(np.uint16) * 16).tobytes()
    scan.save_as(path, enforce_file_format=True)


def names(start: str, n: int, end: str = "", first: int = 0) -> list[str]:
    return [f"{start}{i:05x}{end}" for i in range(first, first + n)]


def words(rows: np.ndarray, classes: Sequence[str], joint: str = " ", none: str = "") -> list[str]:
    return [joint.join(c for c, one in zip(classes, row) if one) or none for row in rows.tolist()]


# --- labels as texts ----------------------------------------------------------------------------------------


def planet(d: Draft) -> Form:
    classes = load_competition("planet").labels.classes
    weather, ground = (classes.index("clear"), classes.index("cloudy")), (classes.index("road"), 16)
    rows = np.zeros((d.n_all, len(classes)), np.uint8)
    rows[:, weather], rows[:, ground] = d.single(2), d.several(2)
    train, test = names("train_", d.n), names("test_", d.n_test)
    fit, held = d.split(rows)
    d.table("train_v2.csv", {"image_name": train, "tags": words(fit, classes)})
    d.table("sample_submission_v2.csv", {"image_name": test, "tags": "primary clear road"})
    d.images([f"train-jpg/{i}.jpg" for i in train], fit)
    half = d.n_test // 2
    d.images([f"test-jpg{'' if k < half else '-additional'}/{i}.jpg" for k, i in enumerate(test)], held)
    return Form(train, classes, fit, test, held)


def plant_pathology_2021(d: Draft) -> Form:
    classes = ("complex", "healthy", "rust", "scab")
    rows = d.several(4)
    rows[:, 1] = rows[:, [0, 2, 3]].sum(1) == 0
    train, test = names("8", d.n, ".jpg"), names("9", d.n_test, ".jpg")
    fit, held = d.split(rows)
    d.table("train.csv", {"image": train, "labels": words(fit, classes)})
    d.table("sample_submission.csv", {"image": test, "labels": "healthy"})
    d.images([f"train_images/{i}" for i in train], fit)
    d.images([f"test_images/{i}" for i in test], held)
    return Form(train, classes, fit, test, held)


def imet_2020(d: Draft) -> Form:
    classes = tuple(map(str, range(12)))
    rows = d.several(12, 0.2)
    rows[rows.sum(1) == 0, 3] = 1
    train, test = names("a", d.n), names("b", d.n_test)
    fit, held = d.split(rows)
    d.table("train.csv", {"id": train, "attribute_ids": words(fit, classes)})
    d.table("labels.csv", {"attribute_id": classes, "attribute_name": [f"medium::{c}" for c in classes]})
    d.table("sample_submission.csv", {"id": test, "attribute_ids": "0 1 2"})
    d.images([f"train/{i}.png" for i in train], fit)
    d.images([f"test/{i}.png" for i in test], held)
    return Form(train, classes, fit, test, held)


def cells(d: Draft) -> Form:
    """A grey file for each of four channels; labels are numbers of classes."""
    competition = load_competition("hpa")
    classes, channels = competition.labels.classes, competition.images.channels
    rows = d.several(len(classes), 0.12)
    rows[rows.sum(1) == 0, 0] = 1
    listed = names("0", d.n_all)
    (train, test), (fit, held) = d.split(listed), d.split(rows)
    d.table("train.csv", {"Id": train, "Target": words(fit, [str(c) for c in range(len(classes))])})
    d.table("sample_submission.csv", {"Id": test, "Predicted": 0})
    folders = [d.folder / "train", d.folder / "test"]
    for folder in folders:
        folder.mkdir()
    for k, (name, row) in enumerate(zip(listed, rows)):
        for c, channel in enumerate(channels):  # seven classes a channel
            pixels = draw(row[c::4], d.signal, d.rng)[..., 0]
            Image.fromarray(pixels).save(folders[k >= d.n] / f"{name}_{channel}.png")
    return Form(train, classes, fit, test, held)


def chest_x_rays(d: Draft) -> Form:
    classes = ("Cardiomegaly", "Effusion", "Hernia", "Mass")
    rows = d.several(4, 0.3)
    listed = [f"{i // 3:08d}_{i % 3:03d}.png" for i in range(d.n_all)]
    patients = [str(i // 3) for i in range(d.n_all)]
    findings = words(rows, classes, "|", "No Finding")
    d.table("Data_Entry_2017.csv", {"Image Index": listed, "Finding Labels": findings, "Follow-up #": 0,
            "Patient ID": patients, "Patient Gender": "F", "View Position": "PA"})  # fmt: skip
    (train, test), (fit, held) = d.split(listed), d.split(rows)
    (d.folder / "train_val_list.txt").write_text("\n".join(train) + "\n")
    (d.folder / "test_list.txt").write_text("\n".join(test))
    d.images([f"images_{i % 12 + 1:03d}/images/{name}" for i, name in enumerate(listed)], rows)
    return Form(train, classes, fit, test, held, patients[: d.n])


# --- one label an image -------------------------------------------------------------------------------------


def one_label(
    table: str,
    id_column: str,
    column: str,
    classes: Sequence[str],
    places: tuple[str, str],
    *,
    ending: str = "",
    sample: dict[str, Any] | None = None,
    more: Callable[[Draft, list[str]], dict[str, Any]] | None = None,
) -> Callable[[Draft], Form]:
    """Return the builder of a table of ids and one label each. `places` are templates, `ending` is part of
    the ids, `sample` are the columns of the sample submission besides the ids, `more` those of the table."""

    def build(d: Draft) -> Form:
        rows = d.single(len(classes))
        (fit, held), labels = d.split(rows), words(rows, classes)
        train, test = names("a", d.n, ending), names("b", d.n_test, ending)
        extra = more(d, train) if more else {}
        d.table(table, {id_column: train, column: labels[: d.n], **extra})
        d.table("sample_submission.csv", {id_column: test, **(sample or {column: labels[0]})})
        fields = [dict(zip(extra, row)) for row in zip(*extra.values())] or [{}] * d.n
        d.images(
            [places[0].format(id=i, label=text, **more) for i, text, more in zip(train, labels, fields)], fit
        )
        d.images([places[1].format(id=i) for i in test], held)
        return Form(train, tuple(classes), fit, test, held)

    return build


def iwildcam_2019(d: Draft) -> Form:
    classes = ("0", "13", "22", "3")
    rows = d.single(4)
    (fit, held), kinds = d.split(rows), words(rows, classes)
    train, test = names("5", d.n), names("6", d.n_test)
    places = [str(i % 9) for i in range(d.n)]
    common = {"date_captured": "2011-05-13 23:43:18", "frame_num": 1, "rights_holder": "Erin", "width": 1024}
    d.table("train.csv", {"category_id": kinds[: d.n], "file_name": [f"{i}.jpg" for i in train], "id": train,
            "location": places, **common})  # fmt: skip
    d.table("test.csv", {"file_name": [f"{i}.jpg" for i in test], "id": test, "location": "99", **common})
    d.table("sample_submission.csv", {"Id": test, "Category": 0})
    d.images([f"train_images/{i}.jpg" for i in train], fit)
    d.images([f"test_images/{i}.jpg" for i in test], held)
    return Form(train, classes, fit, test, held, places)


def plant_seedlings(d: Draft) -> Form:
    classes = ("Black-grass", "Common wheat", "Fat Hen")
    rows = d.single(3)
    (fit, held), kinds = d.split(rows), words(rows, classes)
    train = sorted(f"{kind}/{i}" for kind, i in zip(kinds, names("c", d.n)))
    fit = np.array([[name.startswith(f"{c}/") for c in classes] for name in train], np.uint8)
    test = names("d", d.n_test, ".png")
    d.table("sample_submission.csv", {"file": test, "species": "Fat Hen"})
    d.images([f"train/{name}.png" for name in train], fit)
    d.images([f"test/{i}" for i in test], held)
    return Form(train, classes, fit, test, held)


def dogs_vs_cats(d: Draft) -> Form:
    rows = d.single(2)[:, :1]
    fit, held = d.split(rows)
    train = [f"{'dog' if dog else 'cat'}.{i}" for i, dog in enumerate(fit[:, 0])]
    d.images([f"train/{name}.jpg" for name in train], fit)
    test = [str(i + 1) for i in range(d.n_test)]
    d.images([f"test/{i}.jpg" for i in test], held)
    d.table("sample_submission.csv", {"id": test, "label": 0.5})
    order = np.argsort(train)
    return Form([train[i] for i in order], ("dog",), fit[order], test, held)


def leaf(d: Draft) -> Form:
    classes = ("Acer_Capillipes", "Quercus_Alnus", "Tilia_Oliveri")
    rows = d.single(3)
    (fit, held), kinds = d.split(rows), words(rows, classes)
    listed = [str(i) for i in d.rng.permutation(d.n_all) + 1]  # both sets are counted together
    train, test = d.split(listed)
    numbers = {
        f"{name}{i}": d.rng.random(d.n_all).round(6)
        for name in ("margin", "shape", "texture")
        for i in (1, 2)
    }
    d.table("train.csv", {"id": train, "species": kinds[: d.n], **{k: v[: d.n] for k, v in numbers.items()}})
    order = d.rng.permutation(d.n_test)  # the sample has another order
    d.table("test.csv", {"id": np.array(test)[order], **{k: v[d.n :][order] for k, v in numbers.items()}})
    d.table("sample_submission.csv", {"id": test, **dict.fromkeys(classes, 0.333)})
    d.images([f"images/{i}.jpg" for i in listed], rows)
    return Form(train, classes, fit, test, held, features=6)


def coco(
    files: tuple[str, str], sample: str, image_key: str, folders: tuple[str, str], columns: tuple[str, str]
) -> Callable[[Draft], Form]:
    """Return the builder of a competition with COCO's JSON: names of files include folders."""

    def build(d: Draft) -> Form:
        classes = ("3", "41", "7")
        rows = d.single(3)
        (fit, held), kinds = d.split(rows), words(rows, classes)
        train, test = [str(i) for i in range(100, 100 + d.n)], [str(i) for i in range(500, 500 + d.n_test)]
        paths = [f"{kind}/{i}.jpg" for kind, i in zip(kinds, names("e", d.n))]
        test_paths = names("f", d.n_test, ".jpg")
        inner = folders if files[1].startswith("test2019") else ("", "")  # part of the file's name, or not

        def images(ids: list[str], names: list[str], start: str) -> list[dict[str, Any]]:
            return [
                {image_key: int(i), "file_name": start + name, "license": 0} for i, name in zip(ids, names)
            ]

        own = {"id": 1} if image_key == "id" else {}
        categories = [
            {"id" if image_key == "id" else "category_id": int(c), "name": f"species {c}"} for c in classes
        ]
        d.json(files[0], {
            "info": {}, "images": images(train, paths, inner[0]), "categories": categories,
            "annotations": [{**own, "image_id": int(i), "category_id": int(k)} for i, k in zip(train, kinds)],
        })  # fmt: skip
        listed = images(test, test_paths, inner[1])
        d.json(files[1], listed if image_key == "image_id" else {"images": listed, "annotations": []})
        d.table(sample, {columns[0]: test, columns[1]: 3})
        d.images([folders[0] + path for path in paths], fit)
        d.images([folders[1] + path for path in test_paths], held)
        return Form(train, classes, fit, test, held)

    return build


# --- columns of 0 and 1 -------------------------------------------------------------------------------------


def binary(
    table: str,
    id_column: str,
    column: str,
    places: tuple[str, str],
    ending: str = "",
) -> Callable[[Draft], Form]:
    """Return the builder of a competition with one column of 0 and 1, and one of probabilities."""

    def build(d: Draft) -> Form:
        fit, held = d.split(d.single(2)[:, :1])
        train, test = names("a", d.n, ending), names("b", d.n_test, ending)
        d.table(table, {id_column: train, column: fit[:, 0]})
        d.table("sample_submission.csv", {id_column: test, column: 0.5})
        d.images([places[0].format(id=i) for i in train], fit)
        d.images([places[1].format(id=i) for i in test], held)
        return Form(train, (column,), fit, test, held)

    return build


def plant_pathology_2020(d: Draft) -> Form:
    classes = ("healthy", "multiple_diseases", "rust", "scab")
    fit, held = d.split(d.single(4))
    train, test = [f"Train_{i}" for i in range(d.n)], [f"Test_{i}" for i in range(d.n_test)]
    d.table("train.csv", {"image_id": train, **dict(zip(classes, fit.T))})
    d.table("test.csv", {"image_id": test})
    d.table("sample_submission.csv", {"image_id": test, **dict.fromkeys(classes, 0.25)})
    d.images([f"images/{i}.jpg" for i in (*train, *test)], np.vstack([fit, held]))
    return Form(train, classes, fit, test, held)


CATHETERS = (
    "ETT - Abnormal", "ETT - Borderline", "ETT - Normal", "NGT - Abnormal", "NGT - Borderline",
    "NGT - Incompletely Imaged", "NGT - Normal", "CVC - Abnormal", "CVC - Borderline", "CVC - Normal",
    "Swan Ganz Catheter Present",
)  # fmt: skip


def ranzcr(d: Draft) -> Form:
    fit, held = d.split(d.several(11, 0.2))
    fit[1] = 0  # some have none
    train, test = names("1.2.826.0.1.3680043.8.498.1", d.n), names("1.2.826.0.1.3680043.8.498.2", d.n_test)
    patients = [f"p{i // 2}" for i in range(d.n)]
    d.table("train.csv", {"StudyInstanceUID": train, **dict(zip(CATHETERS, fit.T)), "PatientID": patients})
    d.table(
        "train_annotations.csv", {"StudyInstanceUID": train[:3], "label": CATHETERS[0], "data": "[[1, 2]]"}
    )
    d.table("sample_submission.csv", {"StudyInstanceUID": test, **dict.fromkeys(CATHETERS, 0)})
    d.images([f"train/{i}.jpg" for i in train], fit)
    d.images([f"test/{i}.jpg" for i in test], held)
    return Form(train, CATHETERS, fit, test, held, patients)


def melanoma(d: Draft) -> Form:
    fit, held = d.split(d.single(4)[:, :1])
    train, test = names("ISIC_0", d.n), names("ISIC_1", d.n_test)
    patients = [f"IP_{i // 2}" for i in range(d.n)]
    common = {"sex": "male", "anatom_site_general_challenge": "torso"}
    ages = ["45.0", "", *["50.0"] * (d.n - 2)]  # some are not known
    d.table("train.csv", {"image_name": train, "patient_id": patients, "age_approx": ages, **common,
            "diagnosis": "unknown", "target": fit[:, 0]})  # fmt: skip
    d.table("test.csv", {"image_name": test, "patient_id": "IP_x", "age_approx": 70.0, **common})
    d.table("sample_submission.csv", {"image_name": test, "target": 0})
    d.images([f"jpeg/train/{i}.jpg" for i in train], fit)
    d.images([f"jpeg/test/{i}.jpg" for i in test], held)
    return Form(train, ("target",), fit, test, held, patients, features=1)


def breast_cancer(d: Draft) -> Form:
    """Each patient has two sides, each side two views; one answer is for a side."""
    d.n, d.n_test = d.n // 4 * 4, d.n_test // 4 * 4
    sides = np.repeat(d.rng.permutation(d.n_all // 2) % 3 == 0, 2).astype(np.uint8)[:, None]
    fit, held = d.split(sides)
    patients = [str(10_000 + i // 4) for i in range(d.n_all)]
    images, side = (
        [str(462_822_612 + i * 7919) for i in range(d.n_all)],
        ["L", "L", "R", "R"] * (d.n_all // 4),
    )
    views = ["CC", "MLO"] * (d.n_all // 2)
    answers = [f"{p}_{s}" for p, s in zip(patients, side)]
    rows = {
        "site_id": 2,
        "patient_id": patients,
        "image_id": images,
        "laterality": side,
        "view": views,
        "age": 61,
    }
    train = {k: v[: d.n] if isinstance(v, list) else v for k, v in rows.items()}
    test = {k: v[d.n :] if isinstance(v, list) else v for k, v in rows.items()}
    d.table("train.csv", {**train, "cancer": fit[:, 0], "biopsy": 0, "density": "B"})
    d.table("test.csv", {**test, "prediction_id": answers[d.n :]})
    d.table("sample_submission.csv", {"prediction_id": list(dict.fromkeys(answers[d.n :])), "cancer": 0.02})
    folders = ["train_images" if i < d.n else "test_images" for i in range(d.n_all)]
    d.images([f"{f}/{p}/{i}.dcm" for f, p, i in zip(folders, patients, images)], sides)
    return Form(images[: d.n], ("cancer",), fit, images[d.n :], held, patients[: d.n], answers[d.n :])


HEMORRHAGES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")


def hemorrhage(d: Draft) -> Form:
    rows = d.several(6, 0.2)
    rows[:, 5] = rows[:, :5].any(1)
    fit, held = d.split(rows)
    train, test = names("ID_a", d.n), names("ID_b", d.n_test)
    long = [f"{i}_{name}" for i in train for name in HEMORRHAGES]
    table = pd.DataFrame({"ID": long, "Label": fit.ravel()})
    table = pd.concat([table, table[:6]])  # as Kaggle's, it has some images twice
    table.to_csv(d.folder / "stage_2_train.csv", index=False)
    d.table(
        "stage_2_sample_submission.csv",
        {"ID": [f"{i}_{name}" for i in test for name in HEMORRHAGES], "Label": 0.5},
    )
    d.images([f"stage_2_train/{i}.dcm" for i in train], fit)
    d.images([f"stage_2_test/{i}.dcm" for i in test], held)
    return Form(train, HEMORRHAGES, fit, test, held)


def chexpert(d: Draft) -> Form:
    """The table has 1, 0, -1 for uncertain, and empty cells."""
    classes = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
    others = ("No Finding", "Fracture")
    rows = d.several(5)
    fit, held = d.split(rows)
    start = "CheXpert-v1.0-small"
    train = [f"{start}/train/patient{i // 2:05d}/study1/view{i % 2 + 1}_frontal.jpg" for i in range(d.n)]
    test = [f"{start}/valid/patient{64_541 + i}/study1/view1_frontal.jpg" for i in range(d.n_test)]
    cells = fit.astype(float)
    cells[2, 1] = cells[3, 0] = np.nan
    texts = np.where(np.isnan(cells), "-1.0", np.where(cells == 1, "1.0", "")).T
    texts[0, 4] = "0.0" if not fit[4, 0] else "1.0"
    common = {"Sex": "Female", "Age": 68, "Frontal/Lateral": "Frontal", "AP/PA": "AP"}
    d.table("train.csv", {"Path": train, **common, **dict.fromkeys(others, ""), **dict(zip(classes, texts))})
    d.table("valid.csv", {"Path": test, **common, **dict.fromkeys(others, 0.0), **dict(zip(classes, held.T))})
    d.images([*train, *test], rows)
    return Form(train, classes, cells, test, held, [f"patient{i // 2:05d}" for i in range(d.n)])


def iceberg(d: Draft) -> Form:
    """Bands of a radar, in decibel, as lists of numbers in JSON; some angles are not known."""
    fit, held = d.split(d.single(2)[:, :1])
    train, test = names("dfd5f", d.n), names("8f758", d.n_test)

    def records(ids: list[str], rows: np.ndarray) -> list[dict[str, Any]]:
        found = []
        for i, (name, row) in enumerate(zip(ids, rows)):
            bands = draw(row, d.signal, d.rng)[..., :2].reshape(-1, 2) / 10.0 - 30
            angle: Any = "na" if i % 7 == 2 else 38.5
            both = {f"band_{k + 1}": bands[:, k].round(5).tolist() for k in (0, 1)}
            found.append({"id": name, **both, "inc_angle": angle})
        return found

    d.json("train.json", [{**r, "is_iceberg": int(y)} for r, y in zip(records(train, fit), fit[:, 0])])
    d.json("test.json", records(test, held))
    d.table("sample_submission.csv", {"id": test, "is_iceberg": 0.5})
    return Form(train, ("is_iceberg",), fit, test, held, features=1)


# --- numbers ------------------------------------------------------------------------------------------------


PHOTO = ("Subject Focus", "Eyes", "Face", "Near", "Action", "Accessory", "Group", "Collage", "Human",
         "Occlusion", "Info", "Blur")  # fmt: skip


def pawpularity(d: Draft) -> Form:
    scores = d.rng.integers(1, 101, (d.n_all, 1))
    fit, held = d.split(scores.astype(np.float32))
    train, test = names("a", d.n), names("b", d.n_test)
    facts = dict(zip(PHOTO, d.rng.integers(0, 2, (12, d.n_all))))
    d.table(
        "train.csv", {"Id": train, **{k: v[: d.n] for k, v in facts.items()}, "Pawpularity": scores[: d.n, 0]}
    )
    d.table("test.csv", {"Id": test, **{k: v[d.n :] for k, v in facts.items()}})
    d.table("sample_submission.csv", {"Id": test, "Pawpularity": d.rng.uniform(20, 60, d.n_test).round(2)})
    d.images([f"train/{i}.jpg" for i in train], fit / 100)
    d.images([f"test/{i}.jpg" for i in test], held / 100)
    return Form(train, ("Pawpularity",), fit, test, held, features=12)


TRAIN_TEST = ("train/{id}", "test/{id}")
WHALES = ("new_whale", "w_1287fbc", "w_98baff9", "w_f48451c")
BREEDS = ("affenpinscher", "beagle", "toy_poodle", "vizsla")

FORMS: dict[str, Callable[[Draft], Form]] = {
    "planet": planet,
    "hpa": cells,
    "plant-pathology-2021": plant_pathology_2021,
    "plant-pathology-2020": plant_pathology_2020,
    "ranzcr-clip": ranzcr,
    "aerial-cactus": binary("train.csv", "id", "has_cactus", TRAIN_TEST, ".jpg"),
    "dogs-vs-cats": dogs_vs_cats,
    "leaf": leaf,
    "cassava": one_label("train.csv", "image_id", "label", "01234", ("train_images/{id}", "test_images/{id}"),
                         ending=".jpg"),
    "aptos2019": one_label("train.csv", "id_code", "diagnosis", "01234",
                           ("train_images/{id}.png", "test_images/{id}.png")),
    "petfinder-pawpularity": pawpularity,
    "hotel-id-2021": one_label(
        "train.csv", "image", "hotel_id", ("10045", "24", "313", "51", "7", "999"),
        ("train_images/{chain}/{id}", "test_images/{id}"), ending=".jpg",
        sample={"hotel_id": "36363 53586 18807 64314 60181"},
        more=lambda d, ids: {"chain": [str(i % 4) for i in range(len(ids))], "timestamp": [""] * len(ids)},
    ),
    "iwildcam-2019": iwildcam_2019,
    "plant-seedlings": plant_seedlings,
    "inaturalist-2019": coco(("train2019.json", "test2019.json"), "kaggle_sample_submission.csv", "id",
                             ("train_val2019/", "test2019/"), ("id", "predicted")),
    "rsna-breast-cancer": breast_cancer,
    "nih-chest-x-rays": chest_x_rays,
    "chexpert": chexpert,
    "rsna-intracranial-hemorrhage": hemorrhage,
    "siim-isic-melanoma": melanoma,
    "histopathologic-cancer": binary("train_labels.csv", "id", "label", ("train/{id}.tif", "test/{id}.tif")),
    "dog-breed": one_label("labels.csv", "id", "breed", BREEDS, ("train/{id}.jpg", "test/{id}.jpg"),
                           sample=dict.fromkeys(BREEDS, 0.25)),
    "imet-2020": imet_2020,
    "paddy-disease": one_label("train.csv", "image_id", "label", ("blast", "hispa", "normal"),
                               ("train_images/{label}/{id}", "test_images/{id}"), ending=".jpg",
                               more=lambda d, ids: {"variety": ["ADT45"] * len(ids), "age": [45] * len(ids)}),
    "whale-categorization": one_label("train.csv", "Image", "Id", WHALES, TRAIN_TEST, ending=".jpg",
                                      sample={"Id": "new_whale w_1287fbc w_98baff9 w_7554f44 w_1eafe46"}),
    "herbarium-2022": coco(("train_metadata.json", "test_metadata.json"), "sample_submission.csv", "image_id",
                           ("train_images/", "test_images/"), ("Id", "Predicted")),
    "statoil-iceberg": iceberg,
    "invasive-species": binary("train_labels.csv", "name", "invasive", ("train/{id}.jpg", "test/{id}.jpg")),
}  # fmt: skip


def build(name: str, folder: Path, n: int = 24, n_test: int = 12, signal: float = 1.0, seed: int = 0) -> Form:
    """Write the competition `name` to a folder; `signal` 0 means that images don't show their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    return FORMS[name](Draft(folder, n, n_test, signal, np.random.default_rng(seed)))
