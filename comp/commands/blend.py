"""blend: the folds of a recipe put together, or several recipes.

Reads each fold's oof.npz and test.npz; writes runs/<recipe>/oof.npz (every held-out id exactly once) and
test.npz (the mean of the folds). Of several recipes it reads those, and writes the same for their blend, with
a recipe.toml for the stages that follow; the study of the weights is in study.log."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from comp.artifacts.files import write_text
from comp.artifacts.paths import oof_path, predicted_paths, run_dir, study_path, test_path
from comp.artifacts.predictions import Predictions, aligned, concatenated, load, save
from comp.artifacts.schemas import Predicted
from comp.artifacts.stamps import digest, is_done, read_stamp
from comp.config.loading import load_recipe, toml_text
from comp.config.recipe import Recipe
from comp.console import progress, say, table
from comp.data.manifest import read_training
from comp.decisions.blending import METHODS, best_blend, blend, weigh
from comp.decisions.cross_fitting import Weighed
from comp.decisions.selection import honest_choice
from comp.errors import CompError, some


def run(
    recipe: Recipe, *, folds: list[int], force: bool, others: list[str], name: str | None, how: str
) -> None:
    if others:
        recipes = [recipe, *map(load_recipe, others)]
        name = name or "_".join(r.name for r in recipes)
        blend_recipes(recipes, name=name, how=how, force=force)
        say(f"blend: next, `comp decide {run_dir(name) / 'recipe.toml'}`")
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
        stamps = [read_stamp(path, Predicted) or {} for path in predicted]
        if not all(stamps):
            raise CompError(f"fold {fold} of {recipe.name} has no predictions; run `comp predict` first")
        if fold < recipe.n_folds and stamps[0]["ids"] != digest(labels.ids[fold_of == fold]):
            raise CompError(
                f"{oof_path(recipe.name, fold)} is of other folds than now; run `comp train` again"
            )
        members[f"fold {fold}"] = digest(stamps)
    stamp = {"folds": folds, "members": members, "fold_of": digest(labels.ids, fold_of)}
    paths = {"oof": oof_path(recipe.name), "test": test_path(recipe.name)}
    if [is_done(path, stamp, force=force) for path in paths.values()] == [True, True]:
        say(f"blend: {recipe.name} done already")
        return
    held = [load(oof_path(recipe.name, fold), labels.classes) for fold in folds if fold < recipe.n_folds]
    if not held:
        raise CompError(f"fold {folds[0]} of {recipe.name} holds nothing out; name others too with --folds")
    oof = concatenated(held, paths["oof"])
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


def blend_recipes(recipes: list[Recipe], *, name: str, how: str, force: bool) -> None:
    """Weigh the ways to blend these recipes, all cross-fitted on their common folds, and write the best."""
    first, names = recipes[0], [recipe.name for recipe in recipes]
    target = first.model_copy(update={"name": name})
    if len(set(names)) < len(names):
        raise CompError(f"a recipe is named twice: {', '.join(names)}")
    if target.name in names:
        raise CompError(f"--name {target.name} is a member's name; give the blend one of its own")
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
    stamps = {recipe.name: read_stamp(oof_path(recipe.name)) for recipe in recipes}
    if absent := [member for member, stamp in stamps.items() if stamp is None]:
        raise CompError(f"no predictions of {', '.join(absent)}; run `comp blend` for each alone first")
    data, labels, fold_of = read_training(first)
    of_folds = digest(labels.ids, fold_of)
    for member, made in stamps.items():
        if made and made.get("fold_of") != of_folds:
            raise CompError(f"{oof_path(member)} was blended with other folds than now; run its stages again")
    stamp = {
        "how": how,
        "members": {member: digest(made) for member, made in stamps.items()},
        "fold_of": of_folds,
        "labels": digest(labels.ids, labels.classes, labels.targets),
        "metric": first.competition.metric.settings,
        "seed": first.seed,
    }
    paths = {"oof": oof_path(target.name), "test": test_path(target.name)}
    if [is_done(path, stamp, force=force) for path in paths.values()] == [True, True]:
        say(f"blend: {target.name} done already")
        return
    test_ids, metric = data.sample_ids(first.competition), first.competition.metric
    held_out, test = [], []
    for member in names:
        known = load(oof_path(member), labels.classes)
        if extra := sorted(set(known.ids.tolist()) - set(labels.ids.tolist())):
            raise CompError(f"{oof_path(member)} has ids that the labels lack: {some(extra)}")
        held_out.append(aligned(known, labels.ids, oof_path(member)))
        test.append(aligned(load(test_path(member), labels.classes), test_ids, test_path(member)))
    members, least = np.stack(held_out), 0 if first.competition.labels.empty else 1
    settings, single = metric.settings, first.competition.labels.single
    methods = list(METHODS) if how == "auto" else ["mean", how] if how != "mean" else ["mean"]
    say(f"blend: {target.name}, {', '.join(names)}, {len(labels.ids):,} held-out images")
    n_folds = len(np.unique(fold_of))
    n_steps = len(methods) * (n_folds + 1) + (n_folds if how == "auto" else 0) + 1 + 2 * len(names)
    with progress("blends", n_steps) as advance:
        blends = [
            blend(
                method,
                members,
                labels.targets,
                fold_of,
                **settings,
                single=single,
                least=least,
                seed=first.seed,
                storage=study_path(target.name),
                name=f"weights {digest(stamp)}",
                step=partial(advance, 1),
            )
            for method in methods
        ]
        chosen = best_blend(blends, labels.targets, **settings) if how == "auto" else blends[-1]
        write_text(run_dir(target.name) / "recipe.toml", toml_text(target))
        probs = chosen.apply(np.stack(test)).astype(np.float32)
        save(paths["test"], Predictions(test_ids, labels.classes, probs), stamp)
        save(paths["oof"], Predictions(labels.ids, labels.classes, chosen.oof.astype(np.float32)), stamp)
        honest = chosen.weighed.cross_fitted
        if how == "auto":

            def take(seen: Sequence[Weighed], targets: np.ndarray) -> Weighed:
                on_others = [replace(b, weighed=w) for b, w in zip(blends, seen)]
                advance(1)
                return best_blend(on_others, targets, **settings).weighed

            candidates = [b.weighed for b in blends]
            honest = honest_choice(candidates, labels.targets, fold_of, take, **settings).score

        def worth(probs: np.ndarray) -> float:
            advance(1)
            return weigh(
                probs, labels.targets, fold_of, **settings, single=single, least=least, seed=first.seed
            ).cross_fitted

        whole, rows = worth(members.mean(0)), []
        for i, member in enumerate(names):
            gain = whole - worth(np.delete(members, i, axis=0).mean(0))
            weight = "" if chosen.weights is None else f"{chosen.weights[i]:.2f}"
            rows.append([member, f"{worth(members[i]):.4f}", f"{gain:+.4f}", weight])
    say(f"blend: {target.name}, {metric} {honest:.4f} cross-fitted, by {chosen.method!r}")
    table(["blend", "cross-fitted"], [[b.method, f"{b.weighed.cross_fitted:.4f}"] for b in blends])
    table(["member", "alone", "gain to the mean", "weight"], rows)
