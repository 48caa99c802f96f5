from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from scipy.sparse import csr_array

from comp.cli.main import main
from comp.config.competition import LabelTable
from comp.config.loading import load_competition
from comp.data import stratification
from comp.data.folds import assign_folds, read_folds, remarks
from comp.data.labels import Labels, read_labels
from comp.data.stratification import stratify_quickly
from comp.errors import CompError


def drawn(n: int = 400, groups: bool = False) -> Labels:
    rng = np.random.default_rng(1)
    targets = (rng.random((n, 4)) < [0.5, 0.3, 0.1, 0.03]).astype(np.uint8)
    ids = np.array([f"image_{i}" for i in range(n)])
    return Labels(
        ids, ("a", "b", "c", "d"), targets, np.array([f"g{i // 3}" for i in range(n)]) if groups else None
    )


def test_every_image_is_in_one_fold_and_every_class_is_spread_evenly():
    labels = drawn()
    folds = assign_folds(labels, 5, 0)
    assert len(folds) == 400
    assert all(75 <= size <= 85 for size in np.bincount(folds))
    for c in range(4):
        counts = np.bincount(folds, labels.targets[:, c], 5)
        assert counts.max() - counts.min() <= 2


def test_a_group_is_in_one_fold():
    labels = drawn(groups=True)
    folds = assign_folds(labels, 5, 0)
    assert labels.fold_groups is not None
    for group in np.unique(labels.fold_groups):
        assert len(np.unique(folds[labels.fold_groups == group])) == 1
    assert np.bincount(folds).min() > 60


def test_folds_depend_on_the_seed_and_not_on_the_order_of_rows():
    labels, order = drawn(), np.random.default_rng(0).permutation(400)
    shuffled = Labels(labels.ids[order], labels.classes, labels.targets[order])
    assert assign_folds(labels, 5, 3)[order].tolist() == assign_folds(shuffled, 5, 3).tolist()
    assert assign_folds(labels, 5, 3).tolist() != assign_folds(labels, 5, 4).tolist()


def test_images_without_any_label_are_spread_too():
    labels = Labels(
        np.array([f"{i:03}" for i in range(100)]), ("a",), (np.arange(100) < 50).astype(np.uint8)[:, None]
    )
    folds = assign_folds(labels, 5, 0)
    assert np.bincount(folds[50:]).tolist() == [10] * 5


def of_library(targets: np.ndarray, n_folds: int, seed: int) -> list[int]:
    splitter = MultilabelStratifiedKFold(n_splits=n_folds, shuffle=True, random_state=seed)
    fold_of = np.full(len(targets), -1)
    for fold, (_, held_out) in enumerate(splitter.split(targets, targets)):
        fold_of[held_out] = fold
    return fold_of.tolist()


def with_bare(targets: np.ndarray) -> np.ndarray:
    targets = np.column_stack([targets, ~targets.any(1)])
    return targets[:, targets.any(0)]


def test_counts_that_are_kept_give_the_folds_of_the_library():
    rng, n_compared = np.random.default_rng(0), 0
    for _ in range(60):
        n, n_labels, n_folds, seed = rng.integers([6, 1, 2, 0], [150, 12, 7, 1000]).tolist()
        targets = with_bare(rng.random((n, n_labels)) < rng.random(n_labels) / 2)
        if targets.shape[1] > 1:  # what the library takes
            kept = stratify_quickly(csr_array(targets.astype(np.uint8)), n_folds, seed)
            assert kept.tolist() == of_library(targets, n_folds, seed)
            n_compared += 1
    assert n_compared > 50


def test_many_labels_have_the_folds_of_the_library_too(monkeypatch: pytest.MonkeyPatch):
    labels = drawn()
    before = assign_folds(labels, 5, 7)
    assert before[np.argsort(labels.ids)].tolist() == of_library(
        with_bare(labels.targets[np.argsort(labels.ids)]), 5, 7
    )
    monkeypatch.setattr(stratification, "LIBRARY_LIMIT", 0)
    assert assign_folds(labels, 5, 7).tolist() == before.tolist()


