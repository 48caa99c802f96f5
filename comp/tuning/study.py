"""An Optuna study that several processes or machines share."""

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from comp.artifacts.files import is_held, lock, parse_json
from comp.artifacts.optuna_journal import open_journal
from comp.artifacts.safe_paths import inside
from comp.artifacts.schemas import KeptTrial
from comp.console import info
from comp.deadline import check_time
from comp.errors import CompError
from comp.safe_text import without_secrets

HEARTBEAT = 20.0  # seconds between two heartbeats of a trial
LOST_AFTER = 150.0  # seconds without a heartbeat after which another machine's trial is lost
STORAGE_FORMS = (
    "expected FILE, sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME, with @ : / ? and spaces in "
    "the password as %40 %3A %2F %3F %20"
)
ADDRESS_LIKE = re.compile(r"(?i)^[\w+]{2,}:/|:.*@|passw\w*\s*=")  # not a path, and may hold a password
MAX_LOST = 3  # give up on a trial lost this often in a row without progress: it may crash its process


class SharedStudy:
    """A study whose trials run in several processes or on several machines, each in a folder of its own.

    A trial whose process is gone is lost. It is tried again with the same values and folder, so it resumes
    from the files there. A lost trial of the same machine is recognised at once by its lock; one of another
    machine after LOST_AFTER seconds without a heartbeat, by this machine's clock. Optuna's own heartbeat
    works with databases only and needs Optuna's loop."""

    def __init__(
        self, storage: str, name: str, space: Mapping[str, Any], *, seed: int, pruner: Any, folder: Path
    ):
        """`space` holds Optuna's distributions by key. A trial's folder is made in `folder`. Its name starts
        with the part of the study's name after the last dash."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.folder, self.name = dict(space), folder, name
        self.here = f"{socket.gethostname()}:{folder.resolve()}"
        self.states = optuna.trial.TrialState
        self.beats: dict[
            int, tuple[Any, float]
        ] = {}  # by trial: the last heartbeat, and when it was first seen
        with storage_errors(storage):
            settings: dict[str, Any] = {
                "study_name": name,
                "storage": open_storage(storage),
                "sampler": _by_number(seed),
                "pruner": pruner,
            }
            try:
                self.study = optuna.create_study(**settings, direction="maximize")
                self.is_new = True
            except optuna.exceptions.DuplicatedStudyError:
                self.study = optuna.load_study(**settings)
                self.is_new = False
            for trial in self.study.get_trials(deepcopy=False):
                steps = trial.intermediate_values
                scores = [*steps.values(), *(trial.values or ())]
                about = json.dumps({**trial.user_attrs, "steps": list(steps), "scores": scores})
                parse_json(about, f"trial {trial.number} of the study {name}", KeptTrial, "remove the study")

    def trials(self, *states: str) -> list[Any]:
        """Return Optuna's frozen trials in these states, such as "COMPLETE", by number."""
        return self.study.get_trials(deepcopy=False, states=[self.states[state] for state in states])

    def start(self, values: dict[str, Any]) -> None:
        """Make sure that the study has a trial with these values."""

        def there() -> bool:
            trials = self.trials("COMPLETE", "PRUNED", "RUNNING", "WAITING")
            return any(_values(trial) == values for trial in trials)

        for _ in range(0 if self.is_new else 10):
            if not there():
                time.sleep(0.5)  # the process that created the study may be about to add it
        if not there():
            self.study.enqueue_trial(values)

    def next(self, n_trials: int, deadline: float) -> Any:
        """Return the next trial; None once `n_trials` of the study are complete or pruned. Wait while other
        processes' trials may be the last ones. Raise TimeIsUp at the deadline."""
        waited = False
        while True:
            for trial in self.trials("RUNNING"):
                if self._is_lost(trial):
                    self.requeue(trial.number, lost=True)
            n_done, n_running = len(self.trials("COMPLETE", "PRUNED")), len(self.trials("RUNNING"))
            if n_done >= n_trials:
                return None
            check_time(deadline, f"{n_done} of {n_trials} trials")
            if n_done + n_running < n_trials:
                trial = self.study.ask(self.space)
                before = [t for t in self.trials("COMPLETE", "PRUNED", "RUNNING") if t.number < trial.number]
                if len(before) < n_trials:
                    return trial
                self.requeue(trial.number)  # another process was faster
            if not waited:
                info(f"waiting for the last {n_running} trials, of other processes")
            waited = True
            time.sleep(1)

    def _is_lost(self, trial: Any) -> bool:
        if trial.user_attrs.get("at") == self.here:
            return not is_held(self._lock(trial.user_attrs["folder"]))
        beat, now = trial.user_attrs.get("beat"), time.monotonic()
        last, since = self.beats.get(trial.number, (None, now))
        if trial.number not in self.beats or last != beat:
            self.beats[trial.number] = beat, now
            return False
        return now - since > LOST_AFTER

    def _lock(self, folder: str) -> Path:
        return inside(self.folder, folder, "a trial of the study") / ".lock"

    def requeue(self, number: int, *, lost: bool = False) -> None:
        """End a trial, and queue its values again for the next free process."""
        try:
            self.study.tell(number, state=self.states.FAIL)
        except (ValueError, RuntimeError):  # it has ended meanwhile
            return
        trial = self.study.get_trials(deepcopy=False)[number]
        kept = {key: value for key, value in trial.user_attrs.items() if key in ("folder", "step", "losses")}
        if lost:
            step = max(trial.intermediate_values, default=0)
            losses = 1 if step > kept.get("step", 0) else kept.get("losses", 0) + 1
            if losses == MAX_LOST:
                info(f"trial {number} was lost {losses} times without progress; skipping it")
                return
            kept |= {"step": step, "losses": losses}
        self.study.enqueue_trial(_values(trial), user_attrs=kept)

    @contextlib.contextmanager
    def working_on(self, trial: Any) -> Iterator[str]:
        """Yield the name of the trial's folder, and send heartbeats inside the `with` block."""
        folder = trial.user_attrs.get("folder", f"{self.name.rpartition('-')[2]}-{trial.number}")
        ended = threading.Event()

        def beat() -> None:
            n = 0
            while not ended.wait(HEARTBEAT):
                n += 1
                with contextlib.suppress(Exception):  # the next heartbeat may succeed
                    trial.set_user_attr("beat", n)

        with lock(self._lock(folder), f"at work on trial {trial.number}"):
            trial.set_user_attr("folder", folder)
            trial.set_user_attr("at", self.here)
            thread = threading.Thread(target=beat, daemon=True)
            thread.start()
            try:
                yield folder
            finally:
                ended.set()
                thread.join()

    def find_duplicate_trial(self, trial: Any) -> Any:
        """Return a complete or pruned trial with the same values; None if there is none."""
        ended = self.trials("COMPLETE", "PRUNED")
        return next((other for other in ended if other.params == trial.params), None)

    def ended_folders(self) -> set[str]:
        """Return the folders of trials that won't resume."""
        live = {trial.user_attrs.get("folder") for trial in self.trials("RUNNING", "WAITING")}
        ended = {trial.user_attrs.get("folder") for trial in self.trials("COMPLETE", "PRUNED", "FAIL")}
        return ended - live - {None}


