"""A guess as a commented TOML file."""

import textwrap
from typing import Any

from comp.config.loading import _toml
from comp.data.inspection.findings import Guess
from comp.safe_text import visible

WIDTH = 108  # characters


def toml_of(found: Guess, source: str) -> str:
    """Return the text of the file, with the reason of each value, and what is not known, as comments."""
    lines = [*_comment(f"Written by `comp init {source}`. `comp keys WORD` explains the keys.")]
    lines += [line for text in found.unknown for line in _comment(f"Not certain: {text}.")]
    for table in ("", "labels", "images", "submission", "metric"):
        if table and (found.entries[table] or found.proposals[table]):
            commented = "" if found.entries[table] else "# "
            lines += ["", f"{commented}[{table}]"]
        for key, value, reason in found.entries[table]:
            lines += _entry(key, value, reason)
        lines += [f"# {visible(line)}" for line in found.proposals[table] if line]
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, reason: str) -> list[str]:
    text = f"{key} = {_toml(value)}"
    note = f"  # {visible(reason)}" if reason else ""
    if len(text + note) <= WIDTH:
        return [text + note]
    before = _comment(reason) if reason else []
    if len(text) <= WIDTH or not isinstance(value, list):
        return [*before, text]
    return [*before, f"{key} = [", *(f"  {_toml(item)}," for item in value), "]"]


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(visible(text), WIDTH)]
