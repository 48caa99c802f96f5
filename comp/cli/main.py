"""The `comp` command line: parse, dispatch, exit codes. Commands are imported when they run, so that help is
instant."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from comp import __version__
from comp.cli.command_help import ABOUT, ACTIONS, BESIDES, DETAILS, EPILOG, OTHERS, STAGES, STANDALONE
from comp.cli.dispatch import refuse_unread, run_command
from comp.cli.options import OPTIONS, TABLES, help_by_command, help_of, readers_of
from comp.cli.standalone_options import STANDALONE_OPTIONS
from comp.cli.suggestions import SuggestingParser
from comp.errors import CompError, TimeIsUp
from comp.safe_text import sanitize
from comp.user_code import users_line


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
        stage = stages.add_parser(name, description=f"{line[0].upper()}{line[1:]}. {details}")
        if name in ACTIONS:
            stage.add_argument("action", choices=ACTIONS[name], help="what to do")
        tables: dict[str, Any] = {"nargs": "?"} if name == "decide" else {}
        stage.add_argument(
            "recipe",
            metavar="RECIPE",
            help="the name of a recipe or run, or the path of a recipe or competition TOML",
            **tables,
        )
        if name == "blend":
            stage.add_argument("others", metavar="RECIPE", nargs="*", help="more recipes to blend with it")
        if name == "explain":
            stage.add_argument("images", metavar="IMAGE", nargs="+", help="an image file")
        for option, arguments in TABLES.items() if name == "decide" else ():
            stage.add_argument(option, **arguments)
        for option, (_, arguments) in OPTIONS.items():
            shown = name in readers_of(option) or name in help_by_command(arguments)
            text = help_of(option, name) if shown else argparse.SUPPRESS
            stage.add_argument(option, **{**arguments, "help": text})
    for name, description in STANDALONE.items():
        command = stages.add_parser(name, description=description)
        for option, arguments in STANDALONE_OPTIONS[name].items():
            command.add_argument(option, **arguments)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, and return its exit code."""
    commands = parser()
    given = commands.parse_args(arguments)
    if wrong := refuse_unread(given):
        commands.error(wrong)
    try:
        if arguments is None and (storage := getattr(given, "storage", None)):
            _hide_password(storage)
        run_command(given)
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
    except Exception as error:
        if not (line := users_line(error)):
            raise
        print(sanitize(f"comp {given.stage}: {line}"), file=sys.stderr)
        return 1
    return 0


def _hide_password(storage: str) -> None:
    """Restart the process with the database's URL, which may hold a password, in an environment variable:
    everyone on the machine can list arguments, and trackers log them."""
    if os.name == "posix" and ("@" in storage or "=" in storage):
        os.environ["COMP_STORAGE"] = storage
        os.execv(sys.executable, [part.replace(storage, "$COMP_STORAGE") for part in sys.orig_argv])
