"""An Optuna study in a journal file that a killed process cannot break."""

import json
import time
from pathlib import Path
from typing import Any

from comp.errors import CompError

GRACE = 10.0  # seconds after which the lock of a process that was killed is taken over


def _journal(path: Path) -> Any:
    """The journal file as storage. The end of a line that a killed process left half-written is cut off."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    path = path.resolve()  # Optuna's lock is a link, which from another folder would lead nowhere
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.read_bytes()[:1] not in (b"", b"{"):
        raise CompError(f"{path} is no journal of Optuna; name another file, or a database as sqlite:///FILE")
    if (size := _cut_at(path)) is not None:
        time.sleep(0.2)
        if _cut_at(path) == size:  # nobody is writing it on
            with path.open("r+b") as file:
                file.truncate(size)
    lock = JournalFileSymlinkLock(str(path), grace_period=GRACE)  # type: ignore[arg-type]
    content = path.read_bytes() if path.exists() else b""
    try:
        if content.endswith(b"\n"):
            json.loads(content.splitlines()[-1])  # Optuna passes over it, until it is no longer the last
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except Exception as error:  # what was edited makes Optuna raise nearly anything
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CompError(f"{path} is damaged ({reason}); remove it, and the search begins anew") from error


def _cut_at(path: Path) -> int | None:
    """How many bytes of the file are whole lines, unless all are."""
    content = path.read_bytes() if path.exists() else b""
    return None if not content or content.endswith(b"\n") else content.rfind(b"\n") + 1
