"""Send a submission to Kaggle and wait for its scores. The ledger records each step before it happens, so
that a killed command neither sends a file twice nor loses it."""

import time
from datetime import UTC, datetime, timedelta

from comp.artifacts.files import lock
from comp.artifacts.paths import submission_path, submissions_dir
from comp.console import clock, info
from comp.errors import CompError
from comp.kaggle import ledger
from comp.kaggle.client import Kaggle, Submission
from comp.kaggle.errors import MaybeSent, NotFound, NotSent
from comp.kaggle.ledger import Row

SETTLE_SECONDS = 20.0  # seconds until a new submission appears in Kaggle's list
POLL_SECONDS = (1.0, 10.0)  # seconds between two polls: at first, and at most


def send(name: str, slug: str, message: str, *, again: bool, wait: float) -> Row:
    """Send submissions/<name>.csv, which has a row in the ledger, and wait up to `wait` seconds for its
    score; return its row.

    A file that was sent before is sent again only with `again`. Raise CompError if Kaggle refuses it."""
    with lock(submissions_dir() / ".send.lock", "sending a submission"):
        kaggle, row = _send_once(name, slug, message, again=again)
    return wait_for(kaggle, row, wait)


def _send_once(name: str, slug: str, message: str, *, again: bool) -> tuple[Kaggle, Row]:
    """Return the client and the row of the submission, which is on Kaggle afterwards."""
    rows = [row for row in ledger.read() if row["name"] == name]
    unsettled = next((row for row in rows if row["status"] == "sending"), None)
    sent = [row for row in rows if row["ref"]]
    kaggle = Kaggle()
    if unsettled is None and sent and not again:
        info(f"submit: {name} was sent before as submission {sent[-1]['ref']}; --again sends it again")
        return kaggle, sent[-1]
    if unsettled:
        info(f"submit: {name} may have arrived before; looking for it on Kaggle")
    if unsettled or not sent:
        began = datetime.fromisoformat(unsettled["sent"]) if unsettled else None
        if found := find(kaggle, slug, name, began):
            row = _record(unsettled or ledger.update(rows[0], sent=ledger.now(), slug=slug), found)
            if unsettled or not again:
                info(f"submit: {name} is on Kaggle already as submission {found.ref}; not sent again")
                return kaggle, row
            rows = [row]
    row = unsettled or next((row for row in rows if not row["ref"]), rows[-1])
    return kaggle, _send(kaggle, row, slug, message)


def _send(kaggle: Kaggle, row: Row, slug: str, message: str) -> Row:
    limits = kaggle.get_limits(slug)
    used = f"{limits.used} submission{'s' if limits.used != 1 else ''} used today, {limits.left} left"
    if limits.left < 1:
        raise CompError(f"{slug}: {used}; the limit resets in {clock(_until_midnight())} (00:00 UTC)")
    info(f"submit: {used}; sending {submission_path(row['name'])}")
    cells = {"status": "sending", "slug": slug, "message": message, "sent": ledger.now()}
    if row["ref"]:  # sent before: this one gets its own row
        row = {**row, "ref": "", "public": "", "private": "", "sent": cells["sent"]}
    row = ledger.update(row, **cells)
    try:
        ref = kaggle.submit(slug, submission_path(row["name"]), message)
    except NotSent as error:
        ledger.update(row, status="")
        raise CompError(f"{row['name']} was not sent: {error}") from error
    except MaybeSent as error:
        found = find(kaggle, slug, row["name"], datetime.fromisoformat(row["sent"]))
        if not found:
            ledger.update(row, status="")
            raise CompError(
                f"{row['name']} was sent, but is not among the submissions on Kaggle ({error}); the daily "
                "limit may be reached: run again to send it"
            ) from error
        return _record(row, found)
    info(f"submit: sent as submission {ref}")
    return ledger.update(row, ref=ref, status="pending")


def find(kaggle: Kaggle, slug: str, name: str, sent: datetime | None) -> Submission | None:
    """Return the submission of this name on Kaggle whose number is not in the ledger, or None. Wait for one
    that was sent less than SETTLE_SECONDS ago to appear."""
    known = {row["ref"] for row in ledger.read()}
    age = (datetime.now(UTC) - sent).total_seconds() if sent else SETTLE_SECONDS
    deadline = time.monotonic() + SETTLE_SECONDS - max(0.0, age)  # clocks may be set back
    while True:
        for found in kaggle.list_submissions(slug):
            if found.file_name == submission_path(name).name and str(found.ref) not in known:
                return found
        if time.monotonic() >= deadline:
            return None
        time.sleep(1.0)


def wait_for(kaggle: Kaggle, row: Row, wait: float) -> Row:
    """Return the row with its scores, or as it is after `wait` seconds. Raise CompError if scoring failed."""
    if row["status"] == "complete":
        return row
    deadline, pause = time.monotonic() + wait, POLL_SECONDS[0]
    while True:
        found = kaggle.get_submission(int(row["ref"]))
        if found.status != "pending":
            row = _record(row, found)
            if found.status == "error":
                reason = found.error or "no reason given"
                raise CompError(f"Kaggle could not score {row['name']} (submission {row['ref']}): {reason}")
            return row
        if time.monotonic() + pause > deadline:
            info(f"submit: no score after {clock(wait)}; `comp ledger --sync` fetches it later")
            return row
        time.sleep(pause)
        pause = min(1.5 * pause, POLL_SECONDS[1])


def sync() -> int:
    """Fetch the state of all submissions without scores; return how many rows changed."""
    waiting = [row for row in ledger.read() if row["status"] in ("sending", "pending") or _lacks_score(row)]
    if not waiting:
        return 0
    kaggle, n_changed = Kaggle(), 0
    for row in waiting:
        try:
            if row["ref"]:
                found: Submission | None = kaggle.get_submission(int(row["ref"]))
            else:
                found = find(kaggle, row["slug"], row["name"], None)
        except NotFound as error:
            info(f"ledger: {row['name']}: {error}")
            continue
        if found and _record(row, found) != row:
            n_changed += 1
    return n_changed


def _lacks_score(row: Row) -> bool:
    return row["status"] == "complete" and not row["private"]


def _record(row: Row, found: Submission) -> Row:
    return ledger.update(
        row, ref=row["ref"] or found.ref, status=found.status, public=found.public, private=found.private
    )


def _until_midnight() -> float:
    now = datetime.now(UTC)
    midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight - now).total_seconds()
