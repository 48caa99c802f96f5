"""keys: every key of a recipe, with type, default and a line."""

import textwrap

from comp.config.reference import list_keys
from comp.config.reference import markdown as markdown_page
from comp.config.schema import did_you_mean
from comp.console import console
from comp.errors import CompError

KEY_WIDTH = 42  # characters
DEFAULT = {"required": "", "unset": ""}  # words before a default in words


def run(*, word: str | None, markdown: bool) -> None:
    keys = list_keys()
    if word:
        found = [key for key in keys if word.lower() in f"{key.name} {key.text}".lower()]
        if not found:
            hint = did_you_mean(word, [key.last for key in keys]) or "; `comp keys` lists all keys"
            raise CompError(f"no key has {word!r} in its name or text{hint}")
        keys = found
    if markdown:
        print(markdown_page(keys), end="")
        return
    width, table = max(console().width, KEY_WIDTH + 30), ""
    for key in keys:
        if key.table != table:
            print(("\n" if table else "") + f"{key.table}:")
            table = key.table
        start = f"  {key.name} = {key.value}" if key.value else f"  {key.name}"
        says_unset = key.note == "unset" and "unset:" in key.text
        kind = (
            key.type
            if key.value or says_unset
            else f"{key.type}, {DEFAULT.get(key.note, 'default: ')}{key.note}"
        )
        lines = textwrap.wrap(f"{kind}. {key.text}", width - KEY_WIDTH)
        if len(start) >= KEY_WIDTH:
            print(start)
            start = ""
        print(f"{start:<{KEY_WIDTH}}{lines[0]}")
        for line in lines[1:]:
            print(" " * KEY_WIDTH + line)
