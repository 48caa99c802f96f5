"""blend: the folds of a recipe put together.

Reads each fold's oof.npz and test.npz; writes runs/<recipe>/oof.npz (every held-out id exactly once) and
test.npz (the mean of the folds)."""

import numpy as np

from comp.artifacts import digest, is_done, oof_path, read_stamp, test_path
from comp.config import Recipe
from comp.console import say
from comp.errors import CompError, some
from comp.manifest import read_training
from comp.predictions import Predictions, aligned, concatenated, load, save


def run(recipe: Recipe, *, folds: list[int], force: bool) -> None:
    competition = recipe.competition
    members = {}
    for fold in folds:
        stamps = [read_stamp(path) for path in (oof_path(recipe.name, fold), test_path(recipe.name, fold))]
        if None in stamps:
            raise CompError(f"fold {fold} of {recipe.name} has no predictions; run `comp predict` first")
        members[f"fold {fold}"] = digest(stamps)
    stamp = {"folds": folds, "members": members}
    paths = {"oof": oof_path(recipe.name), "test": test_path(recipe.name)}
    if [is_done(path, stamp, force=force) for path in paths.values()] == [True, True]:
        say(f"blend: {recipe.name} done already")
        return
    data, labels, fold_of = read_training(recipe)
    oof = concatenated([load(oof_path(recipe.name, fold), labels.classes) for fold in folds], paths["oof"])
    expected = labels.ids[np.isin(fold_of, folds)]
    if extra := sorted(set(oof.ids.tolist()) - set(expected.tolist())):
        raise CompError(
            f"held-out predictions hold ids of other folds: {some(extra)}; run `comp predict --force`"
        )
    oof = Predictions(expected, oof.classes, aligned(oof, expected, paths["oof"]))
    test_ids = data.sample_ids(competition)
    total = np.zeros((len(test_ids), len(labels.classes)), np.float64)
    for fold in folds:
        path = test_path(recipe.name, fold)
        total += aligned(load(path, labels.classes), test_ids, path)
    save(paths["test"], Predictions(test_ids, labels.classes, (total / len(folds)).astype(np.float32)), stamp)
    save(paths["oof"], oof, stamp)
    say(f"blend: {len(oof.ids):,} held-out ids once each, {len(test_ids):,} test ids as the folds' mean")
