"""Each competition that comes with comp is read from a folder in its real form."""

from pathlib import Path

import numpy as np
import pytest

from comp.commands import download, init
from comp.config.competition import Competition
from comp.config.loading import load_competition, load_recipe, shipped
from comp.config.metric import Metric
from comp.data.folds import assign_folds
from comp.data.inspection.known import METRICS
from comp.data.manifest import CompetitionFiles, read_manifest
from tests.competitions.forms import FORMS, Form, build


def downloaded(name: str) -> tuple[Form, Competition, CompetitionFiles]:
    form, recipe = build(name, Path(name)), load_recipe(name)
    download.run(recipe, source=name, force=False)
    return form, recipe.competition, read_manifest(recipe.competition)


@pytest.mark.parametrize("name", FORMS)
def test_a_competition_is_read_from_a_folder_in_its_form(here: Path, name: str):
    pytest.importorskip("pydicom" if load_competition(name).images.train[0].endswith(".dcm") else "PIL")
    form, competition, data = downloaded(name)
    labels = data.labels(competition)
    assert labels.ids.tolist() == form.ids
    assert labels.classes == form.classes
    np.testing.assert_array_equal(labels.targets, form.targets)
    assert labels.targets.dtype == (np.uint8 if form.targets.dtype.kind == "u" else np.float32)
    assert data.test_ids(competition).tolist() == form.test_ids
    groups = None if labels.fold_groups is None else labels.fold_groups.tolist()
    assert groups == form.groups
    answers = data.test_answer_ids(competition)
    assert (answers if answers is None else answers.tolist()) == form.answers
    features = data.test_features(competition)
    assert (0 if features is None else features.shape[1]) == form.features
    assert labels.features is None or labels.features.shape == (len(form.ids), form.features)
    for split, ids in (("train", labels.ids), ("test", data.test_ids(competition))):
        images = data.images(split, ids, competition.images.channel_names)
        assert all(path.is_file() for paths in images.paths for path in paths)
        assert len(set(images.paths)) == len(ids)
    fold_of = assign_folds(labels, 2, 0)
    assert {*fold_of.tolist()} == {0, 1}
    for group in set(groups or ()):
        assert len({fold for fold, name in zip(fold_of.tolist(), groups or ()) if name == group}) == 1


def test_each_competition_that_comes_with_comp_is_tried_and_short():
    for name, path in shipped("competitions").items():
        assert name in (*FORMS, "demo", "hpa-drawn") or load_competition(name).drawn, name
        if name in FORMS and name not in ("planet", "hpa"):
            assert len(path.read_text().splitlines()) <= 25, name


def test_the_rows_of_features_and_answers_are_those_of_the_ids(here: Path):
    _, leaf, data = downloaded("leaf")  # its test.csv is in another order than the sample
    table = {
        line.split(",")[0]: [float(cell) for cell in line.split(",")[1:]]
        for line in Path("leaf/test.csv").read_text().splitlines()[1:]
    }
    features = data.test_features(leaf)
    assert features is not None
    for name, row in zip(data.test_ids(leaf).tolist(), features.tolist()):
        np.testing.assert_allclose(row, table[name], rtol=1e-6)


GUESSED = {
    "plant-pathology-2020": "ROC AUC",
    "dogs-vs-cats": "ROC AUC",
    "leaf": "log loss",
    "hotel-id-2021": "MAP@5",
    "petfinder-pawpularity": "RMSE",
    "plant-seedlings": "accuracy",
    "inaturalist-2019": "accuracy",
    "herbarium-2022": "accuracy",
    "rsna-breast-cancer": "ROC AUC",
    "rsna-intracranial-hemorrhage": "log loss",
    "paddy-disease": "accuracy",
    "whale-categorization": "MAP@5",
    "chexpert": "samples F2",
}


@pytest.mark.parametrize("name", GUESSED)
def test_comp_init_sees_the_form_of_a_folder_of_another_name(here: Path, name: str):
    """It can't know what the metric is; what the sample shows of it is assumed."""
    form = build(name, Path("mine"), n=60, n_test=20)
    init.run("mine", name=None, to="my.toml", force=False)
    recipe = load_recipe("my.toml")
    download.run(recipe, source="mine", force=False)
    competition = recipe.competition
    data = read_manifest(competition)
    labels, test_ids = data.labels(competition), data.test_ids(competition)
    assert (labels.ids.tolist(), test_ids.tolist()) == (form.ids, form.test_ids)
    columns = [labels.classes.index(label) for label in form.classes]
    found, wanted = labels.targets[:, columns], form.targets  # empty cells may be 0, or not known
    np.testing.assert_array_equal(np.nan_to_num(found), np.nan_to_num(wanted))
    answers = data.test_answer_ids(competition)
    assert (answers if answers is None else answers.tolist()) == form.answers
    assert str(competition.metric) == GUESSED[name]
    for split, ids in (("train", labels.ids), ("test", test_ids)):
        data.images(split, ids, competition.images.channel_names)


def test_known_metrics_are_those_of_the_competitions_that_come_with_comp():
    for name in shipped("competitions"):
        competition = load_competition(name)
        if competition.slug in METRICS:
            assert competition.metric == Metric.model_validate(METRICS[competition.slug]), name


def test_comp_init_extends_a_competition_that_comes_with_comp(here: Path):
    init.run("plant-pathology-2020-fgvc7", name=None, to="my.toml", force=False)
    assert load_recipe("my.toml").competition == load_competition("plant-pathology-2020")
