"""blend: the folds of a recipe put together, or several recipes.

For one recipe it reads each fold's oof.npz and test.npz, and writes runs/<recipe>/oof.npz (every held-out id
exactly once) and test.npz (the mean of the folds). For several recipes it reads these, and writes the same
for their blend, with a recipe.toml for the stages that follow; study.log keeps the search for weights."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from comp.artifacts.files import write_text
from comp.artifacts.paths import oof_path, predicted_paths, run_recipe_path, study_path, test_path
from comp.artifacts.predictions import Predictions, aligned, concatenated, load, mean_of_folds, save
from comp.artifacts.run_recipe import read_recipe, recipe_text
from comp.artifacts.schemas import PredictionStamp
from comp.artifacts.stamps import digest, is_done, read_stamp
from comp.config.recipe import Recipe
from comp.console import info, progress, show_headline, table
from comp.data.labels import exclusive_groups
from comp.data.manifest import read_training
from comp.decisions.blending import BlendChoice, Blender, methods_of
from comp.decisions.rule_search import SearchSettings
from comp.decisions.rules import is_single_label
from comp.decisions.scorers import make_scorer
from comp.errors import CompError, summarize
from comp.user_code import digests


def run(
    recipe: Recipe, *, folds: list[int], force: bool, others: list[str], name: str | None, how: str
) -> None:
    if recipe.members or others:
        methods_of(how, recipe.competition.metric)
    if others:
        recipes = [recipe, *map(read_recipe, others)]
        name = name or "_".join(r.name for r in recipes)
        blend_recipes(recipes, name=name, how=how, force=force)
        write_text(
            run_recipe_path(name), recipe_text(recipe.model_copy(update={"name": name, "members": ()}))
        )
        info(f"blend: next, `comp decide {name}`")
        return
    if recipe.members:
        for member in recipe.members:
            run(member, folds=folds, force=force, others=[], name=None, how=how)
        blend_recipes(list(recipe.members), name=recipe.name, how=how, force=force)
        return
    competition = recipe.competition
    data, labels, fold_of = read_training(recipe)
    members = {}
    for fold in folds:
        predicted = predicted_paths(recipe.name, fold, recipe.n_folds)
        stamps = [read_stamp(path, PredictionStamp) or {} for path in predicted]
        if not all(stamps):
            raise CompError(f"fold {fold} of {recipe.name} has no predictions; run `comp predict` first")
        if fold < recipe.n_folds and stamps[0]["ids"] != digest(labels.ids[fold_of == fold]):
            raise CompError(
                f"{oof_path(recipe.name, fold)} is of other folds than now; run `comp train` again"
            )
        members[f"fold {fold}"] = digest(stamps)
    stamp = {"folds": folds, "members": members, "fold_of": labels.fingerprint_of(fold_of)}
    paths = {"oof": oof_path(recipe.name), "test": test_path(recipe.name)}
    if [is_done(path, stamp, force=force) for path in paths.values()] == [True, True]:
        info(f"blend: {recipe.name} done already")
        return
    held = [load(oof_path(recipe.name, fold), labels.classes) for fold in folds if fold < recipe.n_folds]
    if not held:
        raise CompError(f"fold {folds[0]} of {recipe.name} holds no image out; add other folds with --folds")
    oof = concatenated(held, paths["oof"])
    expected = labels.ids[np.isin(fold_of, folds)]
    if extra := sorted(set(oof.ids.tolist()) - set(expected.tolist())):
        raise CompError(
            f"out-of-fold predictions hold ids of other folds: {summarize(extra)}; run `comp predict --force`"
        )
    oof = Predictions(expected, oof.classes, aligned(oof, expected, paths["oof"]), oof.numbers)
    test_ids = data.test_ids(competition)
    tests = [test_path(recipe.name, fold) for fold in folds]
    probs = mean_of_folds(aligned(load(path, labels.classes), test_ids, path) for path in tests)
    save(paths["test"], Predictions(test_ids, labels.classes, probs, oof.numbers), stamp)
    save(paths["oof"], oof, stamp)
    info(f"blend: {len(oof.ids):,} held-out ids once each, {len(test_ids):,} test ids (mean of the folds)")


def blend_recipes(recipes: list[Recipe], *, name: str, how: str, force: bool) -> None:
    """Blend these recipes' runs by the best method, or by that which `how` names, and write the blend."""
    first, names = recipes[0], [recipe.name for recipe in recipes]
    check_members(recipes, name)
    stamps = {member: read_stamp(oof_path(member)) for member in names}
    if absent := [member for member, stamp in stamps.items() if stamp is None]:
        raise CompError(f"no predictions of {', '.join(absent)}; run `comp blend` for each alone first")
    data, labels, fold_of = read_training(first)
    folds_now = labels.fingerprint_of(fold_of)
    for member, made in stamps.items():
        if made and made.get("fold_of") != folds_now:
            raise CompError(f"{oof_path(member)} was blended with other folds than now; run its stages again")
    stamp = {
        "how": how,
        "members": {member: digest(made) for member, made in stamps.items()},
        "fold_of": folds_now,
        "labels": labels.fingerprint,
        "metric": first.competition.metric.stamp,
        "seed": first.seed,
        **({} if labels.answer_ids is None else {"aggregate": first.competition.submission.aggregate}),
        **({"code": code} if (code := digests([first.competition.metric.name], first.code)) else {}),
    }
    paths = {"oof": oof_path(name), "test": test_path(name)}
    if [is_done(path, stamp, force=force) for path in paths.values()] == [True, True]:
        info(f"blend: {name} done already")
        return
    test_ids, label_table = data.test_ids(first.competition), first.competition.labels
    held_out, test = [], []
    for member in names:
        known = load(oof_path(member), labels.classes)
        if extra := sorted(set(known.ids.tolist()) - set(labels.ids.tolist())):
            raise CompError(f"{oof_path(member)} has ids that the labels lack: {summarize(extra)}")
        held_out.append(aligned(known, labels.ids, oof_path(member)))
        test.append(aligned(load(test_path(member), labels.classes), test_ids, test_path(member)))
    blender = Blender(
        np.stack(held_out), labels.targets, fold_of,
        make_scorer(first.competition, labels.classes, first.code),
        SearchSettings(first.seed, storage=study_path(name), name=f"weights {digest(stamp)}"),
        is_single_label(labels.targets, exclusive_groups(label_table, labels.classes)),
        0 if label_table.empty else 1,
        labels.answer_ids, first.competition.submission.aggregate,
    )  # fmt: skip
    info(f"blend: {name}, {', '.join(names)}, {len(labels.ids):,} held-out images")
    with progress("blends", blender.n_steps(how)) as advance:
        result = blender.choose(how, partial(advance, 1))
    chosen = result.chosen
    probs = chosen.apply(np.stack(test)).astype(np.float32)
    save(paths["test"], replace(known, ids=test_ids, probs=probs), stamp)
    save(paths["oof"], replace(known, ids=labels.ids, probs=chosen.oof.astype(np.float32)), stamp)
    show(result, name, names, str(first.competition.metric))


