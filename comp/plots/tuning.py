"""The picture of `comp tune`: the score against each key."""

from pathlib import Path
from typing import Any

import numpy as np

from comp.plots.style import ACCENT, MAIN, MUTED, escape_text, new_figure, number_log_axis, save, styled
from comp.training.log_columns import LogColumns
from comp.tuning.study import SharedStudy


def draw(path: Path, study: SharedStudy, before: float | None, columns: LogColumns) -> None:
    """Write tune.png. `before` is the score of the unchanged recipe."""
    save(new_trials(study, before, columns), path)


@styled
def new_trials(study: SharedStudy, before: float | None, columns: LogColumns) -> Any:
    """Return a figure of the score of each trial and the best so far, then of the score against each key's
    values. Crosses are pruned trials, at their last score; a ring is around the best trial."""
    from matplotlib.ticker import MaxNLocator
    from optuna.distributions import IntDistribution

    ended = [trial for trial in study.trials("COMPLETE", "PRUNED") if trial.value is not None]
    n_panels = 1 + len(study.space)
    n_columns = min(3, n_panels)
    figure = new_figure(figsize=(4.2 * n_columns, 3.1 * -(-n_panels // n_columns)), layout="constrained")
    panels = figure.subplots(-(-n_panels // n_columns), n_columns, squeeze=False, sharey=True).ravel()
    for panel, key in zip(panels, [None, *study.space]):
        space: Any = study.space[key] if key else None
        for state, marker, color, label in (
            ("COMPLETE", "o", MAIN, "complete"),
            ("PRUNED", "x", MUTED, "pruned, at its last score"),
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
            if space.log:
                number_log_axis(panel.xaxis)
        if hasattr(space, "choices"):
            names = [escape_text(value, 24) for value in space.choices]
            slanted = {"rotation": 20, "ha": "right"} if sum(map(len, names)) > 36 else {}
            panel.set_xticks(range(len(names)), names, **slanted)
            panel.set_xlim(-0.5, len(space.choices) - 0.5)
        if space is None or isinstance(space, IntDistribution):
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_xlabel(key or "trial")
        panel.grid()
        if key and ended:
            mark_best(panel, max(ended, key=lambda t: (t.state.name == "COMPLETE", t.value)), key, columns)
    complete = [trial for trial in ended if trial.state.name == "COMPLETE"]
    best = np.maximum.accumulate([trial.value for trial in complete])
    best = columns.sign * best
    panels[0].step(
        [trial.number for trial in complete], best, where="post", color=ACCENT, label="best so far"
    )
    if before is not None:
        panels[0].axhline(
            columns.sign * before, color=MUTED, linestyle="--", linewidth=1, label="the unchanged recipe"
        )
    for row in range(0, n_panels, n_columns):
        panels[row].set_ylabel(f"held-out {escape_text(columns.tuned_title, 40)}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    for panel in panels[n_panels:]:
        panel.axis("off")
    return figure


def mark_best(panel: Any, best: Any, key: str, columns: LogColumns) -> None:
    """Mark the best trial, of whose values `key` is one, with a ring."""
    space, value = best.distributions[key], best.params[key]
    x = space.choices.index(value) if hasattr(space, "choices") else value
    panel.scatter(
        [x],
        [columns.sign * best.value],
        s=90,
        facecolors="none",
        edgecolors=ACCENT,
        linewidths=1.6,
        zorder=4,
        clip_on=False,
    )
