"""Optuna studies in journal files that a killed process cannot break."""

import json
import time
from pathlib import Path
from typing import Any

from comp.errors import CompError

LOCK_GRACE = 10.0  # seconds after which the lock of a killed process is taken over


def open_journal(path: Path) -> Any:
    """Return the journal file as an Optuna storage. A half-written last line, left by a killed process, is
    cut off. Raise CompError for a file that is damaged or not a journal."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    path = path.resolve()  # Optuna's lock is a link to the path as given
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_bytes()[:1] not in (b"", b"{"):
        raise CompError(
            f"{path} is not an Optuna journal; name another file, or a database as sqlite:///FILE"
        )
    if (size := _cut_at(path)) is not None:
        time.sleep(0.2)
        if _cut_at(path) == size:  # no process is writing it
            with path.open("r+b") as file:
                file.truncate(size)
    lock = JournalFileSymlinkLock(str(path), grace_period=LOCK_GRACE)  # type: ignore[arg-type]
    content = path.read_bytes() if path.exists() else b""
    try:
        if content.endswith(b"\n"):
            json.loads(content.splitlines()[-1])  # Optuna passes over it, until it is no longer the last
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except Exception as error:  # an edited file makes Optuna raise nearly anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CompError(f"{path} is damaged ({reason}); remove it to restart the search") from error


def _cut_at(path: Path) -> int | None:
    """Return how many bytes of the file are complete lines; None if all are."""
    content = path.read_bytes() if path.exists() else b""
    return None if not content or content.endswith(b"\n") else content.rfind(b"\n") + 1
