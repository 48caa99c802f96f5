"""The picture of `comp find-lr`."""

from pathlib import Path
from typing import Any

import numpy as np

from comp.config.recipe import Recipe
from comp.plots.style import escape_text, new_figure, save


def marked_rates(recipe: Recipe, content: dict[str, Any]) -> dict[str, float]:
    """Return the marked rates by name."""
    return {
        "steepest fall": content["suggested"],
        "lowest / 10": content["lowest"] / 10,
        "in the recipe": recipe.phases[content["phase"]].lr,
    }


def draw(recipe: Recipe, content: dict[str, Any], path: Path) -> None:
    """Draw the loss of each step and the smoothed curve against the rate, with the marked rates."""
    rates, losses, smooth = (np.array(content[key]) for key in ("rates", "losses", "smooth"))
    phase = recipe.phases[content["phase"]]
    figure = new_figure(figsize=(7.0, 4.2), layout="constrained")
    panel = figure.subplots()
    panel.plot(rates, losses, ".", color="tab:blue", alpha=0.35, markersize=4)
    panel.plot(rates, smooth, color="tab:blue")
    lines = zip(marked_rates(recipe, content).items(), ("tab:orange", "tab:green", "tab:gray"))
    for (name, lr), color in lines:
        panel.axvline(lr, color=color, linewidth=1.3, label=f"{name}: {lr:.1e}")
    spread = smooth[0] - smooth.min()
    panel.set_ylim(
        smooth.min() - 0.2 * spread, max(losses[: len(losses) // 10 + 1].max(), smooth[0] + 0.2 * spread)
    )
    panel.set_xscale("log")
    panel.set_xlabel("learning rate of the head")
    panel.set_ylabel("training loss")
    panel.legend(fontsize=8)
    about = f"{recipe.name}, {recipe.backbone} at {phase.size} px, batches of {phase.batch_size}"
    panel.set_title(escape_text(about, 200), fontsize=9)
    save(figure, path)
