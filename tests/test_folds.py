from pathlib import Path

import numpy as np
import pytest

from comp.config import load_competition
from comp.errors import CompError
from comp.folds import read_folds
from comp.labels import Labels, read_labels
from comp.stages.folds import assign


def drawn(n: int = 400, groups: bool = False) -> Labels:
    rng = np.random.default_rng(1)
    targets = (rng.random((n, 4)) < [0.5, 0.3, 0.1, 0.03]).astype(np.uint8)
    ids = np.array([f"image_{i}" for i in range(n)])
    return Labels(
        ids, ("a", "b", "c", "d"), targets, np.array([f"g{i // 3}" for i in range(n)]) if groups else None
    )


def test_every_image_is_in_one_fold_and_every_class_is_spread_evenly():
    labels = drawn()
    folds = assign(labels, 5, 0)
    assert len(folds) == 400
    assert all(75 <= size <= 85 for size in np.bincount(folds))
    for c in range(4):
        counts = np.bincount(folds, labels.targets[:, c], 5)
        assert counts.max() - counts.min() <= 2


def test_a_group_is_in_one_fold():
    labels = drawn(groups=True)
    folds = assign(labels, 5, 0)
    assert labels.groups is not None
    for group in np.unique(labels.groups):
        assert len(np.unique(folds[labels.groups == group])) == 1
    assert np.bincount(folds).min() > 60


def test_folds_depend_on_the_seed_and_not_on_the_order_of_rows():
    labels, order = drawn(), np.random.default_rng(0).permutation(400)
    shuffled = Labels(labels.ids[order], labels.classes, labels.targets[order])
    assert assign(labels, 5, 3)[order].tolist() == assign(shuffled, 5, 3).tolist()
    assert assign(labels, 5, 3).tolist() != assign(labels, 5, 4).tolist()


def test_images_without_any_label_are_spread_too():
    labels = Labels(
        np.array([f"{i:03}" for i in range(100)]), ("a",), (np.arange(100) < 50).astype(np.uint8)[:, None]
    )
    folds = assign(labels, 5, 0)
    assert np.bincount(folds[50:]).tolist() == [10] * 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,fold\na,0\nb,1\n", "lacks ids: 1 (c)"),
        ("id,fold\na,0\nb,1\nc,0\nd,1\n", "ids that the labels don't have: 1 (d)"),
        ("id,fold\na,0\nb,1\nc,0\nc,1\n", "more than once: 1 (c)"),
        ("id,fold\na,0\nb,0\nc,0\n", "folds 0, 1 are expected"),
        ("id,fold\na,0\nb,x\nc,0\n", "folds 0, 1 are expected"),
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
    folds = assign(labels, 5, 42)
    rarest = labels.targets[:, labels.targets.sum(0).argmin()] == 1
    assert np.bincount(folds[rarest], minlength=5).min() >= 2
