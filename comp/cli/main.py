"""The `comp` command line: parse, dispatch, exit codes. Commands are imported when they run, so that help is
instant."""

import argparse
import importlib
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from comp import __version__
from comp.cli import setup_commands
from comp.cli.help import ABOUT, ACTIONS, BENCH, BESIDES, COMPARE, DETAILS, EPILOG, LEDGER, OTHERS, STAGES
from comp.cli.options import OPTIONS, TABLES
from comp.cli.suggestions import SuggestingParser
from comp.errors import CompError, TimeIsUp
from comp.safe_text import sanitize


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    width = argparse.RawDescriptionHelpFormatter
    lists = ["".join(f"  {name:<12}{line}\n" for name, line in part.items()) for part in (STAGES, OTHERS)]
    top = SuggestingParser(
        prog="comp", description=ABOUT + BESIDES.join(lists), epilog=EPILOG, formatter_class=width
    )
    top.add_argument("--version", action="version", version=f"comp {__version__}")
    stages = top.add_subparsers(dest="stage", metavar="STAGE", required=True, help="one of the above")
    for name, details in DETAILS.items():
        line = (STAGES | OTHERS)[name]
        note = "Options of other stages are ignored, so that run.sh can pass the same options to all stages."
        stage = stages.add_parser(name, description=f"{line[0].upper()}{line[1:]}. {details}", epilog=note)
        if name in ACTIONS:
            stage.add_argument("action", choices=ACTIONS[name], help="what to do")
        tables: dict[str, Any] = {"nargs": "?"} if name == "decide" else {}
        stage.add_argument(
            "recipe",
            metavar="RECIPE",
            help="a recipe's name, or the path of a recipe or competition TOML",
            **tables,
        )
        if name == "blend":
            stage.add_argument("others", metavar="RECIPE", nargs="*", help="more recipes to blend with it")
        if name == "explain":
            stage.add_argument("images", metavar="IMAGE", nargs="+", help="an image file")
        for option, arguments in TABLES.items() if name == "decide" else ():
            stage.add_argument(option, **arguments)
        for option, (readers, arguments) in OPTIONS.items():
            text = arguments["help"] if name in readers else argparse.SUPPRESS
            if isinstance(arguments["help"], dict):
                text = arguments["help"].get(name, argparse.SUPPRESS)
            stage.add_argument(option, **{**arguments, "help": text})
    setup_commands.add_parsers(stages, OPTIONS["--set"][1])
    command = stages.add_parser("ledger", description=LEDGER)
    command.add_argument("--sync", action="store_true", help="first fetch missing scores from Kaggle")
    command = stages.add_parser("compare", description=COMPARE)
    command.add_argument(
        "names", metavar="RUN", nargs="+", help="a finished run's name in runs/, or its recipe's TOML"
    )
    command.add_argument("--to", metavar="FILE", help="the picture (default: runs/compare-<names>.png)")
    command.add_argument("--force", action="store_true", help="replace the file that --to names")
    command = stages.add_parser("bench", description=BENCH)
    command.add_argument("subject", choices=("decide", "speed", "tricks"), help="what to measure")
    command.add_argument(
        "recipe", metavar="RECIPE", nargs="?", default="demo", help="for speed and tricks (default: demo)"
    )
    command.add_argument("--set", **OPTIONS["--set"][1])
    command.add_argument(
        "--fastai", metavar="PYTHON", help="for speed: also time fastai, which this Python has"
    )
    command.add_argument(
        "--tricks", metavar="FILE", help='for tricks: a file of TOML lines such as mixup = ["mixup=0.2"]'
    )
    command.add_argument(
        "--images",
        type=int,
        default=12_000,
        help="for tricks: how many images, sampled once (default: 12000)",
    )
    command.add_argument("--seeds", type=int, default=3, help="for tricks: how many seeds (default: 3)")
    command.add_argument("--probs", metavar="FILE", help="for decide: out-of-fold probabilities")
    command.add_argument("--labels", metavar="FILE", help="for decide, with --probs: the true labels")
    command.add_argument(
        "--large", action="store_true", help="for decide: also 110,000 images with 1,103 classes"
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code."""
    given = parser().parse_args(arguments)
    try:
        if arguments is None and (storage := getattr(given, "storage", None)):
            _hide_password(storage)
        _run(given)
    except CompError as error:
        print(sanitize(f"comp {given.stage}: {error}"), file=sys.stderr)
        return error.code
    except TimeIsUp as stop:
        print(
            sanitize(f"comp {given.stage}: the time is up ({stop}); run it again to resume"), file=sys.stderr
        )
        return 3
    except KeyboardInterrupt:
        print(f"comp {given.stage}: stopped; run it again to resume", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        reason = f"{error.filename or 'system'}: {error.strerror or error}"
        print(sanitize(f"comp {given.stage}: {reason}"), file=sys.stderr)
        return 1
    return 0


def _hide_password(storage: str) -> None:
    """Restart the process with the database's URL, which may hold a password, in an environment variable:
    everyone on the machine can list arguments, and trackers log them."""
    if os.name == "posix" and ("@" in storage or "=" in storage):
        os.environ["COMP_STORAGE"] = storage
        os.execv(sys.executable, [part.replace(storage, "$COMP_STORAGE") for part in sys.orig_argv])


def _command(name: str) -> Any:
    """Import the command's module, with its libraries, which may take seconds."""
    from comp.console import announce_if_slow

    with announce_if_slow(f"{name}: loading its libraries"):
        return importlib.import_module(f"comp.commands.{name.replace('-', '_')}")


def _run(given: argparse.Namespace) -> None:
    if setup_commands.run(given):
        return
    if getattr(given, "rule", None):
        from comp.config.schema import current_rule

        given.rule = current_rule(given.rule)
    if given.stage == "ledger":
        _command("ledger").run(sync=given.sync)
        return
    if given.stage == "compare":
        _command("compare").run(given.names, to=given.to, force=given.force)
        return
    if given.stage == "bench":
        asked = {name: value for name, value in vars(given).items() if name != "stage"}
        _command("bench").run(**asked)
        return
    if given.stage == "decide" and given.recipe is None:
        if not (given.probs and given.labels):
            raise CompError("a RECIPE, or --probs FILE with --labels FILE, is expected")
        decide = _command("decide")
        names = ("probs", "labels", "rule", "fold_file", "apply", "exclusive", "force")
        metric = decide.FBeta(given.beta, given.average, given.zero_division)
        asked = {name: getattr(given, name) for name in names}
        decide.run_on_files(decide.TableRequest(**asked, metric=metric, to=given.to or "decision.json"))
        return
    from comp.config.loading import load_recipe
    from comp.deadline import parse_budget

    recipe = load_recipe(given.recipe, given.overrides)
    options = {
        **vars(given),
        "folds": _folds(given.folds, recipe.n_networks),
        "to": given.to or ("submission.csv" if given.stage == "infer" else None),
        "budget": None if given.budget is None else parse_budget(given.budget),
    }
    wanted = {
        (name := arguments.get("dest", option.lstrip("-"))): options[name]
        for option, (readers, arguments) in OPTIONS.items()
        if given.stage in readers and option != "--set"
    }
    if given.stage in ACTIONS:
        wanted["action"] = given.action
    if given.stage == "blend":
        wanted["others"] = given.others
    if given.stage == "explain":
        wanted["images"] = given.images
    run = _command(given.stage).run
    if given.stage not in ("train", "predict") or not recipe.members:
        run(recipe, **wanted)
        return
    started = time.monotonic()
    for member in recipe.members:
        if wanted["budget"] is not None and time.monotonic() - started > wanted["budget"]:
            raise TimeIsUp(f"{member.name}: not started")
        left = None if wanted["budget"] is None else wanted["budget"] - (time.monotonic() - started)
        run(member, **{**wanted, "budget": left})


def _folds(text: str | None, n_folds: int) -> list[int]:
    if text is None:
        return list(range(n_folds))
    numbers = text.replace(" ", "").split(",")
    if not all(n.isdigit() and int(n) < n_folds for n in numbers):
        raise CompError(f"--folds {text}: numbers from 0 to {n_folds - 1}, separated by commas, are expected")
    return sorted({int(n) for n in numbers})
