"""Forms of competitions that don't come with comp: a TOML of at most 25 lines, a folder, and
what is scored."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tifffile
from PIL import Image
from sklearn.metrics import average_precision_score, balanced_accuracy_score, mean_absolute_error

from tests.competitions.forms import Draft, Form, draw, names, words
from tests.competitions.graders import (
    ACCURACY,
    AUC,
    CLASSES,
    Grader,
    f,
    kappa,
    log_loss_of_classes,
    rmse,
)


def toml(labels: str, images: str, submission: str, metric: str) -> str:
    return f"[labels]\n{labels}\n[images]\n{images}\n[submission]\n{submission}\n[metric]\n{metric}\n"


def drivers(d: Draft) -> Form:
    """Classes are folders, drivers are groups; a column a class is asked for."""
    classes = ("c0", "c1", "c2")
    rows = d.single(3)
    (fit, held), kinds = d.split(rows), words(rows, classes)
    train, test = names("img_1", d.n, ".jpg"), names("img_2", d.n_test, ".jpg")
    subjects = [f"p{i // 4:03d}" for i in range(d.n)]
    d.table("driver_imgs_list.csv", {"subject": subjects, "classname": kinds[: d.n], "img": train})
    d.table("sample_submission.csv", {"img": test, **dict.fromkeys(classes, 0.1)})
    d.images([f"imgs/train/{k}/{i}" for k, i in zip(kinds, train)], fit)
    d.images([f"imgs/test/{i}" for i in test], held)
    return Form(train, classes, fit, test, held, subjects)


def retinas(d: Draft) -> Form:
    """Grades of eyes; what comes before `_left` and `_right` is a patient."""
    classes = tuple("01234")
    rows = d.single(5)
    listed = [f"{i // 2}_{'left' if i % 2 == 0 else 'right'}" for i in range(d.n_all)]
    (fit, held), (train, test) = d.split(rows), d.split(listed)
    d.table("trainLabels.csv", {"image": train, "level": words(fit, classes)})
    d.table("sampleSubmission.csv", {"image": test, "level": 0})
    d.images([f"train/{i}.jpeg" for i in train], fit)
    d.images([f"test/{i}.jpeg" for i in test], held)
    return Form(train, classes, fit, test, held, [i.split("_")[0] for i in train])


def signals(d: Draft) -> Form:
    """Six spectrograms of half precision in a file, in folders named by the first letter of the id."""
    fit, held = d.split(d.single(2)[:, :1])
    train, test = names("a", d.n), names("b", d.n_test)
    d.table("train_labels.csv", {"id": train, "target": fit[:, 0]})
    d.table("sample_submission.csv", {"id": test, "target": 0.5})
    for split, ids, values in (("train", train, fit), ("test", test, held)):
        for i, row in zip(ids, values):
            path = d.folder / split / i[0] / f"{i}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = draw(row, d.signal, d.rng).transpose(2, 0, 1)
            np.save(path, (np.concatenate([image, image]) / 50.0 - 2).astype(np.float16))
    return Form(train, ("target",), fit, test, held)


def galaxies(d: Draft) -> Form:
    """Several numbers from 0 to 1 an image."""
    columns = ("Class1.1", "Class1.2", "Class1.3", "Class2.1")
    fit, held = d.split(d.rng.random((d.n_all, 4)).astype(np.float32).round(6))
    train, test = names("1", d.n), names("2", d.n_test)
    train, test = [str(int(i, 16)) for i in train], [str(int(i, 16)) for i in test]
    d.table("training_solutions_rev1.csv", {"GalaxyID": train, **dict(zip(columns, fit.T))})
    d.table("all_zeros_benchmark.csv", {"GalaxyID": test, **dict.fromkeys(columns, 0)})
    d.images([f"images_training_rev1/{i}.jpg" for i in train], fit)
    d.images([f"images_test_rev1/{i}.jpg" for i in test], held)
    return Form(train, columns, fit, test, held)


def lesions(d: Draft) -> Form:
    """A column of 0.0 and 1.0 a class, exactly one of them; balanced accuracy of 0/1 answers."""
    classes = ("MEL", "NV", "BCC", "AKIEC")
    fit, held = d.split(d.single(4))
    train, test = names("ISIC_0", d.n), names("ISIC_1", d.n_test)
    d.table("GroundTruth.csv", {"image": train, **dict(zip(classes, fit.T.astype(float)))})
    d.table("sample.csv", {"image": test, **dict.fromkeys(classes, 0.0)})
    d.images([f"ISIC2018_Training/{i}.jpg" for i in train], fit)
    d.images([f"ISIC2018_Test/{i}.jpg" for i in test], held)
    return Form(train, classes, fit, test, held)


def cells(d: Draft) -> Form:
    """A file a channel, in folders of experiments and plates; experiments are groups."""
    classes = ("0", "11", "820")
    rows = d.single(3)
    tables: dict[str, list[Any]] = {"experiment": [], "plate": [], "well": []}
    for i in range(d.n_all):
        for key, value in zip(tables, (f"HEPG2-{i // 5:02d}", i % 4 + 1, f"B{i % 97:02d}")):
            tables[key].append(value)
    listed = [f"{e}_{p}_{w}" for e, p, w in zip(*tables.values())]
    (train, test), (fit, held) = d.split(listed), d.split(rows)
    d.table("train.csv", {"id_code": train, **{k: v[: d.n] for k, v in tables.items()},
                          "sirna": words(fit, classes)})  # fmt: skip
    d.table("test.csv", {"id_code": test, **{k: v[d.n :] for k, v in tables.items()}})
    d.table("sample_submission.csv", {"id_code": test, "sirna": 0})
    for i, (experiment, plate, well) in enumerate(zip(*tables.values())):
        image = draw(rows[i], d.signal, d.rng)
        folder = d.folder / ("train" if i < d.n else "test") / experiment / f"Plate{plate}"
        folder.mkdir(parents=True, exist_ok=True)
        for channel in range(3):
            Image.fromarray(image[..., channel]).save(folder / f"{well}_s1_w{channel + 1}.png")
    return Form(train, classes, fit, test, held, tables["experiment"][: d.n])


def strokes(d: Draft) -> Form:
    """One answer for a patient's slides, as a probability of each class; TIFFs."""
    d.n, d.n_test = d.n // 2 * 2, d.n_test // 2 * 2
    classes = ("CE", "LAA")
    rows = np.eye(2, dtype=np.uint8)[np.repeat(d.rng.permutation(d.n_all // 2) % 2, 2)]
    patients = [f"{i // 2:06x}" for i in range(d.n_all)]
    listed = [f"{p}_{i % 2}" for i, p in enumerate(patients)]
    (train, test), (fit, held) = d.split(listed), d.split(rows)
    d.table("train.csv", {"image_id": train, "center_id": 11, "patient_id": patients[: d.n],
                          "image_num": [i % 2 for i in range(d.n)],
                          "label": words(fit, classes)})  # fmt: skip
    d.table("test.csv", {"image_id": test, "center_id": 4, "patient_id": patients[d.n :]})
    asked = list(dict.fromkeys(patients[d.n :]))
    d.table("sample_submission.csv", {"patient_id": asked, "CE": 0.5, "LAA": 0.5})
    d.images([f"train/{i}.tif" for i in train], fit)
    d.images([f"test/{i}.tif" for i in test], held)
    return Form(train, classes, fit, test, held, patients[: d.n], patients[d.n :])


def clothes(d: Draft) -> Form:
    """JSON records with a list of labels each."""
    classes = ("1", "17", "228", "95")
    rows = d.several(4)
    rows[rows.sum(1) == 0, 2] = 1
    fit, held = d.split(rows)
    train, test = [str(i + 1) for i in range(d.n)], [str(i + 1) for i in range(d.n_test)]
    d.json("train.json", [
        {"imageId": i, "labelId": [c for c, one in zip(classes, row) if one]} for i, row in zip(train, fit)
    ])  # fmt: skip
    d.table("sample_submission.csv", {"image_id": test, "label_id": "95 66 137"})
    d.images([f"train/{i}.jpg" for i in train], fit)
    d.images([f"test/{i}.jpg" for i in test], held)
    return Form(train, classes, fit, test, held)


def ages(d: Draft) -> Form:
    """A number is the start of the file's name."""
    values = d.rng.integers(1, 91, (d.n_all, 1))
    fit, held = d.split(values.astype(np.float32))
    test = names("t", d.n_test)
    kept = sorted(f"{int(v)}_{i:04d}" for i, v in enumerate(fit[:, 0]))
    fit = np.array([[float(name.split("_")[0])] for name in kept], np.float32)
    d.images([f"train/{name}.jpg" for name in kept], fit / 90)
    d.images([f"test/{i}.jpg" for i in test], held / 90)
    d.table("sample_submission.csv", {"id": test, "age": 33})
    return Form(kept, ("label",), fit, test, held)


def land_use(d: Draft) -> Form:
    """Thirteen bands of 16 bits; the label is the folder, and once more in the file's name."""
    classes = ("AnnualCrop", "Forest", "SeaLake")
    rows = d.single(3)
    (fit, held), kinds = d.split(rows), words(rows, classes)
    train, test = [f"{k}/{k}_{i + 1}" for i, k in enumerate(kinds[: d.n])], names("t", d.n_test)
    for name, row in zip([*(f"train/{i}" for i in train), *(f"test/{i}" for i in test)], rows):
        path = d.folder / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = draw(row, d.signal, d.rng).transpose(2, 0, 1).astype(np.uint16) * 20
        tifffile.imwrite(path, np.tile(image, (5, 1, 1))[:13], photometric="minisblack")
    d.table("sample_submission.csv", {"id": test, "label": "Forest"})
    order = np.argsort(train)
    return Form([train[i] for i in order], classes, fit[order], test, held)


def sewers(d: Draft) -> Form:
    """A tab-separated table with True and False, a column that is no label, and empty cells for unknown."""
    classes = ("RB", "OB", "PF")
    fit, held = d.split(d.several(3))
    train, test = names("00", d.n, ".png"), names("01", d.n_test, ".png")
    texts = np.where(fit == 1, "True", "False").astype(object)
    targets = fit.astype(np.float32)
    texts[3, 0], targets[3, 0] = "", np.nan
    lines = ["Filename\tWaterLevel\tRB\tOB\tPF", *("\t".join([i, "5", *row]) for i, row in zip(train, texts))]
    (d.folder / "train.tsv").write_text("\n".join(lines) + "\n")
    d.table("sample_submission.csv", {"Filename": test, "PF": 0.5, "OB": 0.5, "RB": 0.5})
    d.images([f"Train/{i}" for i in train], fit)
    d.images([f"Valid/{i}" for i in test], held)
    return Form(train, classes, targets, test, held)


def keypoints(d: Draft) -> Form:
    """A column a number in the table; a row for each image and number in submissions."""
    columns = ("nose_x", "nose_y")
    fit, held = d.split((d.rng.random((d.n_all, 2)) * 90).astype(np.float32).round(3))
    train, test = names("0", d.n), names("1", d.n_test)
    d.table("training.csv", {"ImageId": train, **dict(zip(columns, fit.T))})
    d.table("sample.csv", {"RowId": [f"{i}_{c}" for i in test for c in columns], "Location": 0})
    d.images([f"faces/{i}.png" for i in train], fit / 90)
    d.images([f"faces/{i}.png" for i in test], held / 90)
    return Form(train, columns, fit, test, held)


def balanced(truth: np.ndarray, answers: np.ndarray) -> float:
    return float(balanced_accuracy_score(truth.argmax(1), answers.argmax(1)))


SAMPLE = 'sample = "sample_submission.csv"'
OTHER: dict[str, tuple[str, Callable[[Draft], Form], Grader]] = {
    "state-farm": (
        toml('csv = "driver_imgs_list.csv"\nid = "img"\ncolumn = "classname"\nsingle = true\n'
             'group = "subject"',
             'train = "imgs/train/{classname}/{id}"\ntest = "imgs/test/{id}"', SAMPLE + '\ncolumn = ""',
             'name = "log_loss"'),
        drivers, CLASSES,
    ),
    "diabetic-retinopathy": (
        toml('csv = "trainLabels.csv"\nid = "image"\ncolumn = "level"\nsingle = true\n'
             'group_pattern = "(.+)_"',
             'train = "train/{id}.jpeg"\ntest = "test/{id}.jpeg"', 'sample = "sampleSubmission.csv"',
             'name = "quadratic_kappa"'),
        retinas, Grader("quadratic kappa", kappa, "text", "labels"),
    ),
    "seti": (
        toml('csv = "train_labels.csv"\nid = "id"\nclasses = ["target"]',
             'train = "train/{id[0]}/{id}.npy"\ntest = "test/{id[0]}/{id}.npy"\nbands = [6]', SAMPLE,
             'name = "roc_auc"'),
        signals, AUC,
    ),
    "galaxy-zoo": (
        toml('csv = "training_solutions_rev1.csv"\nid = "GalaxyID"',
             'train = "images_training_rev1/{id}.jpg"\ntest = "images_test_rev1/{id}.jpg"',
             'sample = "all_zeros_benchmark.csv"', 'name = "rmse"'),
        galaxies, Grader("RMSE", rmse, answer="numbers", greater=False),
    ),
    "isic-2018": (
        toml('csv = "GroundTruth.csv"\nid = "image"\nsingle = true',
             'train = "ISIC2018_Training/{id}.jpg"\ntest = "ISIC2018_Test/{id}.jpg"', 'sample = "sample.csv"',
             'name = "balanced_accuracy"'),
        lesions, Grader("balanced accuracy", balanced),
    ),
    "recursion": (
        toml('csv = "train.csv"\nid = "id_code"\ncolumn = "sirna"\nsingle = true\ngroup = "experiment"',
             'train = "train/{experiment}/Plate{plate}/{well}_s1_w{channel}.png"\n'
             'test = "test/{experiment}/Plate{plate}/{well}_s1_w{channel}.png"\n'
             'table = "test.csv"\nchannels = ["1", "2", "3"]', SAMPLE, 'name = "accuracy"'),
        cells, ACCURACY,
    ),
    "mayo-strip": (
        toml('csv = "train.csv"\nid = "image_id"\ncolumn = "label"\nsingle = true\n'
             'group = "patient_id"\nanswer_id = "{patient_id}"',
             'train = "train/{id}.tif"\ntest = "test/{id}.tif"\ntable = "test.csv"',
             SAMPLE + '\nid = "patient_id"\ncolumn = ""', 'name = "log_loss"'),
        strokes, Grader("log loss", log_loss_of_classes, greater=False),
    ),
    "imaterialist": (
        toml('csv = "train.json"\nid = "imageId"\ncolumn = "labelId"',
             'train = "train/{id}.jpg"\ntest = "test/{id}.jpg"',
             SAMPLE + '\nid = "image_id"\ncolumn = "label_id"', 'beta = 1\naverage = "micro"'),
        clothes, Grader("micro F1", f(1, "micro"), "text", "labels"),
    ),
    "ages": (
        toml('id = "id"', 'train = "train/{label}_{id}.jpg"\ntest = "test/{id}.jpg"',
             SAMPLE + '\ncolumn = "age"',
             'name = "mae"'),
        ages, Grader("MAE", lambda t, a: float(mean_absolute_error(t, a)), answer="numbers", greater=False),
    ),
    "eurosat": (
        toml('id = "id"\ncolumn = "label"\nsingle = true',
             'train = "train/{label}/{id}.tif"\ntest = "test/{id}.tif"\nbands = [13]', SAMPLE,
             'name = "accuracy"'),
        land_use, ACCURACY,
    ),
    "keypoints": (
        toml('csv = "training.csv"\nid = "ImageId"\nclasses = ["nose_x", "nose_y"]',
             'train = "faces/{id}.png"\ntest = "faces/{id}.png"',
             'sample = "sample.csv"\nid = "RowId"\nrow = "{id}_{class}"', 'name = "rmse"'),
        keypoints, Grader("RMSE", rmse, "long", "numbers", greater=False),
    ),
    "sewer": (
        toml('csv = "train.tsv"\nid = "Filename"\nclasses = ["RB", "OB", "PF"]\nunknown = [""]\n'
             'empty = true\nvalues = { True = 1, False = 0 }',
             'train = "Train/{id}"\ntest = "Valid/{id}"', SAMPLE,
             'name = "average_precision"'),
        sewers, Grader("mAP", lambda t, a: float(average_precision_score(t, a))),
    ),
}  # fmt: skip
