"""The checkpoint of a training, last.pt, and log.jsonl, which is written from it."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch

from comp.artifacts.files import atomic_write, parse_json, write_text
from comp.artifacts.paths import log_path
from comp.artifacts.schemas import Epoch
from comp.compute.devices import is_out_of_memory
from comp.errors import CompError

RETRAIN = "remove it to train this fold from the start"


class _Writer:
    """A file that torch writes to. It keeps the error of a full disk, which torch would report as its own."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        if not self.error:
            try:
                self.file.write(content)
            except OSError as error:
                self.error = error
        return len(content)

    def flush(self) -> None:
        pass


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write last.pt. Raise CompError where the disk is full."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        writer = _Writer(file)
        torch.save(state, writer)  # type: ignore[arg-type]
        if writer.error:
            raise writer.error


def load_checkpoint(path: Path, stamp: Mapping[str, Any], device: torch.device) -> dict[str, Any] | None:
    """Return what `save_checkpoint` wrote; None if the file is missing or has another stamp."""
    if not path.exists():
        return None
    state = torch.load(path, map_location=device, weights_only=True)
    return state if json.loads(state["stamp"]) == stamp else None


def read_history(state: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """Return the rows of a checkpoint's epochs. Raise CompError where they don't fit the schema."""
    return parse_json(state["history"], f"{path}, history", list[Epoch], RETRAIN)


@contextlib.contextmanager
def damage_as_error(path: Path) -> Iterator[None]:
    """Raise CompError with the file's name for any error of a damaged checkpoint."""
    try:
        yield
    except CompError:
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CompError(f"{path} is damaged; {RETRAIN} ({reason})") from error


def write_log(recipe: str, fold: int, history: Sequence[Mapping[str, Any]]) -> None:
    """Write log.jsonl: one row per epoch."""
    write_text(log_path(recipe, fold), "".join(json.dumps(row) + "\n" for row in history))
