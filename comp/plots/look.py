"""The picture of `comp look`: the first batch of a phase, and test-time views."""

from pathlib import Path
from typing import Any

import numpy as np

from comp.data.thumbnails import to_rgb
from comp.plots.style import ACCENT, escape_text, new_figure, save, styled, wrapped
from comp.training.batch_checks import channel_names, check_lines, warnings
from comp.training.first_batches import FedImage, FirstBatch, FirstBatches

N_COLUMNS = 8
SIDE, GAP, MARGIN, LINE = 1.35, 0.12, 0.2, 0.125  # inches, as all positions here
CAPTION, N_LINES = 24, 3  # characters and lines above an image
MAX_NUMBERS = 3  # of an image


def draw(seen: FirstBatches, batch: FirstBatch, path: Path) -> None:
    """Write the picture of a batch as PNG."""
    save(new_sheet(seen, batch), path)


@styled
def new_sheet(seen: FirstBatches, batch: FirstBatch) -> Any:
    """Return a figure of a batch: its images as the network gets them, with their labels. Images that are
    mixed have a frame, and the share of each part. Where channels are joined, some images and the views are
    shown channel by channel. The last phase, at whose size is predicted, has the test-time views too. The
    lines below are the checks."""
    recipe, shown = seen.recipe, batch.shown
    names = channel_names(seen) if recipe.channels else []
    sheet = _Sheet()
    sheet.heading(f"{recipe.name}, phase {batch.number}: the first batch of fold {seen.fold}", 13)
    n, some = len(batch.targets), f"{len(shown)} of " if len(shown) < len(batch.targets) else ""
    mixed = "; framed: mixed, with the share of each part" if any(image.kind for image in shown) else ""
    as_fed = "augmented and normalised as in training, with colours turned back to be seen"
    sheet.heading(f"{some}{n} images at {batch.phase.size} px, {as_fed}{mixed}", 9)
    sheet.tiles([(to_rgb(image.pixels), caption_of(image, seen), bool(image.kind)) for image in shown])
    if names:
        sheet.heading("channel by channel", 10)
        few = shown[: max(1, N_COLUMNS // len(names))]
        sheet.tiles(
            [
                (
                    _grey(image.pixels, k),
                    f"{wrapped(image.id, CAPTION, 1)}\n{wrapped(name, CAPTION, 1)}",
                    False,
                )
                for image in few
                for k, name in enumerate(names)
            ]
        )
    if batch is seen.batches[-1]:
        views = seen.views
        sheet.heading(
            f"test-time views of {escape_text(views.id)}: its prediction is their mean ({len(views.names)})",
            10,
        )
        captions = [wrapped(name, CAPTION, 1) for name in views.names]
        sheet.tiles([(to_rgb(view), text, False) for view, text in zip(views.pixels, captions)])
        for k, name in enumerate(names):
            tiles = [(_grey(view, k), wrapped(f"{name}: {text}", CAPTION, 1), False)
                     for view, text in zip(views.pixels, views.names)]  # fmt: skip
            sheet.tiles(tiles)
    sheet.height += 0.08
    for line in check_lines(seen, batch):
        sheet.line(line, "#222222")
    for line in warnings(seen, batch):
        sheet.line(f"look at this: {line}", ACCENT)
    return sheet.figure()


def caption_of(image: FedImage, seen: FirstBatches) -> str:
    """Return the labels of an image or, where it is mixed, the share and the labels of each part."""
    if len(image.parts) == 1:
        return wrapped(text_of(image.parts[0].targets, seen), CAPTION, N_LINES)
    texts = [f"{part.share:.2f} {text_of(part.targets, seen)}" for part in image.parts]
    return "\n".join(wrapped(text, CAPTION, 2) for text in texts)


def text_of(targets: np.ndarray, seen: FirstBatches) -> str:
    """Return the labels of targets (C,), with the probability of a soft one; of numbers their values."""
    competition, classes = seen.recipe.competition, seen.classes
    if competition.metric.kind == "numbers":
        known = np.flatnonzero(~np.isnan(targets))[:MAX_NUMBERS].tolist()
        return ", ".join(f"{classes[c]} {targets[c]:.4g}" for c in known)
    found = np.flatnonzero(np.nan_to_num(targets) > 0.05).tolist()
    texts = [classes[c] if targets[c] == 1 else f"{classes[c]} {targets[c]:.2f}" for c in found]
    return ", ".join(texts) or competition.labels.none or "no label"


def _grey(pixels: np.ndarray, channel: int) -> np.ndarray:
    return np.repeat(pixels[..., channel : channel + 1], 3, axis=2)


class _Sheet:
    """Lines of text and rows of images, from the top down."""

    def __init__(self) -> None:
        self.texts: list[tuple[float, float, str, dict[str, Any]]] = []
        self.images: list[tuple[float, float, np.ndarray, bool]] = []
        self.width, self.height = 2 * MARGIN + N_COLUMNS * SIDE + (N_COLUMNS - 1) * GAP, MARGIN

    def heading(self, text: str, size: float) -> None:
        self.height += size / 72 * 1.3 + (0.12 if self.images else 0)
        self.texts.append((MARGIN, self.height, text, {"fontsize": size}))
        self.height += size / 72 * 0.7

    def line(self, text: str, colour: str) -> None:
        """Add a line below all images."""
        for part in wrapped(text, 150, 3).splitlines():
            self.height += 0.18
            self.texts.append((MARGIN, self.height, part, {"fontsize": 9, "color": colour}))
        self.height += 0.03

    def tiles(self, tiles: list[tuple[np.ndarray, str, bool]]) -> None:
        """Add images with the text above each, and whether it has a frame."""
        for first in range(0, len(tiles), N_COLUMNS):
            row = tiles[first : first + N_COLUMNS]
            self.height += 0.06 + LINE * max(text.count("\n") + 1 for _, text, _ in row)
            for k, (image, text, framed) in enumerate(row):
                left = MARGIN + k * (SIDE + GAP)
                self.texts.append((left, self.height - 0.03, text, {"fontsize": 6.5, "linespacing": 1.15}))
                self.images.append((left, self.height, image, framed))
            self.height += SIDE + 0.04

    def figure(self) -> Any:
        width, height = self.width, self.height + MARGIN
        figure = new_figure(figsize=(width, height))
        for left, top, text, settings in self.texts:
            figure.text(left / width, 1 - top / height, text, va="bottom", **settings)
        for left, top, image, framed in self.images:
            place = (left / width, 1 - (top + SIDE) / height, SIDE / width, SIDE / height)
            panel = figure.add_axes(place)
            panel.imshow(image, interpolation="nearest", aspect="auto")
            panel.set(xticks=[], yticks=[])
            for spine in panel.spines.values():
                spine.set(visible=framed, color=ACCENT, linewidth=2)
        return figure
