"""An Optuna study that several processes share."""

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

from comp.artifacts.files import is_held, locked, parse_json
from comp.artifacts.optuna_journal import _journal
from comp.artifacts.safe_paths import inside
from comp.artifacts.schemas import KeptTrial
from comp.console import say
from comp.deadline import check_time
from comp.errors import CompError
from comp.safe_text import without_secrets

BEAT = 20.0  # seconds between two signs of life of a trial
LOST = 150.0  # seconds without one after which a trial of another machine is taken for lost
EXPECTED = (
    "FILE, sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME is expected, with @ : / ? and spaces in "
    "the password as %40 %3A %2F %3F %20"
)
ADDRESS_LIKE = re.compile(r"(?i)^[\w+]{2,}:/|:.*@|passw\w*\s*=")  # no path; it may hold a password
MAX_LOSSES = 3  # of a trial in a row that got no further: it may be what kills its process


class Shared:
    """A study that processes on one machine or on several work on, each trial in a folder of its own.

    A trial of a process that is gone is tried again with the same values and folder, so that it goes on from
    the files there. On the same machine and folder that is known at once, by the trial's lock; on others once
    its sign of life has stood still for LOST seconds of our own clock. Optuna's own heartbeat knows databases
    alone and needs its own loop."""

    def __init__(
        self, storage: str, name: str, space: Mapping[str, Any], *, seed: int, pruner: Any, folder: Path
    ):
        """`space`: an Optuna distribution a key. The folder of a trial is made in `folder`, with a name that
        begins as what follows the last dash of the study's."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.space, self.folder, self.name = dict(space), folder, name
        self.here = f"{socket.gethostname()}:{folder.resolve()}"
        self.states = optuna.trial.TrialState
        self.beats: dict[int, tuple[Any, float]] = {}  # by trial: the last sign, and when it was first seen
        with readable(storage):
            settings: dict[str, Any] = {
                "study_name": name,
                "storage": storage_at(storage),
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
        """Optuna's frozen trials in these states, such as "COMPLETE", by number."""
        return self.study.get_trials(deepcopy=False, states=[self.states[state] for state in states])

    def start(self, values: dict[str, Any]) -> None:
        """See to it that a trial with these values is there."""

        def there() -> bool:
            trials = self.trials("COMPLETE", "PRUNED", "RUNNING", "WAITING")
            return any(_values(trial) == values for trial in trials)

        for _ in range(0 if self.is_new else 10):
            if not there():
                time.sleep(0.5)  # the process that has made the study may be about to
        if not there():
            self.study.enqueue_trial(values)

    def next(self, n_trials: int, deadline: float) -> Any:
        """The next trial; None once `n_trials` of the study are complete or pruned. Waits for trials of other
        processes where they may be the last ones. Raises TimeIsUp at the deadline."""
        waited = False
        while True:
            for trial in self.trials("RUNNING"):
                if self._is_lost(trial):
                    self.again(trial.number, lost=True)
            n_done, n_running = len(self.trials("COMPLETE", "PRUNED")), len(self.trials("RUNNING"))
            if n_done >= n_trials:
                return None
            check_time(deadline, f"{n_done} of {n_trials} trials")
            if n_done + n_running < n_trials:
                trial = self.study.ask(self.space)
                before = [t for t in self.trials("COMPLETE", "PRUNED", "RUNNING") if t.number < trial.number]
                if len(before) < n_trials:
                    return trial
                self.again(trial.number)  # another process was faster
            if not waited:
                say(f"waiting for {n_running} trials of other processes, which are the last ones")
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
        return now - since > LOST

    def _lock(self, folder: str) -> Path:
        return inside(self.folder, folder, "a trial of the study") / ".lock"

    def again(self, number: int, *, lost: bool = False) -> None:
        """End a trial, which is tried again by the next process that is free."""
        try:
            self.study.tell(number, state=self.states.FAIL)
        except (ValueError, RuntimeError):  # it has ended by now
            return
        trial = self.study.get_trials(deepcopy=False)[number]
        kept = {key: value for key, value in trial.user_attrs.items() if key in ("folder", "step", "losses")}
        if lost:
            step = max(trial.intermediate_values, default=0)
            losses = 1 if step > kept.get("step", 0) else kept.get("losses", 0) + 1
            if losses == MAX_LOSSES:
                say(f"trial {number} was lost {losses} times at the same place and is left out")
                return
            kept |= {"step": step, "losses": losses}
        self.study.enqueue_trial(_values(trial), user_attrs=kept)

    @contextlib.contextmanager
    def working_on(self, trial: Any) -> Iterator[str]:
        """Yield the name of the trial's folder, and tell the other processes meanwhile that it isn't lost."""
        folder = trial.user_attrs.get("folder", f"{self.name.rpartition('-')[2]}-{trial.number}")
        ended = threading.Event()

        def beat() -> None:
            n = 0
            while not ended.wait(BEAT):
                n += 1
                with contextlib.suppress(Exception):  # the next one makes up for it
                    trial.set_user_attr("beat", n)

        with locked(self._lock(folder), f"at work on trial {trial.number}"):
            trial.set_user_attr("folder", folder)
            trial.set_user_attr("at", self.here)
            thread = threading.Thread(target=beat, daemon=True)
            thread.start()
            try:
                yield folder
            finally:
                ended.set()
                thread.join()

    def twin(self, trial: Any) -> Any:
        """A trial that had the same values and has ended; None where there is none."""
        ended = self.trials("COMPLETE", "PRUNED")
        return next((other for other in ended if other.params == trial.params), None)

    def ended_folders(self) -> set[str]:
        """Folders of trials that won't go on."""
        live = {trial.user_attrs.get("folder") for trial in self.trials("RUNNING", "WAITING")}
        ended = {trial.user_attrs.get("folder") for trial in self.trials("COMPLETE", "PRUNED", "FAIL")}
        return ended - live - {None}


