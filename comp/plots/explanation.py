"""The picture of `comp explain`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len

from comp.data.decoding import decode
from comp.data.thumbnails import to_rgb
from comp.evaluation.explanation import N_MAPS, Explanation, Query, number_text
from comp.plots.style import escape_text, new_figure, save, styled

MAX_SIDE = 512  # pixels; larger images are reduced
GIVEN, OTHER = "tab:blue", "silver"
VERDICTS = {(1, 1): " (right)", (1, 0): " (missed)", (0, 1): " (false alarm)", (0, 0): ""}


@styled
def draw(answers: Sequence[Explanation], classes: tuple[str, ...], title: str, path: Path) -> None:
    """Draw a row per image: the image, its probabilities or numbers, and heat maps of the first of them."""
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
    legend = panel(0.2, height - 0.5, maps_at, 0.5)
    legend.legend(
        handles=legend_of(answers), loc="center left", ncols=3, fontsize=13, frameon=False, borderaxespad=0
    )
    numbers = answers[0].query.answer == "numbers"
    what = "what raises the number, nothing" if numbers else "evidence for the label, none"
    text(maps_at + 3.6, height - 0.75, f"heat maps: {what}", ha="right")
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
        (draw_numbers if numbers else draw_bars)(panel(bars_at, top, 1.9, high), answer, classes)
        chosen = np.ones(len(classes), bool) if numbers else answer.query.chosen(answer.given)
        for k, (c, cells) in enumerate(zip(answer.shown, answer.maps)):
            panels.append(panel(maps_at + k * (side + gap), top, side, side))
            panels[-1].imshow(heat(cells, image))
            value = number_text(answer.given[c]) if numbers else f"{answer.probs[c]:.2f}"
            label = f"{escape_text(classes[c], 36)} {value}" + ("" if cells.any() else ": none")
            colour = "black" if chosen[c] else "gray"
            panels[-1].set_title(label, fontsize=min(13, 320 / cell_len(label)), color=colour)
        bare += panels
        top -= high + 0.45
    for axes in bare:
        axes.axis("off")
    save(figure, path, dpi=100)


def legend_of(answers: Sequence[Explanation]) -> list[Any]:
    """Return what the legend explains."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    query = answers[0].query
    line = Line2D([], [], color="black", linewidth=2.5)
    if query.answer == "numbers":
        line.set_label("true")
        return [
            Patch(color=GIVEN, label="predicted"),
            *([line] if any(answer.query.true is not None for answer in answers) else []),
        ]
    names = {
        "probabilities": ("above 0.5", "0.5 or less"),
        "ranking": (f"among the first {query.n_first}", "not among them"),
    }.get(query.answer, ("predicted", "not predicted"))
    line.set_label("threshold")
    marked = any(answer.query.rule.threshold_of(c) is not None for answer in answers for c in answer.shown)
    return [Patch(color=c, label=n) for c, n in zip((GIVEN, OTHER), names)] + ([line] if marked else [])


def verdict(answer: Explanation, c: int) -> str:
    """Return what a label's truth says of it; nothing where it is not known."""
    true = answer.query.true
    if true is None or np.isnan(true[c]):
        return "" if true is None else " (unknown)"
    if answer.query.answer == "labels":
        return VERDICTS[int(true[c]), int(answer.given[c])]
    return " (true)" if true[c] == 1 else ""


def draw_bars(panel: Any, answer: Explanation, classes: tuple[str, ...]) -> None:
    """Draw the probability and the threshold of each shown label."""
    chosen = answer.query.chosen(answer.given)
    for y, c in enumerate(answer.shown):
        p, at = float(answer.probs[c]), answer.query.rule.threshold_of(c)
        panel.barh(y, p, height=0.6, color=GIVEN if chosen[c] else OTHER)
        beyond = p
        if at is not None:
            panel.plot([at, at], [y - 0.4, y + 0.4], color="black", linewidth=2.5)
            beyond = at if p < at < p + 0.3 else p
        panel.text(beyond + 0.03, y, f"{p:.2f}", va="center", fontsize=12)
    _name_rows(panel, [escape_text(classes[c], 36) + verdict(answer, c) for c in answer.shown])
    panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=12)
    panel.set_title("probability", fontsize=13)


def draw_numbers(panel: Any, answer: Explanation, classes: tuple[str, ...]) -> None:
    """Draw each number within the range of those of held-out images, or from 0 where that is not known."""
    for y, c in enumerate(answer.shown):
        value = float(answer.given[c])
        true = np.nan if answer.query.true is None else float(answer.query.true[c])
        ends = (0.0,) if answer.ranges is None else answer.ranges[c].tolist()
        low, high = min(value, np.fmin(true, value), *ends), max(value, np.fmax(true, value), *ends)
        share, of_true = ((v - low) / ((high - low) or 1) for v in (value, true))
        panel.barh(y, share, height=0.6, color=GIVEN)
        if np.isfinite(of_true):
            panel.plot([of_true, of_true], [y - 0.4, y + 0.4], color="black", linewidth=2.5)
        text = number_text(value)
        panel.text(max(share, np.fmax(of_true, 0)) + 0.03, y, text, va="center", fontsize=12)
    _name_rows(panel, [escape_text(classes[c], 36) for c in answer.shown])
    known = answer.ranges is not None
    panel.set_xticks([0, 1] if known else [], ["lowest", "highest"] if known else [], fontsize=12)
    panel.set_title("among held-out images" if known else "number", fontsize=13)


def _name_rows(panel: Any, names: Sequence[str]) -> None:
    size = min(13, 300 / max(map(cell_len, names)))
    panel.set_yticks(range(len(names)), names, fontsize=size)
    panel.set_ylim(max(len(names), 3) - 0.4, -0.6)
    panel.set_xlim(0, 1.2)
    panel.spines[["top", "right"]].set_visible(False)


def image_of(query: Query) -> np.ndarray:
    """Return the image as (h, w, 3) uint8, its larger side at most MAX_SIDE."""
    import cv2

    joined = len(query.paths) > 1
    settings: dict[str, Any] = {"bands": query.bands, "max_size": MAX_SIDE, "limits": query.limits}
    image = to_rgb(decode(query.paths, joined=joined, **settings))
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
