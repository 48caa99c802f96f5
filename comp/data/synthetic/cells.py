"""Synthetic fluorescence microscopy in the form of the Human Protein Atlas: a grey image per channel, and
labels that say where in the cells the protein is. It tests the flow; it can't show how good a method is."""

import math
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

Rng = np.random.Generator
SUPERSAMPLING = 2  # times the size, for smooth edges
MIN_SHARE = 0.01  # of images: the rarest labels would not occur in a small set
FULL_TURN = 2 * math.pi


class Pattern(NamedTuple):
    """How a label looks in each cell. It lies between `low` and `high`: shares of the way from the middle of
    the cell to its edge. The nucleus reaches to NUCLEUS."""

    images: int  # the competition's training images with this label, of 31,072
    shape: str
    low: float
    high: float
    n: int = 1
    size: float = 0.0  # relative to the cell's radius
    spread: float = FULL_TURN  # the angle that it spans


NUCLEUS = 0.42
THREADS = Pattern(0, "threads", NUCLEUS, 1, 20)
LABELS = {
    "Nucleoplasm": Pattern(12885, "fill", 0, 0.4),
    "Nuclear membrane": Pattern(1254, "fill", 0.37, 0.47),
    "Nucleoli": Pattern(3621, "dots", 0.05, 0.24, 3, 0.1),
    "Nucleoli fibrillar center": Pattern(1561, "dots", 0, 0.24, 6, 0.04),
    "Nuclear speckles": Pattern(1858, "dots", 0, 0.36, 16, 0.035),
    "Nuclear bodies": Pattern(2513, "dots", 0.2, 0.36, 5, 0.06),
    "Endoplasmic reticulum": Pattern(1008, "fill", 0.44, 0.68),
    "Golgi apparatus": Pattern(2822, "dots", 0.46, 0.62, 9, 0.07, 1.2),
    "Peroxisomes": Pattern(53, "dots", 0.5, 0.9, 14, 0.035),
    "Endosomes": Pattern(45, "dots", 0.5, 0.9, 6, 0.07),
    "Lysosomes": Pattern(28, "dots", 0.46, 0.6, 7, 0.07),
    "Intermediate filaments": Pattern(1093, "threads", 0.5, 0.8, 6),
    "Actin filaments": Pattern(688, "rods", 0.5, 0.9, 9, 0.5),
    "Focal adhesion sites": Pattern(537, "rods", 0.88, 1, 10, 0.16),
    "Microtubules": THREADS._replace(images=1066),
    "Microtubule ends": Pattern(21, "dots", 0.85, 1, 10, 0.04),
    "Cytokinetic bridge": Pattern(530, "rays", 0.95, 1.35, 3, spread=0.15),
    "Mitotic spindle": Pattern(210, "rays", 0.05, 0.4, 9),
    "Microtubule organizing center": Pattern(902, "dots", 0.46, 0.5, 1, 0.1),
    "Centrosome": Pattern(1482, "dots", 0.45, 0.5, 2, 0.05, 0.7),
    "Lipid droplets": Pattern(172, "rings", 0.5, 0.9, 7, 0.09),
    "Plasma membrane": Pattern(3777, "fill", 0.92, 1),
    "Cell junctions": Pattern(802, "fill", 0.9, 1, spread=1.6),
    "Mitochondria": Pattern(2965, "rods", 0.5, 0.9, 16, 0.15),
    "Aggresome": Pattern(322, "dots", 0.55, 0.6, 1, 0.2),
    "Cytosol": Pattern(8228, "fill", 0.42, 0.95),
    "Cytoplasmic bodies": Pattern(328, "dots", 0.5, 0.85, 3, 0.085),
    "Rods & rings": Pattern(11, "rings", 0.2, 0.8, 2, 0.16),
}
N_IMAGES = 31_072
BACKGROUND = {  # channels: microtubules, only the protein, nuclei, endoplasmic reticulum
    "red": (THREADS, 190),
    "green": (Pattern(0, "dots", 0, 1, 0), 0),
    "blue": (Pattern(0, "fill", 0, NUCLEUS), 180),
    "yellow": (Pattern(0, "fill", NUCLEUS, 0.9), 80),
}


class Cell(NamedTuple):
    middle: np.ndarray  # (2,)
    radius: float
    bends: np.ndarray  # (2,) angles at which it bulges, twice and three times around
    seed: int  # seed of its threads, which the protein may follow

    def at(self, share: np.ndarray | float, angle: np.ndarray) -> np.ndarray:
        """Return points (…, 2) at these shares of the way from the middle to the edge."""
        two, three = self.bends
        r = share * self.radius * (1 + 0.18 * np.cos(2 * (angle - two)) + 0.1 * np.cos(3 * (angle - three)))
        return self.middle + np.stack([r * np.cos(angle), r * np.sin(angle)], -1)


