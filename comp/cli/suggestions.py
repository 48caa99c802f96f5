"""Errors of the command line that name what was probably meant: another command or option, or --set for a key
of the recipe."""

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

CHOICES = re.compile(r"invalid choice: '(?P<found>.*)' \(choose from (?P<known>.*)\)$", re.DOTALL)


class SuggestingParser(argparse.ArgumentParser):
    """A parser whose errors end with the most similar command, choice or option."""

    def error(self, message: str) -> NoReturn:
        """Print the message, with a suggestion in place of all choices, and exit with code 2."""
        if (wrong := CHOICES.search(message)) and (
            meant := _closest(wrong["found"], re.findall(r"[\w-]+", wrong["known"]))
        ):
            message = f"{message[: wrong.start()]}invalid choice: {wrong['found']!r}; did you mean {meant!r}?"
        super().error(message)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Return what was given. An option that the command lacks ends the process with a suggestion."""
        texts = list(sys.argv[1:] if args is None else args)
        given, unknown = self.parse_known_args(texts, namespace)
        if unknown:
            options = [text for text in unknown if text.startswith("--")]
            command = self._command(getattr(given, "stage", None))
            hint = command.suggest(options[0], texts) if options else ""
            command.error(hint or f"unrecognized arguments: {' '.join(unknown)}")
        return given

    def suggest(self, option: str, texts: Sequence[str]) -> str:
        """Return a message about an unknown option among the `texts` given: a key of the recipe needs --set;
        other names may be misspelt. Return "" if nothing is similar."""
        name, equals, value = option.partition("=")
        if not equals:
            following = texts[texts.index(option) + 1 :]
            value = following[0] if following and not following[0].startswith("-") else "VALUE"
        known = [text for action in self._actions if action.help != argparse.SUPPRESS
                 for text in action.option_strings]  # fmt: skip
        keys = _keys(name) if "--set" in known else {}
        if key := keys.get(name.lstrip("-").replace("-", "_")):
            return f"{name} is a key of the recipe: --set {key}={value}"
        if meant := _closest(name, known):
            return f"no option {name}; did you mean {meant}?"
        if meant := _closest(name.lstrip("-").replace("-", "_"), list(keys)):
            return f"no option {name}; did you mean --set {keys[meant]}={value}?"
        return ""

    def _command(self, name: str | None) -> "SuggestingParser":
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction) and name in action.choices:
                return action.choices[name]
        return self


def _keys(option: str) -> dict[str, str]:
    """Return the keys of a recipe as --set takes them, by what an option may call them: "epochs" and
    "phases.0.epochs" mean the latter. Of equal names, the recipe's own and those of phases come first."""
    from comp.config.reference import list_keys

    known: dict[str, str] = {}
    for key in sorted(list_keys(), key=lambda key: (key.name.count("."), not key.name.startswith("phases."))):
        known.setdefault(key.last, key.name)
        known.setdefault(key.name, key.name)
    asked = option.lstrip("-").replace("-", "_")
    first = re.sub(r"\.\d+\.", ".0.", asked)  # of a list, other numbers than 0 are as good
    return {**known, asked: asked} if first in known and first != asked else known


def _closest(name: str, known: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, known, 1, 0.6)), None)