def _values(trial: Any) -> dict[str, Any]:
    """Return a trial's values, drawn or queued."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _by_number(seed: int) -> Any:
    """Return a TPE sampler that is seeded by each trial's number. Two processes never draw the same values,
    and a study that was stopped resumes as if it hadn't been."""
    from optuna.samplers import BaseSampler, TPESampler

    class ByNumber(BaseSampler):
        def before_trial(self, study: Any, trial: Any) -> None:
            self.tpe = TPESampler(seed=seed + trial.number)

        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            return self.tpe.infer_relative_search_space(study, trial)

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
            return self.tpe.sample_relative(study, trial, search_space)

        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            return self.tpe.sample_independent(study, trial, name, distribution)

    return ByNumber()


def open_storage(place: str) -> Any:
    """Return Optuna's storage in a journal file, or in the database of a URL. Raise CompError where it can't
    be opened; the message never holds a password."""
    if "://" not in place:
        if ADDRESS_LIKE.search(place):
            raise CompError(f"--storage is neither a path nor an address: {STORAGE_FORMS}")
        return open_journal(Path(place))
    if _url(place) is None:
        raise CompError(f"--storage: {storage_name(place)} can't be read as an address: {STORAGE_FORMS}")
    from optuna.storages import RDBStorage
    from sqlalchemy import event
    from sqlalchemy.exc import ArgumentError

    waiting = {"connect_args": {"timeout": 60}} if place.startswith("sqlite") else {}
    for attempt in range(3):
        try:
            # an epoch may outlast a server's idle timeout
            storage = RDBStorage(place, engine_kwargs={"pool_pre_ping": True, **waiting})
            if place.startswith("sqlite"):  # else two processes may both take a free trial
                event.listen(
                    storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE")
                )
            return storage
        except ImportError as error:
            raise CompError(
                f"{storage_name(place)}: its driver is not installed ({error.__cause__ or error}); "
                "pip install 'psycopg[binary]' for psycopg, psycopg2-binary for psycopg2, or pymysql"
            ) from error
        except ArgumentError as error:
            raise CompError(
                f"{storage_name(place)} is not a database; expected sqlite:///FILE, postgresql://…, "
                "mysql+pymysql://… or the path of a file"
            ) from error
        except Exception as error:  # from the database, its driver or unknown options
            if attempt == 2:  # fails once if two processes create tables at once
                raise CompError(f"{storage_name(place)}: {_reason(error, place)}") from error
            time.sleep(1)
    raise AssertionError


def storage_name(place: str) -> str:
    """Return a name for the storage; for a URL, without user, password and options."""
    scheme, sign, _ = place.partition("://")
    if not sign:
        return "the address" if ADDRESS_LIKE.search(place) else place
    if (url := _url(place)) is None:
        return f"{scheme}://…" if re.fullmatch(r"\w[\w+.-]*", scheme) else "the address"
    host = f"[{url.host}]" if ":" in (url.host or "") else url.host or ""
    return f"{scheme}://{host}" + (f"/{url.database}" if url.database else "")


def _url(place: str) -> Any:
    """Return a URL's parts as SQLAlchemy reads them. Return None if it can't, or if part of a password
    without percent-encoding ended up in another part."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(place)
    except (ArgumentError, ValueError):
        return None
    is_whole = place.startswith("sqlite") or "@" not in (url.database or "")
    return url if is_whole and re.fullmatch(r"[\w.:%-]*", url.host or "") else None


def _reason(error: Exception, place: str) -> str:
    """Return the first line of a storage's error, without the passwords in its address."""
    text = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
    url = _url(place) if "://" in place else None
    hidden = [url.password, *map(str, url.query.values())] if url else []
    for secret in filter(None, [*hidden, *map(quote, filter(None, hidden))]):
        text[0] = text[0].replace(secret, "…")
    return without_secrets(text[0])


@contextlib.contextmanager
def storage_errors(place: str) -> Iterator[None]:
    """Raise CompError for errors of a study's storage."""
    from optuna.exceptions import StorageInternalError

    try:
        yield
    except StorageInternalError as error:
        raise CompError(f"{storage_name(place)}: {_reason(error, place)}; run again to resume") from error
