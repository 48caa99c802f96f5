"""The picture of `comp find-lr`."""

from pathlib import Path
from typing import Any

import numpy as np

from comp.config.recipe import Recipe
from comp.plots.style import (
    ACCENT,
    GOOD,
    MAIN,
    MUTED,
    escape_text,
    new_figure,
    number_log_axis,
    save,
    styled,
)


def marked_rates(recipe: Recipe, content: dict[str, Any]) -> dict[str, float]:
    """Return the marked rates by name."""
    return {
        "steepest fall": content["suggested"],
        "lowest / 10": content["lowest"] / 10,
        "in the recipe": recipe.phases[content["phase"]].lr,
    }


def draw(recipe: Recipe, content: dict[str, Any], path: Path) -> None:
    """Write the picture of a learning-rate range test as PNG."""
    save(new_curve(recipe, content), path)


@styled
def new_curve(recipe: Recipe, content: dict[str, Any]) -> Any:
    """Return a figure of the loss of each step and the smoothed curve against the rate, with the marked
    rates."""
    rates, losses, smooth = (np.array(content[key]) for key in ("rates", "losses", "smooth"))
    phase = recipe.phases[content["phase"]]
    figure = new_figure(figsize=(8.0, 4.6), layout="constrained")
    panel = figure.subplots()
    panel.plot(rates, losses, ".", color=MAIN, alpha=0.3, markersize=4, label="each step")
    panel.plot(rates, smooth, color=MAIN, linewidth=2, label="smoothed")
    lines = zip(marked_rates(recipe, content).items(), (ACCENT, GOOD, MUTED))
    for (name, lr), colour in lines:
        panel.axvline(lr, color=colour, linewidth=1.5, label=f"{name}: {lr:.1e}")
    spread = smooth[0] - smooth.min()
    panel.set_ylim(
        smooth.min() - 0.2 * spread, max(losses[: len(losses) // 10 + 1].max(), smooth[0] + 0.2 * spread)
    )
    panel.set_xscale("log")
    number_log_axis(panel.xaxis)
    panel.grid()
    panel.set_xlabel("learning rate of the head")
    panel.set_ylabel("training loss")
    figure.legend(loc="outside lower center", ncols=5)
    about = f"{recipe.backbone} at {phase.size} px, batches of {phase.batch_size}, phase {content['phase']}"
    panel.set_title(
        f"{escape_text(recipe.name, 50)}: {content['suggested']:.1e} is suggested\n{escape_text(about, 90)}"
    )
    return figure
