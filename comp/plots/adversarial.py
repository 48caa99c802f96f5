"""The picture of `comp adversarial`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from comp.plots.style import escape_text, new_figure, save

N_COLUMNS = 8  # images of each row
Row = tuple[str, Sequence[np.ndarray], Sequence[str], Sequence[float]]  # title, images, ids, p(test)


def draw(title: str, p_train: np.ndarray, p_test: np.ndarray, rows: Sequence[Row], path: Path) -> None:
    """Draw the distributions of p(test) of training and of test images, and rows of images below."""
    figure = new_figure(figsize=(9.0, 3.0 + 1.55 * len(rows)), layout="constrained")
    top, *others = figure.subfigures(1 + len(rows), 1, height_ratios=[3.0, *[1.55] * len(rows)])
    panel = top.subplots()
    bins = np.linspace(0, 1, 42)  # 0.5 is the middle of one
    for values, name, color in ((p_train, "training", "tab:blue"), (p_test, "test", "tab:orange")):
        panel.hist(values, bins, density=True, histtype="stepfilled", alpha=0.35, color=color)
        label = f"{len(values):,} {name} images"
        panel.hist(values, bins, density=True, histtype="step", color=color, label=label)
    panel.axvline(0.5, color="tab:gray", linewidth=1, linestyle=":")
    panel.set_xlim(0, 1)
    panel.set_xlabel("looks like: 0 the training set … 1 the test set (0.5: no telling)")
    panel.set_ylabel("density")
    panel.legend(fontsize=8)
    panel.set_title(escape_text(title, 200), fontsize=9)
    for part, (name, images, ids, scores) in zip(others, rows):
        part.suptitle(escape_text(name), fontsize=9)
        for place, image, text, p in zip(part.subplots(1, N_COLUMNS), images, ids, scores):
            place.imshow(np.dstack([image] * 3)[..., :3] if image.shape[2] < 3 else image[..., :3])
            place.set_title(f"{escape_text(text, 22)}\n{p:.2f}", fontsize=7)
        for place in part.axes:
            place.axis("off")
    save(figure, path)