def _values(trial: Any) -> dict[str, Any]:
    """What a trial has been or will be given."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def _by_number(seed: int) -> Any:
    """TPE that draws each trial by its number in the study: two processes never draw the same, and a study
    that was stopped goes on as it would have."""
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


def storage_at(place: str) -> Any:
    """Optuna's storage in a journal file, or in the database of a URL. Raises CompError, without what may be
    a password."""
    if "://" not in place:
        if ADDRESS_LIKE.search(place):
            raise CompError(f"--storage holds neither the path of a file nor an address: {EXPECTED}")
        return _journal(Path(place))
    if _url(place) is None:
        raise CompError(f"--storage: {shown(place)} is not understood: {EXPECTED}")
    from optuna.storages import RDBStorage
    from sqlalchemy import event
    from sqlalchemy.exc import ArgumentError

    waiting = {"connect_args": {"timeout": 60}} if place.startswith("sqlite") else {}
    for attempt in range(3):
        try:
            # an epoch may last longer than a server keeps a connection
            storage = RDBStorage(place, engine_kwargs={"pool_pre_ping": True, **waiting})
            if place.startswith("sqlite"):  # else two processes can read a trial as free, and both take it
                event.listen(
                    storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE")
                )
            return storage
        except ImportError as error:
            raise CompError(
                f"{shown(place)}: its driver is not installed ({error.__cause__ or error}); "
                "pip install 'psycopg[binary]' for psycopg, psycopg2-binary for psycopg2, or pymysql"
            ) from error
        except ArgumentError as error:
            raise CompError(
                f"{shown(place)} is no database; sqlite:///FILE, postgresql://… or mysql+pymysql://… is "
                "expected, or the path of a file"
            ) from error
        except Exception as error:  # of the database, its driver, or options that this does not take
            if attempt == 2:  # tables that two processes make at once are an error for one of them
                raise CompError(f"{shown(place)}: {_reason(error, place)}") from error
            time.sleep(1)
    raise AssertionError


def shown(place: str) -> str:
    """A storage's name: of an address without the account and the options, which may hold passwords."""
    scheme, sign, _ = place.partition("://")
    if not sign:
        return "the address" if ADDRESS_LIKE.search(place) else place
    if (url := _url(place)) is None:
        return f"{scheme}://…" if re.fullmatch(r"\w[\w+.-]*", scheme) else "the address"
    host = f"[{url.host}]" if ":" in (url.host or "") else url.host or ""
    return f"{scheme}://{host}" + (f"/{url.database}" if url.database else "")


def _url(place: str) -> Any:
    """A URL's parts as SQLAlchemy reads them; None where it can't, or where a part of a password, in which
    signs weren't encoded, ends up in others."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(place)
    except (ArgumentError, ValueError):
        return None
    is_whole = place.startswith("sqlite") or "@" not in (url.database or "")
    return url if is_whole and re.fullmatch(r"[\w.:%-]*", url.host or "") else None


def _reason(error: Exception, place: str) -> str:
    """What an error of a storage says, without the passwords in its address."""
    text = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
    url = _url(place) if "://" in place else None
    hidden = [url.password, *map(str, url.query.values())] if url else []
    for secret in filter(None, [*hidden, *map(quote, filter(None, hidden))]):
        text[0] = text[0].replace(secret, "…")
    return without_secrets(text[0])


@contextlib.contextmanager
def readable(place: str) -> Iterator[None]:
    """Make errors of a study's storage those that users can mend."""
    from optuna.exceptions import StorageInternalError

    try:
        yield
    except StorageInternalError as error:
        raise CompError(f"{shown(place)}: {_reason(error, place)}; run it again to go on") from error
