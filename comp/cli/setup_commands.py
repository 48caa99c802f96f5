"""The commands that need no run: init, show and keys."""

import argparse
from typing import Any

INIT = (
    "Looks at a competition's files, or with a SLUG at Kaggle's list of them and its tables, and writes a "
    "commented TOML: the table of labels, its ids and the form of its labels, groups, the images, the sample "
    "submission, and the metric where the competition is known. Says what it saw, and what it could not "
    "know. The file is read back before it is said to run."
)
SHOW = (
    "Prints the recipe with all its keys as TOML, and where each value comes from: the recipe's file, the "
    "one that it extends, its competition, --set, or the default."
)
KEYS = (
    "Lists the keys of a recipe and of its competition, as --set takes them, with type, default and a line."
)


def add_parsers(commands: Any, set_option: dict[str, Any]) -> None:
    """Add the parsers of init, show and keys; `set_option` holds the arguments of --set."""
    command = commands.add_parser("init", description=INIT)
    command.add_argument(
        "source",
        metavar="SLUG|FOLDER",
        help="the end of a competition's address on Kaggle, or a folder of its files",
    )
    command.add_argument(
        "--name",
        metavar="NAME",
        help="the competition's name here (default: that of the folder, or the slug)",
    )
    command.add_argument("--to", metavar="FILE", help="the TOML to write (default: NAME.toml)")
    command.add_argument("--force", action="store_true", help="replace the file")
    command = commands.add_parser("show", description=SHOW)
    command.add_argument(
        "recipe", metavar="RECIPE", help="a recipe's name, or the path of a recipe or competition TOML"
    )
    command.add_argument("--set", **set_option)
    command = commands.add_parser("keys", description=KEYS)
    command.add_argument("word", metavar="WORD", nargs="?", help="only keys with this in their name or text")
    command.add_argument("--markdown", action="store_true", help="as the page KEYS.md")


def run(given: argparse.Namespace) -> bool:
    """Run the command if it is one of these, and return whether it was."""
    if given.stage == "init":
        from comp.commands.init import run as write

        write(given.source, name=given.name, to=given.to, force=given.force)
    elif given.stage == "show":
        from comp.commands.show import run as show

        show(given.recipe, given.overrides)
    elif given.stage == "keys":
        from comp.commands.keys import run as list_them

        list_them(given.word, as_markdown=given.markdown)
    return given.stage in ("init", "show", "keys")
