"""The picture of `comp explain`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len

from comp.data.decoding import decode
from comp.data.thumbnails import to_rgb
from comp.evaluation.explanation import N_MAPS, Explanation, Query
from comp.plots.style import escape_text, new_figure, save

MAX_SIDE = 512  # pixels; larger images are reduced
GIVEN, OTHER = "tab:blue", "silver"
VERDICTS = {(1, 1): " (right)", (1, 0): " (missed)", (0, 1): " (false alarm)", (0, 0): ""}


def draw(answers: Sequence[Explanation], classes: tuple[str, ...], title: str, path: Path) -> None:
    """Draw a row per image: the image, the probabilities of its labels, and heat maps of the first labels."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    side, gap, head, bars_at, maps_at = 2.3, 0.12, 0.8, 4.8, 7.3  # inches, as all positions here
    width = maps_at + N_MAPS * (side + gap) + gap
    heights = [max(side, 0.38 * len(answer.shown)) for answer in answers]
    height = 1.1 + sum(heights) + len(answers) * (head + 0.45)
    figure = new_figure(figsize=(width, height))

    def panel(left: float, top: float, wide: float, high: float) -> Any:
        return figure.add_axes((left / width, (top - high) / height, wide / width, high / height))

    def text(left: float, top: float, what: str, **settings: Any) -> Any:
        return figure.text(left / width, top / height, what, va="center", **{"fontsize": 13, **settings})

    text(0.2, height - 0.3, escape_text(title, 200), fontsize=15)
    handles: list[Any] = [Patch(color=GIVEN, label="predicted"), Patch(color=OTHER, label="not predicted")]
    if any(answer.query.rule.threshold_of(c) is not None for answer in answers for c in answer.shown):
        handles.append(Line2D([], [], color="black", linewidth=2.5, label="threshold"))
    legend = panel(0.2, height - 0.5, maps_at, 0.5)
    legend.legend(handles=handles, loc="center left", ncols=3, fontsize=13, frameon=False, borderaxespad=0)
    text(maps_at + 3.6, height - 0.75, "heat maps: evidence for the label, none", ha="right")
    scale = panel(maps_at + 3.7, height - 0.65, 2.2, 0.2)
    scale.imshow(heat(np.linspace(0, 1, 256)[None], np.full((8, 256, 3), 150, np.uint8)), aspect="auto")
    text(maps_at + 6, height - 0.75, "the most in this image")
    bare, top = [legend, scale], height - 1.1
    for answer, high in zip(answers, heights):
        text(0.2, top - 0.2, f"{escape_text(answer.query.name)}: {answer.about}", fontsize=14)
        top -= head
        image = image_of(answer.query)
        panels = [panel(0.2, top, side, side)]
        panels[0].imshow(image)
        draw_bars(panel(bars_at, top, 1.9, high), answer, classes)
        for k, (c, cells) in enumerate(zip(answer.shown, answer.maps)):
            panels.append(panel(maps_at + k * (side + gap), top, side, side))
            panels[-1].imshow(heat(cells, image))
            label = f"{escape_text(classes[c], 36)} {answer.probs[c]:.2f}" + ("" if cells.any() else ": none")
            colour = "black" if answer.given[c] else "gray"
            panels[-1].set_title(label, fontsize=min(13, 320 / cell_len(label)), color=colour)
        bare += panels
        top -= high + 0.45
    for axes in bare:
        axes.axis("off")
    save(figure, path, dpi=100)


def draw_bars(panel: Any, answer: Explanation, classes: tuple[str, ...]) -> None:
    """Draw the probability and the threshold of each shown label."""
    true = answer.query.true
    for y, c in enumerate(answer.shown):
        p, at = float(answer.probs[c]), answer.query.rule.threshold_of(c)
        panel.barh(y, p, height=0.6, color=GIVEN if answer.given[c] else OTHER)
        beyond = p
        if at is not None:
            panel.plot([at, at], [y - 0.4, y + 0.4], color="black", linewidth=2.5)
            beyond = at if p < at < p + 0.3 else p
        panel.text(beyond + 0.03, y, f"{p:.2f}", va="center", fontsize=12)
    verdicts = ["" if true is None else VERDICTS[true[c], answer.given[c]] for c in answer.shown]
    names = [escape_text(classes[c], 36) + text for c, text in zip(answer.shown, verdicts)]
    size = min(13, 300 / max(map(cell_len, names)))
    panel.set_yticks(range(len(names)), names, fontsize=size)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.set_xlim(0, 1.2)
    panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=12)
    panel.set_title("probability", fontsize=13)
    panel.spines[["top", "right"]].set_visible(False)


def image_of(query: Query) -> np.ndarray:
    """Return the image as (h, w, 3) uint8, its larger side at most MAX_SIDE."""
    import cv2

    joined = len(query.paths) > 1
    image = to_rgb(decode(query.paths, joined=joined, max_size=MAX_SIDE, limits=query.limits))
    scale = min(1.0, MAX_SIDE / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def heat(cells: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return (h, w, 3) 0 … 1: the heat map `cells` 0 … 1 over an image (h, w, 3) uint8 in grey."""
    import cv2
    from matplotlib import colormaps

    height, width = image.shape[:2]
    strength = cv2.resize(cells.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    grey = image.mean(-1, keepdims=True) / 255
    share = 0.75 * strength[..., None]
    return grey * (1 - share) + colormaps["turbo"](strength)[..., :3] * share
