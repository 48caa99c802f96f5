"""Corrected labels are what networks learn; folds, held-out scores and other stamps stay as they are."""

from pathlib import Path

import numpy as np

from comp.artifacts.stamps import to_json
from comp.cli.main import main
from comp.config.loading import load_recipe
from comp.tracking.run import Run
from comp.training.training_data import TrainingData

KEY = "competition.labels.corrections"


def test_networks_learn_the_corrected_labels_and_are_scored_by_the_given_ones(here: Path):
    for stage in ("download", "folds"):
        assert main([stage, "tiny.toml"]) == 0
    plain = TrainingData.read(load_recipe("tiny.toml"), [0, 1])
    water = plain.labels.classes.index("water")
    rows = [int(np.flatnonzero(plain.fold_of == fold)[0]) for fold in (0, 1)]
    turned = 1 - plain.labels.targets[rows, water]
    lines = [f"{plain.labels.ids[row]},water,{value}" for row, value in zip(rows, turned)]
    Path("corrections.csv").write_text("\n".join(["id,label,value", *lines]) + "\n")
    recipe = load_recipe("tiny.toml", [f"{KEY}=corrections.csv"])
    assert main(["folds", "tiny.toml", "--set", f"{KEY}=corrections.csv"]) == 0  # "done already"
    corrected = TrainingData.read(recipe, [0, 1])
    assert (corrected.fold_of == plain.fold_of).all()
    assert (corrected.labels.targets == plain.labels.targets).all()
    for fold in (0, 1):
        inputs = corrected.fold_inputs(fold, {}, {})
        other = plain.fold_inputs(fold, {}, {})
        differ = np.argwhere(inputs.labels.targets != other.labels.targets).tolist()
        assert differ == [[rows[1 - fold], water]]  # the one of the other fold, which is trained on
        assert rows[1 - fold] in inputs.train_rows and rows[fold] in inputs.valid_rows
        stamp, before = to_json(corrected.stamp(fold)), to_json(plain.stamp(fold))
        assert stamp.pop("corrections") and stamp == before and "corrections" not in before


def test_trackers_are_not_sent_the_names_of_those_who_corrected(here: Path):
    Path("corrections.csv").write_text("id,label,value,who\ntrain_0,water,1,somebody\n")
    recipe = load_recipe("tiny.toml", [f"{KEY}=corrections.csv"])
    assert "somebody" in recipe.competition.labels.corrections
    assert "somebody" not in str(Run(recipe, 0, {}).config)