@pytest.mark.parametrize("name", ["planet", "hpa"])
def test_real_tables_have_the_folds_of_the_library(shared: Path, name: str):
    path = {"planet": "planet32/train_v2.csv.zip", "hpa": "hpa/train.csv.zip"}[name]
    labels = read_labels(shared / path, load_competition(name).labels)
    order = np.argsort(labels.ids)
    targets = with_bare(labels.targets[order])
    truth = of_library(targets, 5, 42)
    assert assign_folds(labels, 5, 42)[order].tolist() == truth
    assert stratify_quickly(csr_array(targets.astype(np.uint8)), 5, 42).tolist() == truth


def test_one_column_is_spread_as_well():
    ids, groups = np.array([f"{i:02}" for i in range(40)]), np.array([f"p{i // 4}" for i in range(40)])
    sick = (np.arange(40) % 2 == 0)[:, None].astype(np.uint8)
    for targets, names in ((sick, groups), (np.ones_like(sick), None), (np.zeros_like(sick), None)):
        labels = Labels(ids, ("sick",), targets, names)
        assert np.bincount(assign_folds(labels, 2, 0)).tolist() == [20, 20]
    one_of_three = Labels(ids, ("a", "b", "c"), np.eye(3, dtype=np.uint8)[np.ones(40, int)])
    assert np.bincount(assign_folds(one_of_three, 5, 0)).tolist() == [8] * 5


