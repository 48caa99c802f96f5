"""Run a command with its options: read the recipe, freeze the run's settings, call the command, and for
`comp run` all stages. The library (comp/api.py) and the command line both come here."""

import argparse
import importlib
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from comp.cli.command_help import ACTIONS, STAGES, STANDALONE
from comp.cli.options import OPTIONS, readers_of
from comp.errors import CompError, NoImages, TimeIsUp


def refuse_unread(given: argparse.Namespace) -> str:
    """Return what is wrong with options that the command does not read; '' if it reads all of them."""
    if given.stage in STANDALONE:
        return ""
    for option, (_, arguments) in OPTIONS.items():
        value = getattr(given, _name(option), None)
        readers = readers_of(option)
        if given.stage == "decide" and given.recipe is None and option in ("--to", "--force"):
            continue
        if given.stage not in readers and value not in (None, False, arguments.get("default")):
            return f"{option} is read by {', '.join(readers)}, not by {given.stage}"
    return ""


def run_command(given: argparse.Namespace) -> None:
    """Run a command. Raise CompError or TimeIsUp where it fails or is stopped."""
    if getattr(given, "rule", None):
        from comp.config.schema import current_rule

        given.rule = current_rule(given.rule)
    if given.stage != "train" and "WORLD_SIZE" in os.environ:
        _refuse_ranks(given.stage)
    if given.stage == "check":
        from comp.artifacts.run_recipe import read_recipe
        from comp.deadline import parse_budget

        recipe = read_recipe(given.recipe, given.overrides)
        _command("check").run(recipe, budget=parse_budget(given.budget))
        return
    if given.stage in STANDALONE:
        asked = {name: value for name, value in vars(given).items() if name != "stage"}
        _command(given.stage).run(**asked)
        return
    if given.stage == "decide" and given.recipe is None:
        _decide_files(given)
        return
    from comp.artifacts.run_recipe import read_recipe
    from comp.deadline import parse_budget

    def read(name: str) -> tuple[Any, dict[str, Any]]:
        recipe = read_recipe(name, given.overrides, given.as_run)
        budget = None if given.budget is None else parse_budget(given.budget)
        return recipe, {**vars(given), "folds": _folds(given.folds, recipe.n_networks), "budget": budget}

    if given.stage == "run":
        run_all_stages(given.recipe, read)
        return
    recipe, options = read(given.recipe)
    options["to"] = given.to or ("submission.csv" if given.stage == "infer" else None)
    run_stage(given.stage, recipe, options)


def run_stage(stage: str, recipe: Any, options: Mapping[str, Any]) -> None:
    """Run a command on a recipe. A stage of a run keeps the run's settings. Options that are left out have
    the defaults of the command line."""
    _run_stage(stage, recipe, {**_defaults(recipe), **options})


def run_all_stages(name: str, read: Callable[[str], tuple[Any, Mapping[str, Any]]]) -> str:
    """Run all stages of the recipe of this name, and return the name of the run. `read` returns its recipe
    and the options. Where the images can't be had, synthetic ones stand in if a recipe for them ships."""
    recipe, options = read(name)
    try:
        _run_all(recipe, options)
    except NoImages as error:
        from comp.config.loading import shipped
        from comp.console import info

        drawn = f"{name}-drawn"
        if options.get("send") or drawn not in shipped("recipes"):
            raise
        info(f"run: {error}")
        info(f"run: synthetic images (recipe {drawn}) stand in; their scores say nothing about {name}")
        recipe, options = read(drawn)
        _run_all(recipe, options)
    return recipe.name


def _defaults(recipe: Any) -> dict[str, Any]:
    """Return the options that the command line has where none is given."""
    found = {}
    for option, (_, arguments) in OPTIONS.items():
        flag = arguments.get("action") == "store_true"
        found[_name(option)] = arguments.get("default", False if flag else None)
    return {**found, "folds": list(range(recipe.n_networks))}


