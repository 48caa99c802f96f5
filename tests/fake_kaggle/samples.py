"""Sample competitions: Planet as it is and as it was, and the protein atlas."""

import io
import tarfile
import tempfile
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from tests.fake_kaggle.fake import FakeKaggle
from tests.fake_kaggle.scoring import read_table

PLANET = "planet-understanding-the-amazon-from-space"
MIRROR = "nikitarom/planets-dataset"
HPA = "human-protein-atlas-image-classification"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def planet(kaggle: FakeKaggle, data: Path | None = SHARED, n_images: int | None = None) -> None:
    """Add Planet as it is today: the competition with CSVs and torrents, and the mirror with the images.

    The images are those of `data` with 32 px: all, or `n_images` training images, half as many test_* and a
    quarter as many file_*, with matching CSVs. Without `data` they are synthetic."""
    train, sample, solution, images = _planet_parts(kaggle, data, n_images)
    torrents = {f"Kaggle-planet-{s}-tif.torrent": b"d8:announce0:e" for s in ("train", "test")}
    kaggle.add_competition(
        PLANET,
        {
            "train_v2.csv/train_v2.csv": train,
            "sample_submission_v2.csv/sample_submission_v2.csv": sample,
            **torrents,
        },
        sample="sample_submission_v2.csv/sample_submission_v2.csv",
        solution=solution,
    )
    where = {
        "train-jpg": "planet/planet/train-jpg",
        "test-jpg": "planet/planet/test-jpg",
        "test-jpg-additional": "test-jpg-additional/test-jpg-additional",
    }
    files = {f"{where[part]}/{p.name}": p for part, paths in images.items() for p in paths}
    tables = {"planet/planet/train_classes.csv": train, "planet/planet/sample_submission.csv": sample}
    kaggle.add_dataset(MIRROR, {**files, **tables}, "Planets Dataset")


def old_planet(kaggle: FakeKaggle, data: Path | None = SHARED, n_images: int | None = None) -> None:
    """Add Planet as it was until December 2019: archives of images and zips of CSVs, with the images of
    `planet`."""
    real = data / "planet32" if data else None
    if n_images is None and real and real.is_dir():
        files: dict[str, bytes | Path] = {p.name: p for p in sorted(real.iterdir())}
        solution = None
    else:
        train, sample, solution, images = _planet_parts(kaggle, data, n_images)
        files = {"train_v2.csv.zip": _zipped("train_v2.csv", train)}
        files["sample_submission_v2.csv.zip"] = _zipped("sample_submission_v2.csv", sample)
        for part, paths in images.items():
            files[f"{part}.tar.7z"] = _tar_7z(kaggle.folder / "planet" / f"{part}.tar.7z", paths)
    kaggle.add_competition(PLANET, files, sample="sample_submission_v2.csv.zip", solution=solution)


def hpa(kaggle: FakeKaggle, data: Path | None = SHARED, n_train: int = 40, n_test: int = 20) -> None:
    """Add the protein atlas with real ids and labels. Its images alternate between the two real ones of
    `data`, so they do not match their labels. Without `data` everything is synthetic."""
    real = data / "hpa" if data and (data / "hpa").is_dir() else None
    if real:
        train = read_table(real / "train.csv.zip")
        train = train.iloc[_rows(train["Target"], n_train)]
        sample = read_table(real / "sample_submission.csv.zip").head(n_test)
    else:
        ids = [f"{i:08x}-bad0-11e8-b2b8-ac1f6b6435d0" for i in range(n_train + n_test)]
        targets = [f"{i % 28} {(i * 5 + 1) % 28}" for i in range(n_train)]
        train = pd.DataFrame({"Id": ids[:n_train], "Target": targets})
        sample = pd.DataFrame({"Id": ids[n_train:], "Predicted": "0"})
    archives: dict[str, Path] = {}
    for split, table in (("train", train), ("test", sample)):
        archives[split] = kaggle.folder / "hpa" / f"{split}.zip"
        archives[split].parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(archives[split], "w") as archive:
            for i, name in enumerate(table["Id"]):
                for colour in ("red", "green", "blue", "yellow"):
                    archive.writestr(f"{name}_{colour}.png", _stain(real, i % 2, colour))
    kaggle.add_competition(
        HPA,
        {
            "train.zip": archives["train"],
            "test.zip": archives["test"],
            "train.csv": _csv(train),
            "sample_submission.csv": _csv(sample),
        },
        sample="sample_submission.csv",
        beta=1,
        average="macro",
    )


