"""A picture of several images with their labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from comp.plots.style import escape_text, new_figure, styled


@styled
def draw(images: Sequence[np.ndarray], names: Sequence[str], texts: Sequence[str], n_columns: int) -> Any:
    """Return a figure of images (H, W, channels) uint8, each with its name and text. Of more than three
    channels the first three are shown."""
    n_columns = max(1, min(n_columns, len(images)))
    n_rows = max(1, -(-len(images) // n_columns))
    figure = new_figure(figsize=(1.35 * n_columns, 1.75 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel()
    for panel in panels:
        panel.axis("off")
    for panel, image, name, text in zip(panels, images, names, texts):
        panel.imshow(np.dstack([image] * 3)[..., :3] if image.shape[2] < 3 else image[..., :3])
        panel.set_title(f"{escape_text(name, 22)}\n{escape_text(text, 26)}", fontsize=6)
    return figure
