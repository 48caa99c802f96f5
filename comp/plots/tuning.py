"""The picture of `comp tune`: the score against each key."""

from pathlib import Path
from typing import Any

import numpy as np

from comp.plots.style import escape_text, new_figure, save
from comp.training.log_columns import LogColumns
from comp.tuning.study import SharedStudy


def draw(path: Path, study: SharedStudy, before: float | None, columns: LogColumns) -> None:
    """Draw tune.png: the score of each trial and the best so far, then the score against each key's values.
    Crosses are pruned trials, at their last score. `before` is the score of the unchanged recipe."""
    from matplotlib.ticker import MaxNLocator, NullFormatter
    from optuna.distributions import IntDistribution

    ended = [trial for trial in study.trials("COMPLETE", "PRUNED") if trial.value is not None]
    n_panels = 1 + len(study.space)
    n_columns = min(3, n_panels)
    figure = new_figure(figsize=(4.2 * n_columns, 3.1 * -(-n_panels // n_columns)), layout="constrained")
    panels = figure.subplots(-(-n_panels // n_columns), n_columns, squeeze=False, sharey=True).ravel()
    for panel, key in zip(panels, [None, *study.space]):
        space: Any = study.space[key] if key else None
        for state, marker, color, label in (
            ("COMPLETE", "o", "tab:blue", "complete"),
            ("PRUNED", "x", "tab:gray", "pruned, at its last score"),
        ):
            mine = [trial for trial in ended if trial.state.name == state]
            x = [trial.params[key] if key else trial.number for trial in mine]
            if hasattr(space, "choices"):
                x = [space.choices.index(value) for value in x]
            y = [columns.sign * trial.value for trial in mine]
            panel.scatter(
                x, y, marker=marker, color=color, s=22, clip_on=False, zorder=3,
                label=label if mine else None,
            )  # fmt: skip
        if hasattr(space, "log"):
            panel.set_xscale("log" if space.log else "linear")
            panel.set_xlim(space.low, space.high)
            if space.log and space.high >= 10 * space.low:
                panel.xaxis.set_minor_formatter(NullFormatter())
        if hasattr(space, "choices"):
            names = [escape_text(value, 24) for value in space.choices]
            slanted = {"rotation": 20, "ha": "right"} if sum(map(len, names)) > 40 else {}
            panel.set_xticks(range(len(names)), names, **slanted)
            panel.set_xlim(-0.5, len(space.choices) - 0.5)
        if space is None or isinstance(space, IntDistribution):
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_xlabel(key or "trial")
    complete = [trial for trial in ended if trial.state.name == "COMPLETE"]
    best = np.maximum.accumulate([trial.value for trial in complete])
    best = columns.sign * best
    panels[0].step([trial.number for trial in complete], best, where="post", color="tab:orange", label="best")
    if before is not None:
        panels[0].axhline(
            columns.sign * before, color="0.6", linestyle="--", linewidth=1, label="the unchanged recipe"
        )
    panels[0].legend(loc="lower right" if columns.sign > 0 else "upper right", fontsize=8)
    panels[0].set_ylabel(f"held-out {escape_text(columns.tuned_title, 40)}")
    for panel in panels[n_panels:]:
        panel.axis("off")
    save(figure, path)
