"""A small Optuna search that resumes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from comp.artifacts.optuna_journal import _journal
from comp.artifacts.safe_paths import refuse_link


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
    if storage:
        refuse_link(storage)
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

    refuse_link(storage)
    if storage.exists():
        journal = _journal(storage)
        for name in optuna.get_all_study_names(journal):
            if name.startswith(prefix):
                optuna.delete_study(study_name=name, storage=journal)
