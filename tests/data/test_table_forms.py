"""Tables with several rows an image, JSON, unknown cells, numbers, groups, lists of ids."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from comp.artifacts.csv_tables import read_table
from comp.artifacts.stamps import digest
from comp.commands import download
from comp.config.competition import Competition
from comp.config.labels import LabelTable
from comp.config.loading import load_competition, load_recipe
from comp.data.folds import assign_folds, parts_of_range
from comp.data.groups import join_groups
from comp.data.image_files import find_images
from comp.data.labels import Labels, read_labels
from comp.data.long_tables import name_rows, split_rows
from comp.data.manifest import read_manifest
from comp.errors import CompError
from tests.competitions.forms import Draft, build
from tests.competitions.other_forms import OTHER


def labels_of(folder: Path, text: str, kind: Any = "labels", **keys: Any) -> Labels:
    path = folder / "train.csv"
    path.write_text(text)
    return read_labels(path, LabelTable(csv=("train.csv",), id="id", **keys), kind)


# --- several rows an image ----------------------------------------------------------------------------------


def test_a_row_for_each_image_and_class_becomes_a_column_for_each_class(tmp_path: Path):
    long = {"column": "y", "row": "{id}_{class}", "empty": True}
    text = "id,y\na_1_any,1\na_1_sub any,0\nb_any,0\nb_sub any,0\nb_any,0\n"  # one row is there twice
    found = labels_of(tmp_path, text, **long)
    assert (found.ids.tolist(), found.classes) == (["a_1", "b"], ("any", "sub any"))
    assert found.targets.tolist() == [[1, 0], [0, 0]]
    listed = labels_of(tmp_path, text, **long, classes=["sub any", "any"])
    assert listed.targets.tolist() == [[0, 1], [0, 0]]
    with pytest.raises(CompError, match=r"rows that contradict each other: 1 \(b_any\)"):
        labels_of(tmp_path, text + "b_any,1\n", **long)
    with pytest.raises(CompError, match="no row for the class 'sub any' of c"):
        labels_of(tmp_path, text + "c_any,1\n", **long)
    with pytest.raises(CompError, match="don't fit row"):
        labels_of(tmp_path, text + "c_other,1\n", **long, classes=["any", "sub any"])


def test_the_names_of_long_rows_are_read_as_they_are_written():
    ids, classes = ["a_b", "c"], ["any", "b any", "y"]
    names = name_rows("{id}_{class}", ids, classes)
    assert names[:2] == ["a_b_any", "a_b_b any"]
    both = split_rows(names, "{id}_{class}", classes, Path("x.csv"))
    assert list(zip(*both)) == [(i, c) for i in ids for c in classes]
    assert split_rows(["any-7"], "{class}-{id}", ["any"], Path("x.csv")) == (["7"], ["any"])


def test_rows_of_one_id_are_joined(tmp_path: Path):
    text = "id,tags,p\na,x,1\nb,,2\na,y,1\na,x,1\n"
    found = labels_of(tmp_path, text, column="tags", row="{id}", empty=True, group="p")
    assert (found.ids.tolist(), found.targets.tolist()) == (["a", "b"], [[1, 1], [0, 0]])
    with pytest.raises(CompError, match="rows of one id with different labels"):
        labels_of(tmp_path, text.replace("b,,2\n", ""), column="tags", row="{id}", single=True)
    with pytest.raises(CompError, match=r"different p in the rows of one id: 1 \(a\)"):
        labels_of(tmp_path, text + "a,x,3\n", column="tags", row="{id}", empty=True, group="p")
    columns = labels_of(tmp_path, "id,u,v\na,0,1\na,1,0\nb,0,1\n", row="{id}")
    assert columns.targets.tolist() == [[1, 1], [0, 1]]
    with pytest.raises(CompError, match="ids more than once"):
        labels_of(tmp_path, text, column="tags", empty=True)


# --- JSON ---------------------------------------------------------------------------------------------------


def frame_of(folder: Path, content: Any) -> pd.DataFrame:
    (folder / "t.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return read_table(folder / "t.json", [])


def test_json_of_coco_is_images_joined_with_annotations_and_categories(tmp_path: Path):
    coco: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"d/{i}.jpg", "width": 5} for i in (1, 2, 3)],
        "annotations": [
            {"id": 9, "image_id": 1, "category_id": 7, "segmentation": [[0.5, 1.5]], "area": 2.5},
            {"id": 8, "image_id": 3, "category_id": 4, "bbox": [1.5, 2, 3, 4], "area": None},
            {"id": 7, "image_id": 1, "category_id": 4},
        ],
        "categories": [{"id": 4, "name": "cat"}, {"id": 7, "name": "emu"}],
    }
    found = frame_of(tmp_path, coco)
    rows = found[["id", "file_name", "category_id", "category_name", "area"]].to_numpy().tolist()
    assert rows == [
        ["1", "d/1.jpg", "7", "emu", "2.5"],
        ["1", "d/1.jpg", "4", "cat", ""],
        ["2", "d/2.jpg", "", "", ""],
        ["3", "d/3.jpg", "4", "cat", ""],
    ]
    assert not {"segmentation", "bbox", "image_id"} & set(found)
    coco["annotations"].append({"image_id": 5, "category_id": 4})
    with pytest.raises(CompError, match="an annotation of the image 5, which is not in images"):
        frame_of(tmp_path, coco)
    coco["images"].append(coco["images"][0])
    with pytest.raises(CompError, match="1 is there twice in images"):
        frame_of(tmp_path, coco)


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ([{"id": 1, "y": True, "z": [0.5] * 9}, {"id": "b", "y": None}], [["1", "true"], ["b", ""]]),
        ({"a.jpg": "cat", "b.jpg": ["cat", "dog"]}, [["a.jpg", "cat"], ["b.jpg", '["cat", "dog"]']]),
        ({"a": {"y": 1.5}, "b": {"y": 2}}, [["a", "1.5"], ["b", "2"]]),
    ],
)
def test_json_of_records_and_of_values_by_id_is_a_table(tmp_path: Path, content: Any, rows: list[list[str]]):
    assert frame_of(tmp_path, content).to_numpy().tolist() == rows


@pytest.mark.parametrize("text", ["[1, 2]", "{", "[]", '{"images": [3]}', "[" * 100_000, '"x"', "[{}, 1]"])
def test_other_json_is_refused_in_one_line(tmp_path: Path, text: str):
    with pytest.raises(CompError) as error:
        frame_of(tmp_path, text)
    assert "\n" not in str(error.value)


def test_tables_of_other_programs_are_refused_with_what_to_do(tmp_path: Path):
    (tmp_path / "t.xlsx").write_bytes(b"PK")
    with pytest.raises(CompError, match=r"\.xlsx files are not read; save the table as CSV"):
        read_table(tmp_path / "t.xlsx", [])


# --- cells --------------------------------------------------------------------------------------------------


def test_unknown_cells_are_nan_and_others_may_have_a_meaning(tmp_path: Path):
    text = "id,u,v\na,1.0,-1.0\nb,,0\nc,0.0,1\n"
    found = labels_of(tmp_path, text, unknown=["-1"], values={"": 0}, empty=True)
    assert found.targets.dtype == np.float32
    np.testing.assert_array_equal(found.targets, [[1, np.nan], [0, 0], [0, 1]])
    assert found.positives.tolist() == [[1, 0], [0, 0], [0, 1]]
    assert not found.are_numbers
    with pytest.raises(CompError, match=r"in line 2, v is '-1.0'; labels.unknown = \[\"-1.0\"\] leaves"):
        labels_of(tmp_path, text, values={"": 0}, empty=True, classes=["u", "v"])
    assert labels_of(tmp_path, text.replace("-1.0", "1").replace("b,,", "b,1,")).targets.dtype == np.uint8


def test_grades_are_ordered_by_number_also_those_that_no_image_has(tmp_path: Path):
    keys: dict[str, Any] = {"column": "g", "single": True}
    found = labels_of(tmp_path, "id,g\na,10\nb,8\nc,11\n", "grades", **keys)
    assert found.classes == ("8", "9", "10", "11")
    assert found.targets.argmax(1).tolist() == [2, 0, 3]
    with pytest.raises(CompError, match="list them in labels.classes, the lowest first"):
        labels_of(tmp_path, "id,g\na,low\nb,high\n", "grades", **keys)
    named = labels_of(tmp_path, "id,g\na,low\nb,high\n", "grades", **keys, classes=["low", "high"])
    assert named.targets.tolist() == [[1, 0], [0, 1]]


def test_numbers_to_predict_weights_and_features_are_read_as_numbers(tmp_path: Path):
    text = "id,y,w,f1,f2,g\na,1.5,1,3,na,x\nb,,0.5,4,0,y\nc,-2e1,2,5,1,z\n"
    found = labels_of(
        tmp_path, text, "numbers", classes=["y", "f1"], unknown=[""], weight="w", features=["f*"]
    )
    np.testing.assert_array_equal(found.targets, np.float32([[1.5, 3], [np.nan, 4], [-20, 5]]))
    assert (found.targets.dtype, found.are_numbers, found.classes) == (np.float32, True, ("y", "f1"))
    assert found.weights is not None and found.features is not None
    assert found.weights.tolist() == [1, 0.5, 2]
    np.testing.assert_array_equal(found.features, [[3, np.nan], [4, 0], [5, 1]])
    assert found.fingerprint != Labels(found.ids, found.classes, found.targets).fingerprint
    with pytest.raises(CompError, match="line 3: no number is known; remove the row"):
        labels_of(tmp_path, text, "numbers", column="y", unknown=[""])
    with pytest.raises(CompError, match="line 2: g is 'x'; a number is expected"):
        labels_of(tmp_path, text, "numbers", classes=["f1"], features=["g"])
    with pytest.raises(CompError, match="line 3: y is ''; a number"):
        labels_of(tmp_path, text, "numbers", column="y")
    with pytest.raises(CompError, match=r"no column 'h\*'"):
        labels_of(tmp_path, text, "numbers", classes=["f1"], features=["h*"])
    with pytest.raises(CompError, match="weights below 0"):
        labels_of(tmp_path, text.replace("0.5", "-1"), "numbers", classes=["f1"], weight="w")


def test_labels_without_newer_keys_have_the_stamp_that_they_had():
    labels = Labels(np.array(["a", "b"]), ("x", "y"), np.array([[1, 0], [0, 1]], np.uint8))
    assert labels.fingerprint == digest(labels.ids, labels.classes, labels.targets)
    dumped = load_competition("hpa").model_dump()
    assert list(dumped["labels"]) == [
        *("csv", "id", "column", "separator", "classes", "indices", "exclusive", "single", "group", "none"),
        *("ignore", "empty"),
    ]
    assert list(dumped["images"]) == ["train", "test", "channels"]
    assert list(dumped["submission"]) == ["sample", "id", "column", "separator", "solution"]


# --- groups and folds ---------------------------------------------------------------------------------------


def test_a_group_may_be_a_part_of_the_id_or_of_a_column(tmp_path: Path):
    text = "id,x,p\ns1_a,1,P-7/L\ns1_b,1,P-8/R\ns2_a,1,\n"
    of_ids = labels_of(tmp_path, text, classes=["x"], group_pattern=r"(s\d+)_")
    assert of_ids.fold_groups is not None and of_ids.fold_groups.tolist() == ["s1", "s1", "s2"]
    of_cells = labels_of(tmp_path, text, classes=["x"], group="p", group_pattern=r"P-\d")
    assert of_cells.fold_groups is not None and of_cells.fold_groups.tolist() == ["P-7", "P-8", " s2_a"]
    with pytest.raises(CompError, match=r"finds nothing for 1 \(s2_a\)"):
        labels_of(tmp_path, text, classes=["x"], group_pattern="s1")


def test_images_of_one_answer_share_a_fold_and_groups_are_joined_where_they_meet(tmp_path: Path):
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 9, (2, 14)).astype(str)
        joined = join_groups(a, b)
        parts = [{i} for i in range(14)]
        for _ in range(14):  # brute force: join what shares a value, until nothing changes
            parts = [set().union(*(q for q in parts if {(a[i], 0) for i in p} & {(a[i], 0) for i in q}
                                   or {b[i] for i in p} & {b[i] for i in q})) for p in parts]  # fmt: skip
        for i in range(14):
            for j in range(14):
                assert (joined[i] == joined[j]) == any(i in p and j in p for p in parts)
    rows = "".join(f"{i},{i // 4},{'LR'[i // 2 % 2]},{i % 3 == 0:d}\n" for i in range(40))
    labels = labels_of(tmp_path, f"id,p,s,x\n{rows}", classes=["x"], answer_id="{p}_{s}")
    assert labels.answer_ids is not None and labels.answer_ids[:3].tolist() == ["0_L", "0_L", "0_R"]
    fold_of = assign_folds(labels, 4, 0)
    assert all(len(set(fold_of[labels.answer_ids == name])) == 1 for name in labels.answer_ids)


def test_folds_share_the_range_of_numbers_evenly():
    numbers = np.random.default_rng(0).normal(size=(200, 1)).astype(np.float32) ** 3
    labels = Labels(np.arange(200).astype(str), ("y",), numbers)
    parts = parts_of_range(numbers)
    assert parts.sum(0).tolist() == [20] * 10
    fold_of = assign_folds(labels, 5, 0)
    assert (np.stack([parts[fold_of == fold].sum(0) for fold in range(5)]) == 4).all()


# --- paths --------------------------------------------------------------------------------------------------


def test_a_cell_in_a_template_does_not_leave_the_folder(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "a.png").write_bytes(b"x")
    place = [(tmp_path / "in", "{kind}/{id}.png")]
    for cell in ("..", "../in", "/", "\\", f"{tmp_path}"):
        with pytest.raises(CompError, match="kind .* points outside the image folder"):
            find_images("train", np.array(["a"]), place, [], {"kind": [cell]})
    with pytest.raises(CompError, match="'a' is too short"):
        find_images("train", np.array(["a"]), [(tmp_path, "{id[1]}/{id}.png")], [])


def test_positions_and_stars_lead_to_files(tmp_path: Path):
    for name in ("0/1/01x.png", "part_a/in/7.png", "part_b/in/8.png", "other/in/9.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = find_images("train", np.array(["01x"]), [(tmp_path, "{id[0]}/{id[1]}/{id}.png")], [])
    assert found.paths == ((tmp_path / "0/1/01x.png",),)
    starred = [(tmp_path, "part_*/in/{id}.png")]
    assert find_images("test", np.array(["8", "7"]), starred, []).paths[0][0].parent.parent.name == "part_b"
    with pytest.raises(CompError, match=r"no image for 1 \(9\)"):
        find_images("test", np.array(["9"]), starred, [])


@pytest.mark.parametrize(
    ("labels", "images", "message"),
    [
        ({}, {"train": "t/{id}_*.png"}, r"\* stands in folders before the first"),
        ({}, {"train": "t/{id.__class__}.png"}, "a column's name in braces is expected"),
        ({}, {"train": "t/{0}.png"}, "a column's name in braces is expected"),
        ({}, {"test": "t/{label}/{id}.png"}, "the labels of test images are not known"),
        ({"csv": ()}, {}, "labels.csv is not set"),
        ({"csv": ()}, {"train": "t/{label}/{id}_{view}.png"}, "no labels.csv with columns"),
        ({"row": "{id}-{x}"}, {}, "is expected"),
        ({"row": "{id}_{class}", "column": None}, {}, "needs labels.column"),
        ({"unknown": ["-1"]}, {}, "labels.column holds texts"),
        (
            {"column": None, "unknown": ["-1"], "values": {"-1": 0}},
            {},
            "in labels.values and in labels.unknown",
        ),
        ({"group_pattern": "("}, {}, "is no regular expression"),
        ({"answer_id": "x"}, {}, "names no column"),
        ({}, {"train": "t/{id}/{any}.png"}, "all templates hold {id} and {any}"),
        ({}, {"train": "t/{id}/{any}.png", "test": "t/{id}/{view}/{any}.png"}, "and nothing else"),
        ({"csv": ()}, {"train": "t/{id}/{any}.png", "test": "u/{id}/{any}.png"}, "needs a table with a row"),
        (
            {"row": "{id}"},
            {"train": "t/{id}/{any}.png", "test": "u/{id}/{any}.png"},
            "labels.row does not go",
        ),
    ],
)
def test_settings_without_a_meaning_are_refused(labels: dict[str, Any], images: dict[str, Any], message: str):
    content = {
        "name": "x",
        "labels": {"csv": "t.csv", "id": "id", "column": "tags", **labels},
        "images": {"train": "train/{id}.png", "test": "test/{id}.png", **images},
    }
    with pytest.raises(ValueError, match=message):
        Competition.model_validate(content)


def test_each_archive_of_a_folder_with_a_star_is_unpacked(here: Path):
    form = build("nih-chest-x-rays", here / "nih")
    for folder in sorted((here / "nih").glob("images_*")):
        with tarfile.open(here / "nih" / f"{folder.name}.tar.gz", "w:gz") as archive:
            archive.add(folder / "images", "images")
        for file in folder.rglob("*.png"):
            file.unlink()
        (folder / "images").rmdir()
        folder.rmdir()
    recipe = load_recipe("nih-chest-x-rays")
    download.run(recipe, source="nih", force=False)
    data = read_manifest(recipe.competition)
    assert len(data.images("train", np.array(form.ids), []).paths) == 24
    assert len(data.images("test", np.array(form.test_ids), []).paths) == 12


def test_without_a_sample_the_test_images_are_the_files_in_natural_order(here: Path):
    build("dogs-vs-cats", here / "dogs")
    (here / "dogs" / "sample_submission.csv").unlink()
    recipe = load_recipe("dogs-vs-cats", ["competition.submission.sample=[]"])
    download.run(recipe, source="dogs", force=False)
    data = read_manifest(recipe.competition)
    assert data.test_ids(recipe.competition).tolist() == [str(i) for i in range(1, 13)]
    assert (here / "data/dogs-vs-cats/test-ids.csv").read_text().splitlines()[0] == "id"


def test_an_id_may_have_several_files(here: Path):
    draft = Draft(here / "pets", 8, 4, 1.0, np.random.default_rng(0))
    draft.folder.mkdir()
    text, build_pets, _ = OTHER["petfinder-adoption"]
    Path("pets.toml").write_text(text)
    form = build_pets(draft)
    Path("small.toml").write_text('competition = "pets.toml"\nbackbone = "test_resnet"\npretrained = false\n')
    recipe = load_recipe("small.toml")
    extra = here / "pets/test_images/0000000ff-1.jpg"  # of an id that the sample does not ask for
    extra.write_bytes((here / "pets/test_images" / f"{form.test_ids[0]}.jpg").read_bytes())
    download.run(recipe, source="pets", force=False)
    data = read_manifest(recipe.competition)
    labels = data.labels(recipe.competition)
    assert form.groups is not None and labels.answer_ids is not None and labels.fold_groups is not None
    assert dict(zip(labels.ids, labels.answer_ids)) == dict(zip(form.ids, form.groups))
    assert labels.fold_groups.tolist() == labels.answer_ids.tolist()
    rows = pd.Index(form.ids).get_indexer(labels.ids)
    assert (labels.targets == form.targets[rows]).all()
    assert set(data.test_ids(recipe.competition)) == set(form.test_ids)
    assert set(data.sample_ids(recipe.competition)) == set(form.answers or ())
    assert data.images("train", labels.ids, []).paths[0][0].name == f"{labels.ids[0]}.jpg"
    for file in (here / "pets/train_images").glob(f"{form.groups[0]}-*"):
        file.unlink()
    with pytest.raises(CompError, match=r"ids without a file in images.train: 1 \("):
        download.run(recipe, source="pets", force=True)


def test_lists_and_tables_that_do_not_fit_are_refused_before_training(here: Path):
    build("nih-chest-x-rays", here / "nih")
    (here / "nih" / "train_val_list.txt").write_text("00000000_000.png\nnothing.png\n")
    with pytest.raises(CompError, match=r"lacks ids of labels.only: 1 \(nothing.png\)"):
        download.run(load_recipe("nih-chest-x-rays"), source="nih", force=False)
    build("rsna-breast-cancer", here / "rsna")
    sample = here / "rsna" / "sample_submission.csv"
    sample.write_text(sample.read_text() + "77_L,0.02\n")
    with pytest.raises(CompError, match=r"have other answers: 1 \(77_L\)"):
        download.run(load_recipe("rsna-breast-cancer"), source="rsna", force=False)
    build("leaf", here / "leaf")
    table = here / "leaf" / "test.csv"
    table.write_text(table.read_text().replace("margin2", "edge"))
    with pytest.raises(CompError, match=r"has other features than .*: 1 \(margin2\)"):
        download.run(load_recipe("leaf"), source="leaf", force=False)
