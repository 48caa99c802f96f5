"""Texts of several labels, split; what is hardly the name of one label is refused."""

import ast
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from comp.errors import CompError, summarize

SEPARATORS = (" ", ",", "/", "+", "&", "-", "_")  # may separate labels or be part of a name


def split_tags(texts: Sequence[str], classes: Sequence[str], separator: str | None) -> list[list[str]]:
    """Return the tags of each text. If all texts are lists, as Python and JSON write them, these are their
    items. If all texts are in quotation marks, these are removed first."""
    unknown = set(texts) - {"", *classes}
    lists: dict[str, list[str]] = {}
    if all(text[0] in "[({" and text[-1] in "])}" for text in unknown):
        lists = {text: tags for text in unknown if (tags := _listed(text)) is not None}
        lists = lists if len(lists) == len(unknown) else {}
    elif all(text[0] in "'\"" and text.count(text[0]) == 2 and text[-1] == text[0] for text in unknown):
        texts = [text[1:-1] if text in unknown else text for text in texts]
    parts = (
        lists[text] if text in lists else [text] if separator is None else text.split(separator)
        for text in texts
    )  # fmt: skip
    return [[tag for tag in (t.strip() for t in row) if tag] for row in parts]


def _listed(text: str) -> list[str] | None:
    """Return ['red', 'blue'] for "['red', 'blue']", or None for a text that is not a list of texts or
    integers."""
    if re.search(r"""['"]\s+['"]""", text):  # numpy writes lists without commas
        return None
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(value, list | tuple | set) or any(type(tag) not in (str, int) for tag in value):
        return None
    return [str(tag) for tag in value]


def check_names(tags: Collection[str], separator: str | None, line_of: Callable[[str], str]) -> None:
    """Raise CompError for a tag that is hardly the name of one label."""
    joints = [] if separator is None else ["|", ";", "\t", "\n", *([","] if separator == " " else [])]
    for tag in sorted(tags):
        where, shown = line_of(tag), repr(tag[:60])
        if tag.lower() in ("nan", "<na>", "null"):
            raise CompError(
                f"{where}: the label {shown} looks like an empty cell; leave the cell "
                "empty, set labels.none if it means no label, or list it in labels.classes"
            )
        if tag[0] in "[{'\"" or tag[-1] in "]}'\"" or tag.count("(") != tag.count(")"):
            raise CompError(
                f"{where}: the label {shown} has brackets or quotation marks around it; write labels "
                f"as a{separator or ' '}b, or list it in labels.classes if that is its name"
            )
        if joint := next((joint for joint in joints if joint != separator and joint in tag), None):
            raise CompError(
                f"{where}: the label {shown} looks like several; set separator = {joint!r} if that "
                f"separates them (now it is {separator!r}), or list it in labels.classes if it is one label"
            )


def check_sets(split: list[list[str]], separator: str | None, path: Path) -> None:
    """Raise CompError if sets of labels seem to be read as single labels, because the separator is wrong."""
    seen = {tag for tags in split for tag in tags}
    for joint in SEPARATORS if separator is not None else ():
        parts = {tag: {part.strip() for part in tag.split(joint)} - {""} for tag in seen if joint in tag}
        sets = sorted(tag for tag, names in parts.items() if len(names) > 1 and names <= seen)
        if not sets and joint not in "-_" and max(map(len, split)) == 1:
            names = set().union(seen - parts.keys(), *parts.values())
            sets = sorted(parts) if len(names) < len(seen) else []
        if sets and joint != separator:
            raise CompError(
                f"{path} has labels that look like several others: {summarize(sets)}; set separator = "
                f"{joint!r} if that separates them (now it is {separator!r}), labels.single = true if "
                "each text is one label, or list the labels in labels.classes"
            )
    if len(seen) == sum(map(len, split)) >= 10:
        raise CompError(
            f"{path}: each of its {len(seen)} labels is in one row only: {summarize(sorted(seen))}; set "
            "labels.column and separator to those of the file, or list the labels in labels.classes"
        )
