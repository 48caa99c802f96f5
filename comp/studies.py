"""Searches by Optuna: few dimensions, no gradient, a study that can be kept in a file."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

GRACE = 10.0  # seconds after which the lock of a process that was killed is taken over


def search(
    value: Callable[[Any], float],
    starts: Sequence[dict[str, Any]],
    *,
    n_trials: int,
    seed: int,
    storage: Path | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """The parameters of the highest `value(trial)` that Optuna finds by TPE in `n_trials`, the first of which
    are `starts`: it never ends below one of them. In the journal file `storage` the study `name` goes on
    where it was, also with other processes at work on it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=name,
        storage=_journal(storage) if storage else None,
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
    )
    complete = (optuna.trial.TrialState.COMPLETE,)
    found: list[tuple[float, dict[str, Any]]] = []
    for start in starts:  # worked out here, since a trial of a process that was killed looks taken for ever
        fixed = optuna.trial.FixedTrial(start)
        found.append((value(fixed), start))
        if start not in [trial.params for trial in study.get_trials(deepcopy=False, states=complete)]:
            study.add_trial(
                optuna.trial.create_trial(params=start, distributions=fixed.distributions, value=found[-1][0])
            )

    def n_missing() -> int:
        return n_trials - len(study.get_trials(deepcopy=False, states=complete))

    def enough(*_: Any) -> None:
        if n_missing() <= 0:
            study.stop()

    if n_missing() > 0:
        study.optimize(value, n_trials=n_missing(), callbacks=[enough])
    found.append((study.best_value, study.best_params))
    return max(found, key=lambda pair: pair[0])[1]


def forget(storage: Path, prefix: str) -> None:
    """Remove the studies whose names begin with `prefix`."""
    import optuna

    if storage.exists():
        journal = _journal(storage)
        for name in optuna.get_all_study_names(journal):
            if name.startswith(prefix):
                optuna.delete_study(study_name=name, storage=journal)


def _journal(path: Path) -> Any:
    """The journal file as storage. The end of a line that a killed process left half-written is cut off."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

    path = path.resolve()  # Optuna's lock is a link, which from another folder would lead nowhere
    path.parent.mkdir(parents=True, exist_ok=True)
    if (size := _cut_at(path)) is not None:
        time.sleep(0.2)
        if _cut_at(path) == size:  # nobody is writing it on
            with path.open("r+b") as file:
                file.truncate(size)
    lock = JournalFileSymlinkLock(str(path), grace_period=GRACE)  # type: ignore[arg-type]
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _cut_at(path: Path) -> int | None:
    """How many bytes of the file are whole lines, unless all are."""
    content = path.read_bytes() if path.exists() else b""
    return None if not content or content.endswith(b"\n") else content.rfind(b"\n") + 1