def render_cells(
    rng: Rng, size: int, known: Collection[str] = LABELS, in_yellow: Collection[str] = ()
) -> tuple[Mapping[str, Image.Image], list[str]]:
    """Return ({channel: grey image}, labels), with labels from `known`. Labels of `in_yellow` show in the
    yellow channel only."""
    shares = np.array([max(LABELS[name].images / N_IMAGES, MIN_SHARE) for name in known])
    there = rng.random(len(shares)) < shares
    green = np.array([name not in in_yellow for name in known])
    if not there[green].any():  # else an empty green channel would reveal a label in yellow
        there[rng.choice(len(shares), p=shares * green / (shares * green).sum())] = True
    labels = [name for name, is_there in zip(known, there) if is_there]
    side = size * SUPERSAMPLING
    group = [
        Cell(
            middle=(np.array(place) + rng.uniform(-0.07, 0.07, 2)) * side,
            radius=rng.uniform(0.19, 0.24) * side,
            bends=rng.uniform(0, FULL_TURN, 2),
            seed=int(rng.integers(2**31)),
        )
        for place in ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))
    ]
    layers = {name: _layer(rng, group, side, *background) for name, background in BACKGROUND.items()}
    for label in labels:
        pattern, layer = LABELS[label], layers["yellow" if label in in_yellow else "green"]
        wide = pattern.shape == "fill" and pattern.high - pattern.low > 0.2
        light = (110 if wide else 210) * rng.uniform(0.8, 1.2)
        np.maximum(layer, _layer(rng, group, side, pattern, light), out=layer)
    return {channel: _exposed(rng, layer) for channel, layer in layers.items()}, labels


def _layer(rng: Rng, group: list[Cell], side: int, pattern: Pattern, light: float) -> np.ndarray:
    """Return (side, side): one pattern in all cells."""
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    for cell in group:
        own = np.random.default_rng(cell.seed) if pattern.shape == "threads" else rng
        _draw(pen, own, cell, pattern, int(light * rng.uniform(0.85, 1.0)))
    return np.asarray(canvas).astype(float)


def _draw(pen: ImageDraw.ImageDraw, rng: Rng, cell: Cell, pattern: Pattern, light: int) -> None:
    _, shape, low, high, n, size, spread = pattern
    start = rng.uniform(0, FULL_TURN)
    if shape == "fill":
        angle = np.linspace(start, start + spread, 30)
        rim = np.concatenate([cell.at(high, angle), cell.at(low, angle[::-1])])
        pen.polygon(rim.ravel().tolist(), fill=light)
        return
    angle, share = start + spread * rng.random((n, 1)), rng.uniform(low, high, (n, 1))
    turn, way, reach = rng.uniform(-1.2, 1.2, (n, 1)), np.linspace(0, 1, 4), size * cell.radius
    if shape == "threads":  # along the edge and outwards
        lines = cell.at(share + (high - share) * way, angle + turn * way)  # (n, points, 2)
    elif shape == "rays":
        lines = cell.at(low + (high - low) * way, angle + 0 * way)
    elif shape == "rods":
        half = reach * np.stack([np.cos(2 * turn), np.sin(2 * turn)], -1)
        lines = np.concatenate([cell.at(share, angle) - half, cell.at(share, angle) + half], 1)
    else:  # dots and rings, by their corners
        lines = cell.at(share, angle) + reach * np.array([[-1, -1], [1, 1]])
    for line in lines.reshape(n, 2 * lines.shape[1]).tolist():
        if shape == "dots":
            pen.ellipse(line, fill=light)
        elif shape == "rings":
            pen.ellipse(line, outline=light, width=SUPERSAMPLING)
        else:
            pen.line(line, fill=light, width=1 if shape == "threads" else SUPERSAMPLING)


def _exposed(rng: Rng, layer: np.ndarray) -> Image.Image:
    """Return the layer as a camera sees it: at the image's size, with exposure, background and noise."""
    n = len(layer) // SUPERSAMPLING
    small = layer.reshape(n, SUPERSAMPLING, n, SUPERSAMPLING).mean((1, 3))
    seen = small * rng.uniform(0.6, 1.0) + rng.uniform(2, 12) + rng.normal(0, 5, small.shape)
    return Image.fromarray(np.clip(seen, 0, 255).astype(np.uint8))
