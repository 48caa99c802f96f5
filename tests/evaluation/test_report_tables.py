"""What the report says of rules, folds, groups of labels, submissions, and of the making of a run."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import fbeta_score

from comp.artifacts.files import write_json
from comp.artifacts.git import commit, commit_of_comp
from comp.artifacts.paths import log_path, started_path
from comp.commands.report import submissions_of
from comp.config.loading import load_recipe, shipped
from comp.config.origins import closest_shipped, values_set
from comp.decisions.metrics import FBeta
from comp.evaluation.provenance import provenance
from comp.evaluation.report_tables import confusion_in_groups, scores_by_fold, weighed_rules
from comp.evaluation.run_metadata import RunMetadata
from comp.kaggle import ledger


def drawn_results(**parts: Any) -> Any:
    rng = np.random.default_rng(0)
    decisions = (rng.random((120, 4)) < 0.5).astype(np.uint8)
    targets = np.where(rng.random(decisions.shape) < [0.05, 0.4, 0.2, 0.0], 1 - decisions, decisions)
    targets, folds = targets.astype(np.uint8), np.arange(120) % 3
    return SimpleNamespace(targets=targets, decisions=decisions, folds=folds, scorer=FBeta(2.0), **parts)


def test_scores_by_fold_are_those_of_scikit_learn_and_the_worst_come_first():
    results = drawn_results()
    found = scores_by_fold(results, [0, 1, 2, 3])
    assert (
        found and found["classes"] == [1, 2, 0, 3] and found["folds"] == [0, 1, 2] and found["score"] == "F2"
    )
    for c, values in zip(found["classes"], found["values"]):
        for fold, value in zip(found["folds"], values):
            part = results.folds == fold
            expected = fbeta_score(results.targets[part, c], results.decisions[part, c], beta=2)
            assert value == pytest.approx(expected, abs=1e-4)
    results.folds = np.zeros(120, int)
    assert scores_by_fold(results, [0, 1]) is None


def test_confusion_in_a_group_counts_each_image_with_one_true_label_once():
    labels = load_recipe("demo").competition.labels
    names = ("clear", "road", "partly_cloudy", "haze", "cloudy")
    true = np.array([[1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 1], [0, 1, 0, 0, 0]])
    given = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [1, 0, 0, 0, 1], [1, 0, 0, 0, 0]])
    results = drawn_results(
        recipe=SimpleNamespace(competition=SimpleNamespace(labels=labels)),
        labels=SimpleNamespace(classes=names),
    )
    results.targets, results.decisions = true.astype(np.uint8), given.astype(np.uint8)
    (found,) = confusion_in_groups(results)
    order = found["classes"]
    assert sorted(order) == [0, 2, 3, 4] and np.sum(found["images"]) == 4
    counts = {c: dict(zip([*order, "none", "several"], row)) for c, row in zip(order, found["images"])}
    assert counts[0] == {0: 1, 2: 0, 3: 0, 4: 0, "none": 1, "several": 0}
    assert counts[3][2] == 1 and counts[4]["several"] == 1 and not sum(counts[2].values())


def test_rules_are_listed_with_the_reference_and_an_old_file_has_none():
    scores = {
        "rules": {name: {"cross_fitted": 0.9, "in_sample": 0.91} for name in ("0.5", "shrunk")},
        "sure": {"0.5": 0.1, "shrunk": 0.5},
    }
    found = weighed_rules({"scores": scores})
    assert found["reference"] == "shrunk" and [row["sure"] for row in found["rules"]] == [0.1, 0.5]
    assert weighed_rules({"scores": {}}) == {"rules": [], "reference": None}


def test_what_differs_from_a_shipped_recipe_is_told_from_the_recipe_alone(here: Path):
    for name in shipped("recipes"):
        found = closest_shipped(load_recipe(name))
        assert found and values_set(found) == values_set(load_recipe(name))
    (here / "mine.toml").write_text('extends = "planet"\nseed = 7\nviews = ["flips"]\n')
    mine = load_recipe("mine.toml")
    found = closest_shipped(mine)
    assert found and found.name == "planet"
    ours, theirs = values_set(mine), values_set(found)
    assert {key for key in ours | theirs if ours.get(key) != theirs.get(key)} == {"seed", "views"}
    assert (
        not values_set(load_recipe("cassava", ["name=x"])) and closest_shipped(load_recipe("cassava")) is None
    )


def test_the_making_of_a_run_is_told_by_its_files_and_what_they_lack_is_unknown(here: Path):
    recipe = load_recipe("demo", ["seed=7"])
    begun = 1_500_000_000 * 10**9  # 14 July 2017, 02:40 UTC
    machine = {"comp": "0.1.0", "commit": "a" * 40, "processor": "A processor", "processors": 4}
    about = {"recipe": json.loads(recipe.model_dump_json()), "stamp": {}}
    row = {"epoch": 1, "phase": 0, "size": 32, "lr": 1e-3, "loss": 0.5, "valid_loss": 0.5, "memory": 7}
    for fold, known in ((0, {"begun": begun, **machine}), (1, {})):
        write_json(started_path("demo", fold), about | known)
        log_path("demo", fold).write_text(
            json.dumps(row | {"seconds": 30.0, "images_per_second": 9.0}) + "\n"
        )
    results: Any = SimpleNamespace(recipe=recipe, made={"folds": [0, 1]})
    found = provenance(results, [RunMetadata("demo", recipe, ("identity",), (0, 1), ())])
    assert found["seed"] == 7 and found["seconds"] == 60 and found["memory"] == 7
    new, old = found["trainings"]
    assert new == {"run": "demo", "fold": 0, "begun": "2017-07-14 02:40", "seconds": 30.0, **machine}
    assert old == {"run": "demo", "fold": 1, "begun": None, "seconds": 30.0, **dict.fromkeys(machine)}
    (settings,) = found["settings"]
    assert settings["shipped"] == "demo"
    assert [row for row in settings["keys"] if row[1] != row[2]] == [
        ["seed", "7", "the default"],
        ["views", '["identity"]', "the default"],
    ]
    assert provenance(results, [])["seconds"] is None


def test_the_commit_is_that_of_comp_and_not_of_the_folder_worked_in(here: Path):
    assert commit() is None
    known = commit_of_comp()
    assert known is None or (len(known) == 40 and int(known, 16))


def test_submissions_are_those_of_the_run_with_the_newest_first(here: Path):
    for day, (name, of, more) in enumerate(
        [("a", "demo", {"public": 0.8}), ("b", "other", {}), ("c", "demo", {"message": "a\x1bb"})], 1
    ):
        row = {"competition": "demo", "cross_fitted": 0.9, "time": f"2026-01-0{day}T00:00:00+00:00"}
        ledger.add({**row, "name": name, "recipe": of, **more})
    second, first = submissions_of(load_recipe("demo"))
    assert (first["name"], first["public"], first["private"]) == ("a", 0.8, None)
    assert second["name"] == "c" and second["message"] == r"a\x1bb" and second["public"] is None
