"""What `comp init` found: the entries of a TOML with the reason of each, and what is not known."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import pandas as pd


@dataclass
class Guess:
    """What a TOML is written from. Entries are (key, value, reason) by table; "" is the top."""

    entries: dict[str, list[tuple[str, Any, str]]] = field(default_factory=lambda: defaultdict(list))
    proposals: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # comments by table
    said: list[str] = field(default_factory=list)  # what was seen
    unknown: list[str] = field(default_factory=list)  # what was not, or is not in comp
    written: dict[str, str] = field(default_factory=dict)  # tables to write to the data folder, as CSV
    folders: tuple[str, ...] = ()  # templates of images whose paths hold the labels
    in_paths: pd.DataFrame | None = None  # these labels
    table: str = ""  # path of the table of labels in the contents; "" if paths hold the labels
    sample: str = ""  # path of the sample submission, or its name in `written`; "" if there is none
    blockers: list[str] = field(default_factory=list)  # those of `unknown` without which no stage works

    def add(self, table: str, key: str, value: Any, reason: str = "") -> None:
        self.entries[table].append((key, value, reason))

    def lacks(self, text: str, *, runs: bool = True) -> None:
        """Note what is not known, or not in comp; with `runs` False, no stage works without it."""
        self.unknown.append(text)
        self.blockers += [] if runs else [text]