def check_members(recipes: Sequence[Recipe], name: str) -> None:
    """Raise CompError unless these recipes can be blended under this name: one competition, the same
    folds."""
    first, names = recipes[0], [recipe.name for recipe in recipes]
    if len(set(names)) < len(names):
        raise CompError(f"a recipe is named twice: {', '.join(names)}")
    if name in names:
        raise CompError(f"--name {name} is a member's name; give the blend one of its own")
    for recipe in recipes[1:]:
        if recipe.competition.name != first.competition.name:
            raise CompError(
                f"{recipe.name} is of {recipe.competition.name}, {first.name} of {first.competition.name}"
            )
        if (recipe.n_folds, recipe.seed) != (first.n_folds, first.seed):
            raise CompError(
                f"{recipe.name} has n_folds = {recipe.n_folds} and seed = {recipe.seed}, {first.name} "
                f"{first.n_folds} and {first.seed}: what was held out in one was trained on in the other"
            )


def show(result: BlendChoice, name: str, members: Sequence[str], metric: str) -> None:
    """Print the blends' scores, and what each member adds to the plain mean."""
    chosen = result.chosen
    several = len(result.blends) > 1
    show_headline(f"blend: {name}", metric, result.score, chosen=several)
    info("")
    info("each method alone; * marks the chosen one" if several else "the method")
    methods = [f"{b.method} *" if several and b is chosen else b.method for b in result.blends]
    table(
        ["blend", "cross-fitted"],
        [[m, f"{b.scored.cross_fitted:.4f}"] for m, b in zip(methods, result.blends)],
    )
    info("")
    weights = [""] * len(members) if chosen.weights is None else [f"{w:.2f}" for w in chosen.weights]
    rows = [
        [member, f"{alone:.4f}", f"{gain:+.4f}", weight]
        for member, alone, gain, weight in zip(members, result.alone, result.gains, weights)
    ]
    table(["member", "alone", "gain to the mean", "weight"], rows)