def _planet_parts(
    kaggle: FakeKaggle, data: Path | None, n_images: int | None
) -> tuple[bytes, bytes, str | None, dict[str, list[Path]]]:
    """Return train_v2.csv, the sample submission, the solution if there is one, and the images by folder."""
    folder = kaggle.folder / "planet"
    folder.mkdir(exist_ok=True)
    real = data / "planet32" if data else None
    if real is None or not (real / "train-jpg.tar.7z").exists():
        return _drawn_planet(folder, n_images or 120)
    train, sample = (read_table(real / f"{name}.csv.zip") for name in ("train_v2", "sample_submission_v2"))
    if n_images is not None:
        train = train.iloc[_rows(train["tags"], n_images)]
        first = sample["image_name"].str.startswith("test_")
        sample = pd.concat([sample[first].head(n_images // 2), sample[~first].head(n_images // 4)])
    names = {
        "train-jpg": train["image_name"],
        "test-jpg": [n for n in sample["image_name"] if n.startswith("test_")],
        "test-jpg-additional": [n for n in sample["image_name"] if n.startswith("file_")],
    }
    images: dict[str, list[Path]] = {}
    for part, ids in names.items():
        tar, places = _chips(real / f"{part}.tar.7z")
        (folder / part).mkdir(exist_ok=True)
        images[part] = [folder / part / f"{name}.jpg" for name in ids]
        with tar.open("rb") as file:
            for path in images[part]:
                offset, size = places[path.name]
                file.seek(offset)
                path.write_bytes(file.read(size))
    return _csv(train), _csv(sample), None, images


def _drawn_planet(folder: Path, n_images: int) -> tuple[bytes, bytes, str | None, dict[str, list[Path]]]:
    """The demo's drawn images under Planet's names; its mines are artisinal_mine here."""
    from comp.config.competition import Drawn
    from comp.config.loading import load_competition
    from comp.data.synthetic.generate import generate_files

    n_first, n_second = n_images // 2, n_images // 4
    drawn = Drawn(n_train=max(50, n_images), n_test=max(50, n_first + n_second), size=32)
    generate_files(load_competition("demo").model_copy(update={"drawn": drawn}), folder)
    place = folder / "drawn"
    train, sample, solution = (
        read_table(place / f"{name}.csv") for name in ("train", "sample_submission", "solution")
    )
    names = [f"test_{i}" for i in range(n_first)] + [f"file_{i}" for i in range(n_second)]
    images = {"train-jpg": [place / "train-jpg" / f"train_{i}.jpg" for i in range(n_images)]}
    images["test-jpg"] = [place / "test-jpg" / f"test_{i}.jpg" for i in range(n_first)]
    images["test-jpg-additional"] = [place / "test-jpg" / f"file_{i}.jpg" for i in range(n_second)]
    for i, path in enumerate(images["test-jpg-additional"]):
        path.with_name(f"test_{n_first + i}.jpg").replace(path)
    sample, solution = (t.head(len(names)).assign(image_name=names) for t in (sample, solution))
    train, solution = (
        t.assign(tags=t["tags"].str.replace(r"\bmine\b", "artisinal_mine", regex=True))
        for t in (train.head(n_images), solution)
    )
    return _csv(train), _csv(sample), _csv(solution).decode(), images


def _rows(tags: pd.Series, count: int) -> list[int]:
    """Return `count` sorted row numbers: some of the first rows of each label, rarest label first, then the
    first rows of all."""
    sets = [set(text.split()) for text in tags]
    totals = Counter(label for labels in sets for label in labels)
    each = max(1, min(4, count // len(totals)))
    chosen: set[int] = set()
    for label in sorted(totals, key=lambda name: (totals[name], name)):
        have = sum(label in sets[i] for i in chosen)
        more = [i for i, labels in enumerate(sets) if label in labels and i not in chosen]
        chosen.update(more[: max(0, min(each - have, count - len(chosen)))])
    rest = (i for i in range(len(sets)) if i not in chosen)
    return sorted([*chosen, *(i for i, _ in zip(rest, range(count - len(chosen))))])


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fake-kaggle-")


@cache
def _chips(archive: Path) -> tuple[Path, dict[str, tuple[int, int]]]:
    """Unpack a tar.7z once per process; return the tar and the (offset, size) of each file in it."""
    import py7zr

    with py7zr.SevenZipFile(archive) as packed:
        packed.extractall(_scratch().name)
    tar = Path(_scratch().name) / archive.stem
    with tarfile.open(tar) as members:
        return tar, {Path(m.name).name: (m.offset_data, m.size) for m in members if m.isfile()}


@cache
def _stain(real: Path | None, which: int, colour: str) -> bytes:
    """Return one channel of one of the two images as PNG, 512 px."""
    if real:
        return (real / "rgby" / f"{('800_A6_1', '89_B5_1')[which]}_{colour}.png").read_bytes()
    from PIL import Image

    turns = 3 + 2 * which + ("red", "green", "blue", "yellow").index(colour)
    wave = np.sin(np.linspace(0, turns * np.pi, 512)) * 0.5 + 0.5
    file = io.BytesIO()
    Image.fromarray((np.outer(wave, wave) * 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def _csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, lineterminator="\n").encode()


def _zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def _tar_7z(target: Path, paths: list[Path]) -> Path:
    """Write e.g. train-jpg.tar.7z: the files in a folder train-jpg, in a tar, in a 7z."""
    import py7zr

    part = target.name.removesuffix(".tar.7z")
    tar = target.with_name(f"{part}.tar")
    with tarfile.open(tar, "w") as members:
        for path in paths:
            members.add(path, f"{part}/{path.name}")
    with py7zr.SevenZipFile(target, "w") as archive:
        archive.write(tar, tar.name)
    tar.unlink()
    return target
