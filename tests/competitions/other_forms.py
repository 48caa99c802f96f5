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
    MACRO_F1,
    Grader,
    f,
    kappa,
    log_loss_of_classes,
    log_loss_of_columns,
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


def scans(d: Draft) -> Form:
    """Several slices a patient, which no table lists; one answer a patient."""
    d.n, d.n_test = d.n // 3 * 3, d.n_test // 3 * 3
    rows = np.repeat(d.rng.permutation(d.n_all // 3) % 2, 3)[:, None].astype(np.uint8)
    patients = [f"{i // 3:05d}" for i in range(d.n_all)]
    slices = [f"{p}/Image-{8 + i % 3}" for i, p in enumerate(patients)]
    (fit, held), (train, test), (known, asked) = map(d.split, (rows, slices, patients))
    d.table("train_labels.csv", {"BraTS21ID": known[::3], "MGMT_value": fit[::3, 0]})
    d.table("sample_submission.csv", {"BraTS21ID": asked[::3], "MGMT_value": 0.5})
    for split, names_, values in (("train", train, fit), ("test", test, held)):
        d.images([f"{split}/{name.replace('/', '/FLAIR/')}.dcm" for name in names_], values)
    return Form(train, ("MGMT_value",), fit, test, held, known, asked)


def pets(d: Draft) -> Form:
    """Photos of a pet, named by its id and a number; a grade a pet."""
    d.n, d.n_test = d.n // 2 * 2, d.n_test // 2 * 2
    classes = tuple("01234")
    rows = np.eye(5, dtype=np.uint8)[np.repeat(d.rng.permutation(d.n_all // 2) % 5, 2)]
    pets = [f"{i // 2:09x}" for i in range(d.n_all)]
    photos = [f"{p}-{i % 2 + 1}" for i, p in enumerate(pets)]
    (fit, held), (train, test), (known, asked) = map(d.split, (rows, photos, pets))
    d.table("train.csv", {"Type": 2, "PetID": known[::2], "AdoptionSpeed": words(fit[::2], classes)})
    d.table("sample_submission.csv", {"PetID": asked[::2], "AdoptionSpeed": 4})
    d.images([f"train_images/{i}.jpg" for i in train], fit)
    d.images([f"test_images/{i}.jpg" for i in test], held)
    return Form(train, classes, fit, test, held, known, asked)


def spines(d: Draft) -> Form:
    """Several slices a patient and several labels; a row for each patient and label in submissions."""
    d.n, d.n_test = d.n // 2 * 2, d.n_test // 2 * 2
    classes = ("C1", "C2", "patient_overall")
    rows = np.repeat((d.rng.random((d.n_all // 2, 2)) < 0.4).astype(np.uint8), 2, axis=0)
    rows[:2], rows[2:4] = 1, 0
    rows = np.c_[rows, rows.any(1)].astype(np.uint8)
    patients = [f"1.2.826.0.{i // 2}" for i in range(d.n_all)]
    slices = [f"{p}/{10 + i % 2}" for i, p in enumerate(patients)]
    (fit, held), (train, test), (known, asked) = map(d.split, (rows, slices, patients))
    d.table("train.csv", {"StudyInstanceUID": known[::2], **dict(zip(classes, fit[::2].T))})
    d.table("sample_submission.csv", {"row_id": [f"{i}_{c}" for i in asked[::2] for c in classes],
                                      "fractured": 0.5})  # fmt: skip
    d.images([f"train_images/{i}.dcm" for i in train], fit)
    d.images([f"test_images/{i}.dcm" for i in test], held)
    return Form(train, classes, fit, test, held, known, asked)


def camera_traps(d: Draft) -> Form:
    """COCO JSON with places, which are groups; the test images in another JSON; one number of a class."""
    classes = ("0", "2", "372")
    rows = d.single(3)
    (fit, held), (train, test) = d.split(rows), (names("8f", d.n), names("9c", d.n_test))
    places = [i // 5 for i in range(d.n)]
    listed = [{"id": i, "file_name": f"{i}.jpg", "location": p} for i, p in zip(train, places)]
    notes = [{"id": f"n{k}", "image_id": i, "category_id": int(c)}
             for k, (i, c) in enumerate(zip(train, words(fit, classes)))]  # fmt: skip
    kinds = [{"id": int(c), "name": f"kind {c}"} for c in classes]
    d.json("iwildcam2020_train_annotations.json",
           {"images": listed, "annotations": notes, "categories": kinds})  # fmt: skip
    d.json("iwildcam2020_test_information.json",
           {"images": [{"id": i, "file_name": f"{i}.jpg", "location": 7} for i in test],
            "categories": kinds})  # fmt: skip
    d.table("sample_submission.csv", {"Id": test, "Category": 0})
    d.images([f"train/{i}.jpg" for i in train], fit)
    d.images([f"test/{i}.jpg" for i in test], held)
    return Form(train, classes, fit, test, held, list(map(str, places)))


def sheets(d: Draft) -> Form:
    """COCO JSON beside the images of each set, which lie in folders of numbers."""
    classes = ("0", "15", "8")
    rows = d.single(3)
    fit, held = d.split(rows)
    train, test = [str(i) for i in range(d.n)], [str(i) for i in range(d.n_test)]
    for split, ids in (("train", train), ("test", test)):
        (d.folder / "nybg2020" / split).mkdir(parents=True)
        files = [f"images/{int(i) // 10:03d}/{i}.jpg" for i in ids]
        content: dict[str, Any] = {"images": [{"id": int(i), "file_name": f} for i, f in zip(ids, files)]}
        if split == "train":
            content["annotations"] = [
                {"id": int(i), "image_id": int(i), "category_id": int(c), "region_id": 1}
                for i, c in zip(train, words(fit, classes))
            ]
        d.json(f"nybg2020/{split}/metadata.json", content)
        d.images([f"nybg2020/{split}/{f}" for f in files], fit if split == "train" else held)
    d.table("sample_submission.csv", {"Id": test, "Predicted": 0})
    return Form(train, classes, fit, test, held)


def hidden_messages(d: Draft) -> Form:
    """The folder says how a message was hidden, if one was; each picture is in every folder; one probability
    that there is a message."""
    kinds = ("Cover", "JMiPOD", "UERD")
    n = d.n // 3
    numbers = [f"{i:05d}" for i in range(n)]
    kept = sorted(f"{kind}/{i}" for kind in kinds for i in numbers)
    d.n = len(kept)
    fit = np.array([[not name.startswith("Cover")] for name in kept], np.uint8)
    held = (d.rng.random((d.n_test, 1)) < 0.5).astype(np.uint8)
    test = names("0", d.n_test, ".jpg")
    d.images([f"{name}.jpg" for name in kept], fit)
    d.images([f"Test/{i}" for i in test], held)
    d.table("sample_submission.csv", {"Id": test, "Label": 0})
    return Form(kept, ("label",), fit, test, held, [name.split("/")[1] for name in kept])


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
    "rsna-miccai": (
        toml('csv = "train_labels.csv"\nid = "BraTS21ID"\nclasses = ["MGMT_value"]',
             'train = "train/{id}/FLAIR/{any}.dcm"\ntest = "test/{id}/FLAIR/{any}.dcm"', SAMPLE,
             'name = "roc_auc"'),
        scans, AUC,
    ),
    "petfinder-adoption": (
        toml('csv = "train.csv"\nid = "PetID"\ncolumn = "AdoptionSpeed"\nsingle = true',
             'train = "train_images/{id}-{any}.jpg"\ntest = "test_images/{id}-{any}.jpg"', SAMPLE,
             'name = "quadratic_kappa"'),
        pets, Grader("quadratic kappa", kappa, "text", "labels"),
    ),
    "rsna-cervical-spine": (
        toml('csv = "train.csv"\nid = "StudyInstanceUID"\nempty = true\n'
             'classes = ["C1", "C2", "patient_overall"]',
             'train = "train_images/{id}/{any}.dcm"\ntest = "test_images/{id}/{any}.dcm"',
             SAMPLE + '\nid = "row_id"\nrow = "{id}_{class}"',
             'name = "log_loss"\nweights = { patient_overall = 7 }'),
        spines, Grader("weighted log loss", log_loss_of_columns([1, 1, 7]), "long", greater=False),
    ),
    "iwildcam-2020": (
        toml('csv = "iwildcam2020_train_annotations.json"\nid = "id"\ncolumn = "category_id"\nsingle = true\n'
             'group = "location"',
             'train = "train/{file_name}"\ntest = "test/{file_name}"\n'
             'table = "iwildcam2020_test_information.json"',
             SAMPLE + '\nid = "Id"\ncolumn = "Category"', 'name = "accuracy"'),
        camera_traps, ACCURACY,
    ),
    "herbarium-2020": (
        toml('csv = "nybg2020/train/metadata.json"\nid = "id"\ncolumn = "category_id"\nsingle = true',
             'train = "nybg2020/train/{file_name}"\ntest = "nybg2020/test/{file_name}"\n'
             'table = "nybg2020/test/metadata.json"',
             SAMPLE + '\nid = "Id"\ncolumn = "Predicted"', 'name = "fbeta"\nbeta = 1\naverage = "macro"'),
        sheets, MACRO_F1,
    ),
    "alaska2": (
        toml('id = "Id"\nclasses = ["label"]\nvalues = { Cover = 0, JMiPOD = 1, UERD = 1 }\n'
             'group_pattern = "/(.+)"',
             'train = "{label}/{id}.jpg"\ntest = "Test/{id}"', SAMPLE + '\ncolumn = "Label"',
             'name = "roc_auc"'),
        hidden_messages, AUC,
    ),
}  # fmt: skip
