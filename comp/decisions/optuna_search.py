"""A small Optuna search that can be resumed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from comp.artifacts.optuna_journal import open_journal
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
    """Return the parameters of the highest `value(trial)` that Optuna's TPE finds in `n_trials`. The first
    trials are `starts`, so the result is never worse than any of them. With a journal file `storage`, the
    study `name` is resumed, and processes can share it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage:
        refuse_link(storage)
    study = optuna.create_study(
        study_name=name,
        storage=open_journal(storage) if storage else None,
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
    )
    complete = (optuna.trial.TrialState.COMPLETE,)
    found: list[tuple[float, dict[str, Any]]] = []
    for start in starts:  # computed here: a queued trial of a killed process would stay running forever
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


def delete_studies(storage: Path, prefix: str) -> None:
    """Remove the studies whose names begin with `prefix` from a journal file."""
    import optuna

    refuse_link(storage)
    if storage.exists():
        journal = open_journal(storage)
        for name in optuna.get_all_study_names(journal):
            if name.startswith(prefix):
                optuna.delete_study(study_name=name, storage=journal)