def heavy_tailed(seed: int, n: int = 300) -> Labels:
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(n), np.exp(rng.normal(1, 1.2, n)).astype(int) + 1)
    targets = rng.random((len(group), 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.02]
    ids, groups = np.array([f"{i:05}" for i in range(len(group))]), np.array([f"p{i}" for i in group])
    return Labels(ids, tuple("abcdef"), targets.astype(np.uint8), groups)


@pytest.mark.parametrize("seed", range(3))
def test_folds_of_uneven_groups_are_even_in_images_and_labels(seed: int):
    labels = heavy_tailed(seed)
    assert labels.fold_groups is not None
    folds, counts = assign_folds(labels, 5, seed), {}
    order = np.random.default_rng(0).permutation(len(folds))
    shuffled = Labels(labels.ids[order], labels.classes, labels.targets[order], labels.fold_groups[order])
    assert assign_folds(shuffled, 5, seed).tolist() == folds[order].tolist()
    assert all(
        len(np.unique(folds[labels.fold_groups == group])) == 1 for group in np.unique(labels.fold_groups)
    )
    for name, column in (("images", np.ones(len(folds))), *zip("abcdef", labels.targets.T)):
        counts[name] = np.bincount(folds, column, 5)
    sizes = counts.pop("images")
    assert sizes.max() <= 1.02 * sizes.min()
    assert all(count.max() - count.min() <= max(6, 0.1 * count.mean()) for count in counts.values())


def test_even_folds_of_groups_stay_those_of_the_library():
    labels = drawn(2000)
    groups = labels.ids.astype(object)
    groups[:20] = [f"pair {i // 2}" for i in range(20)]  # some duplicates
    units, unit_of = np.unique(groups.astype(str), return_inverse=True)
    targets = np.zeros((len(units), 4), np.uint8)
    np.maximum.at(targets, unit_of, labels.targets)
    truth = np.array(of_library(with_bare(targets), 5, 42))[unit_of]
    grouped = Labels(labels.ids, labels.classes, labels.targets, groups.astype(str))
    assert assign_folds(grouped, 5, 42).tolist() == truth.tolist()


def test_no_fold_is_empty():
    rng = np.random.default_rng(0)
    for seed in range(40):
        n = int(rng.integers(5, 9))
        labels = drawn(n)
        targets = (rng.random((n, 4)) < 0.4).astype(np.uint8)
        folds = assign_folds(Labels(labels.ids, labels.classes, targets), 5, seed)
        assert set(folds.tolist()) == set(range(5))


def test_an_image_without_a_group_is_a_group_of_its_own(tmp_path: Path):
    cells = ["p1", "p1 ", "", "", " ", "nan", "NaN", "None", "p2", "NA"]
    rows = [f"i{i},x,{cell}" for i, cell in enumerate(cells)]
    (tmp_path / "t.csv").write_text("\n".join(["image_name,tags,patient", *rows]) + "\n")
    table = LabelTable(csv=("t.csv",), id="image_name", column="tags", group="patient")
    groups = read_labels(tmp_path / "t.csv", table).fold_groups
    assert groups is not None
    firsts = [groups.tolist().index(group) for group in groups]
    assert firsts == [0, 0, 2, 3, 4, 5, 6, 7, 8, 9]


def test_what_is_odd_about_folds_is_said(here: Path, fails, capsys):
    assert main(["download", "tiny.toml"]) == 0
    path = here / "data" / "tiny" / "drawn" / "train.csv"
    table = pd.read_csv(path)
    table["patient"] = ["p1"] * 40 + [""] * 50
    table.to_csv(path, index=False)
    options = ["--set", "n_folds=5", "--set", "competition.labels.group='patient'"]
    capsys.readouterr()
    assert main(["folds", "tiny.toml", *options]) == 0
    printed = capsys.readouterr().out
    assert "50 images have no patient" in printed
    assert "70%, from 12 to 40 images; p1, the largest of 51 groups, has 40" in printed
    table["patient"] = "p1"
    table.to_csv(path, index=False)
    assert "1 images or groups can't fill 5 folds; lower n_folds, or change the groups" in fails(
        "folds", "tiny.toml", *options, "--force"
    )
    table.assign(tags="").to_csv(path, index=False)
    options = ["--set", "competition.labels.empty=true", "--set", "competition.labels.classes=['a','b']"]
    line = fails("folds", "tiny.toml", *options, "--force")
    assert "no image has a label" in line


def said(counts: list[list[int]], n: int) -> str:
    fold_of = np.arange(n) % len(counts[0])
    classes = tuple(f"c{i}" for i in range(len(counts)))
    labels = Labels(np.arange(n).astype(str), classes, np.zeros((n, len(counts)), np.uint8))
    return "\n".join(remarks(labels, np.array(counts), fold_of, with_duplicates=False))


def test_classes_that_a_network_cannot_learn_or_show_are_named():
    assert said([[3, 4], [2, 2]], 10) == ""
    odd = said([[0, 0, 0], [4, 3, 3], [0, 2, 0], [1, 1, 0]], 10).splitlines()
    cores = ["no image: 1 (c0)", "every image: 1 (c1)", "one fold alone: 1 (c2)", "some folds: 1 (c3)"]
    assert all(line.partition(";")[0].endswith(core) for line, core in zip(odd, cores, strict=True))
    assert "the 100 rarest of 120 classes" in said([[3, 4]] * 120, 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,fold\na,0\nb,1\n", "lacks ids: 1 (c)"),
        ("id,fold\na,0\nb,1\nc,0\nd,1\n", "labels don't have: 1 (d)"),
        ("id,fold\na,0\nb,1\nc,0\nc,1\n", "more than once: 1 (c)"),
        ("id,fold\na,0\nb,0\nc,0\n", "folds 0, 1 "),
        ("id,fold\na,0\nb,x\nc,0\n", "folds 0, 1 "),
        ("id,part\na,0\n", "has no column 'fold'"),
    ],
)
def test_what_is_wrong_with_a_fold_file_is_said(tmp_path: Path, text: str, message: str):
    (tmp_path / "folds.csv").write_text(text)
    with pytest.raises(CompError) as error:
        read_folds(tmp_path / "folds.csv", np.array(["a", "b", "c"]), 2)
    assert message in str(error.value)


def test_the_rarest_class_of_the_protein_atlas_is_in_every_fold(shared: Path):
    labels = read_labels(shared / "hpa" / "train.csv.zip", load_competition("hpa").labels)
    folds = assign_folds(labels, 5, 42)
    rarest = labels.targets[:, labels.targets.sum(0).argmin()] == 1
    assert np.bincount(folds[rarest], minlength=5).min() >= 2
