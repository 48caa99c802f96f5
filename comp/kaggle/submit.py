"""A submission's way to Kaggle and its scores' way back: never sent twice by accident, never lost from the
ledger. What is about to happen is written there before it happens."""

import time
from datetime import UTC, datetime, timedelta

from comp.artifacts.files import locked
from comp.artifacts.paths import submission_path, submissions_dir
from comp.console import clock, say
from comp.errors import CompError
from comp.kaggle import ledger
from comp.kaggle.client import Kaggle, Submission
from comp.kaggle.errors import Absent, NotSent, Uncertain
from comp.kaggle.ledger import Row

SETTLE = 20.0  # seconds after which a submission that Kaggle was given shows up in its list
POLL = (1.0, 10.0)  # seconds between two looks at a score: at first, and later


def send(name: str, slug: str, message: str, *, again: bool, wait: float) -> Row:
    """Send submissions/<name>.csv, which the ledger knows, and wait up to `wait` seconds for its score; give
    its row of the ledger.

    A file that was sent before is not sent again, unless `again`. Raises CompError where Kaggle refuses
    it."""
    with locked(submissions_dir() / ".send.lock", "sending a submission"):
        kaggle, row = _sent(name, slug, message, again=again)
    return wait_for(kaggle, row, wait)


def _sent(name: str, slug: str, message: str, *, again: bool) -> tuple[Kaggle, Row]:
    """The row of a submission that Kaggle has."""
    rows = [row for row in ledger.read() if row["name"] == name]
    unsettled = next((row for row in rows if row["status"] == "sending"), None)
    sent = [row for row in rows if row["ref"]]
    kaggle = Kaggle()
    if unsettled is None and sent and not again:
        say(f"submit: {name} was sent already, as submission {sent[-1]['ref']}; --again sends it once more")
        return kaggle, sent[-1]
    if unsettled:
        say(f"submit: whether {name} arrived before is not known; looking for it on Kaggle")
    if unsettled or not sent:
        began = datetime.fromisoformat(unsettled["sent"]) if unsettled else None
        if found := find(kaggle, slug, name, began):
            row = _adopted(unsettled or ledger.update(rows[0], sent=ledger.now(), slug=slug), found)
            if unsettled or not again:
                say(f"submit: {name} is on Kaggle already, as submission {found.ref}; it is not sent again")
                return kaggle, row
            rows = [row]
    row = unsettled or next((row for row in rows if not row["ref"]), rows[-1])
    return kaggle, _send(kaggle, row, slug, message)


def _send(kaggle: Kaggle, row: Row, slug: str, message: str) -> Row:
    limits = kaggle.limits(slug)
    used = f"{limits.used} submission{'s are' if limits.used != 1 else ' is'} used today, {limits.left} left"
    if limits.left < 1:
        raise CompError(f"{slug}: {used}; the next day begins in {clock(_until_midnight())} (00:00 UTC)")
    say(f"submit: {used}; sending {submission_path(row['name'])}")
    cells = {"status": "sending", "slug": slug, "message": message, "sent": ledger.now()}
    if row["ref"]:  # sent before: this one is a row of its own
        row = {**row, "ref": "", "public": "", "private": "", "sent": cells["sent"]}
    row = ledger.update(row, **cells)
    try:
        ref = kaggle.submit(slug, submission_path(row["name"]), message)
    except NotSent as error:
        ledger.update(row, status="")
        raise CompError(f"{row['name']} was not sent: {error}") from error
    except Uncertain as error:
        found = find(kaggle, slug, row["name"], datetime.fromisoformat(row["sent"]))
        if not found:
            ledger.update(row, status="")
            raise CompError(
                f"{row['name']} was sent, but is not among the submissions on Kaggle ({error}); "
                "is the day's limit reached? run again to send it"
            ) from error
        return _adopted(row, found)
    say(f"submit: sent, as submission {ref}")
    return ledger.update(row, ref=ref, status="pending")


def find(kaggle: Kaggle, slug: str, name: str, sent: datetime | None) -> Submission | None:
    """The submission of this name on Kaggle that the ledger has no number of. One that was sent a moment ago
    is given time to appear."""
    known = {row["ref"] for row in ledger.read()}
    age = (datetime.now(UTC) - sent).total_seconds() if sent else SETTLE
    deadline = time.monotonic() + SETTLE - max(0.0, age)  # clocks may have been set back since
    while True:
        for found in kaggle.submissions(slug):
            if found.file_name == submission_path(name).name and str(found.ref) not in known:
                return found
        if time.monotonic() >= deadline:
            return None
        time.sleep(1.0)


def wait_for(kaggle: Kaggle, row: Row, wait: float) -> Row:
    """The row with its scores, once Kaggle has them, or as it is after `wait` seconds."""
    if row["status"] == "complete":
        return row
    deadline, pause = time.monotonic() + wait, POLL[0]
    while True:
        found = kaggle.submission(int(row["ref"]))
        if found.status != "pending":
            row = _adopted(row, found)
            if found.status == "error":
                reason = found.error or "no reason was given"
                raise CompError(f"Kaggle could not score {row['name']} (submission {row['ref']}): {reason}")
            return row
        if time.monotonic() + pause > deadline:
            say(f"submit: no score after {clock(wait)}; `comp ledger --sync` fetches it later")
            return row
        time.sleep(pause)
        pause = min(1.5 * pause, POLL[1])


def sync() -> int:
    """Fetch what Kaggle knows by now of submissions without scores; give how many rows changed."""
    waiting = [row for row in ledger.read() if row["status"] in ("sending", "pending") or _unscored(row)]
    if not waiting:
        return 0
    kaggle, n_changed = Kaggle(), 0
    for row in waiting:
        try:
            if row["ref"]:
                found: Submission | None = kaggle.submission(int(row["ref"]))
            else:
                found = find(kaggle, row["slug"], row["name"], None)
        except Absent as error:
            say(f"ledger: {row['name']}: {error}")
            continue
        if found and _adopted(row, found) != row:
            n_changed += 1
    return n_changed


def _unscored(row: Row) -> bool:
    return row["status"] == "complete" and not row["private"]


def _adopted(row: Row, found: Submission) -> Row:
    return ledger.update(
        row, ref=row["ref"] or found.ref, status=found.status, public=found.public, private=found.private
    )


def _until_midnight() -> float:
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - now).total_seconds()
