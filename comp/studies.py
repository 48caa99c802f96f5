"""Searches by Optuna: few dimensions, no gradient, a study that can be kept in a file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


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
    are `starts`. In the journal file `storage` the study `name` goes on where it was, also with other
    processes at work on it."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage:
        storage.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=name,
        storage=JournalStorage(JournalFileBackend(str(storage))) if storage else None,
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
    )
    for start in starts:
        study.enqueue_trial(start, skip_if_exists=True)
    n_trials = max(n_trials, len(starts))

    def n_missing() -> int:
        return n_trials - len(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))

    def enough(*_: Any) -> None:
        if n_missing() <= 0:
            study.stop()

    if n_missing() > 0:
        study.optimize(value, n_trials=n_missing(), callbacks=[enough])
    return study.best_params