def _run_all(recipe: Any, given: Mapping[str, Any]) -> None:
    """Run all stages of a recipe, within the time budget of the options."""
    options = {**_defaults(recipe), **given}
    started = time.monotonic()

    def run_one(stage: str) -> None:
        left = options["budget"]
        if left is not None:
            left -= time.monotonic() - started
            if left <= 0:
                raise TimeIsUp(f"{stage}: not started")
        _run_stage(stage, recipe, {**options, "budget": left})

    _command("run").run(
        recipe,
        stages={stage: partial(run_one, stage) for stage in STAGES},
        send=options["send"],
        options={key: options[key] for key in ("folds", "rule", "how", "likeness")},
        force=options["force"],
    )


def _run_stage(stage: str, recipe: Any, options: Mapping[str, Any]) -> None:
    """Run a command on a recipe with the options that it reads; of members, one after the other."""
    wanted = {
        _name(option): options[_name(option)]
        for option, (readers, _) in OPTIONS.items()
        if stage in readers and option not in ("--set", "--as")
    }
    if stage in ACTIONS:
        wanted["action"] = options["action"]
    if stage == "blend":
        wanted["others"] = options.get("others", [])
    if stage == "explain":
        wanted["images"] = options["images"]
    if stage not in STAGES:
        _command(stage).run(recipe, **wanted)
        return
    from comp.artifacts.run_recipe import frozen
    from comp.training.model_stamp import IN_STAMP

    fixed = () if stage in ("train", "predict") else IN_STAMP  # these two compare them with the models
    with frozen(recipe, force=wanted.get("force", False), fixed=fixed):
        if stage in ("train", "predict") and recipe.members:
            _run_members(stage, recipe, wanted)
        else:
            _command(stage).run(recipe, **wanted)


def _run_members(stage: str, recipe: Any, wanted: dict[str, Any]) -> None:
    """Run a command on the members of a recipe, one after the other, within one time budget."""
    run, started = _command(stage).run, time.monotonic()
    for member in recipe.members:
        if wanted["budget"] is not None and time.monotonic() - started > wanted["budget"]:
            raise TimeIsUp(f"{member.name}: not started")
        left = None if wanted["budget"] is None else wanted["budget"] - (time.monotonic() - started)
        run(member, **{**wanted, "budget": left})


def _refuse_ranks(stage: str) -> None:
    from comp.compute.devices import in_ranks

    if in_ranks():
        hint = "; start it once per GPU, on one --storage" if stage == "tune" else ""
        raise CompError(f"torchrun is for `comp train` alone; leave it out{hint}")


def _decide_files(given: argparse.Namespace) -> None:
    """Run `comp decide` on the tables of another program."""
    if not (given.probs and given.labels):
        raise CompError("a RECIPE, or --probs FILE with --labels FILE, is expected")
    if given.thresholds:
        raise CompError("--thresholds goes with a RECIPE, not with --probs")
    decide = _command("decide")
    names = ("probs", "labels", "rule", "fold_file", "apply", "sample", "exclusive", "force")
    metric = decide.named_metric(given.metric, given.beta, given.average, given.zero_division)
    asked = {name: getattr(given, name) for name in names}
    decide.run_on_files(decide.TableRequest(**asked, metric=metric, to=given.to or "decision.json"))


def _command(name: str) -> Any:
    """Import the command's module, with its libraries, which may take seconds."""
    from comp.console import announce_if_slow

    with announce_if_slow(f"{name}: loading its libraries"):
        return importlib.import_module(f"comp.commands.{name.replace('-', '_')}")


def _name(option: str) -> str:
    """Return the attribute that argparse gives an option."""
    dest = OPTIONS[option][1].get("dest", option.lstrip("-"))
    return dest.replace("-", "_")


def _folds(text: str | None, n_folds: int) -> list[int]:
    if text is None:
        return list(range(n_folds))
    numbers = text.replace(" ", "").split(",")
    if not all(n.isdigit() and int(n) < n_folds for n in numbers):
        raise CompError(f"--folds {text}: numbers from 0 to {n_folds - 1}, separated by commas, are expected")
    return sorted({int(n) for n in numbers})
