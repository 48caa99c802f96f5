"""Synthetic satellite scenes and their labels."""

import numpy as np
from PIL import Image, ImageDraw

WEATHER = {"clear": 0.62, "partly_cloudy": 0.2, "haze": 0.11, "cloudy": 0.07}
MINE_SHARE = 0.025  # share of the images with a mine
LABEL_NOISE = 0.02  # share of small things that the labels miss, as people do
Rng = np.random.Generator


def render_scene(rng: Rng, size: int) -> tuple[Image.Image, list[str]]:
    """Return an RGB image and its labels, sorted."""
    weather = str(rng.choice(list(WEATHER), p=list(WEATHER.values())))
    labels = {weather}
    ground, land = _land(rng, size)
    if weather == "cloudy":
        ground = 0.08 * ground + 0.92 * (215 + 25 * _clouds(rng, size)[..., None])
    else:
        labels |= land
    if weather == "haze":
        ground = 0.45 * ground + 0.55 * np.array([170, 178, 190]) * rng.uniform(0.85, 1.05)
    if weather == "partly_cloudy":
        cover = np.clip((_clouds(rng, size) - rng.uniform(0.1, 0.6)) * 2.5, 0, 1)[..., None]
        shadow = np.roll(cover, (size // 8, size // 10), (0, 1))
        ground = ground * (1 - 0.35 * shadow) * (1 - cover) + 238 * cover
    ground = ground * rng.uniform(0.85, 1.15) + rng.normal(0, 7, ground.shape)
    labels -= {name for name in sorted(land) if rng.random() < LABEL_NOISE and name != "primary"}
    return Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8)), sorted(labels)


def _land(rng: Rng, size: int) -> tuple[np.ndarray, set[str]]:
    """Return the ground (size, size, 3) as floats 0 … 255, and the labels of what is on it."""
    labels = set()
    texture = smooth_noise(rng, size, 8)[..., None] * 14 + smooth_noise(rng, size, 24)[..., None] * 9
    wooded = rng.random() < 0.88
    if wooded:
        labels.add("primary")
    base = np.array([44, 72, 42]) if wooded else np.array([104, 100, 66])
    canvas = Image.fromarray(np.clip(base * rng.uniform(0.85, 1.2, 3) + texture, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(canvas)
    settled = rng.random() < 0.4
    if rng.random() < (0.6 if settled else 0.12):
        labels.add("agriculture")
        for _ in range(rng.integers(1, 4)):
            _field(pen, rng, size)
    if rng.random() < (0.28 if settled else 0.06):
        labels.add("cultivation")
        for _ in range(rng.integers(1, 3)):
            _clearing(pen, rng, size)
    if rng.random() < 0.24:
        labels.add("water")
        river = _path(rng, size)
        pen.line(
            river,
            fill=_shade(rng, (58, 74, 82)),
            width=int(rng.integers(2, max(3, size // 9))),
            joint="curve",
        )
    if rng.random() < (0.62 if settled else 0.08):
        labels.add("road")
        pen.line(
            _path(rng, size, bend=0.05), fill=_shade(rng, (150, 132, 108)), width=int(rng.integers(1, 3))
        )
    if rng.random() < (0.35 if settled else 0.02):
        labels.add("habitation")
        _houses(pen, rng, size)
    if rng.random() < MINE_SHARE:
        labels.add("mine")
        _mine(pen, rng, size)
    return np.asarray(canvas).astype(float), labels


def smooth_noise(rng: Rng, size: int, cells: int) -> np.ndarray:
    """Return noise (size, size) with blobs of size / cells pixels, mean 0, standard deviation near 1."""
    coarse = Image.fromarray(rng.normal(0, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def _clouds(rng: Rng, size: int) -> np.ndarray:
    return smooth_noise(rng, size, 4) * 0.7 + smooth_noise(rng, size, 9) * 0.4


def _shade(rng: Rng, colour: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(
        int(v) for v in np.clip(np.array(colour) * rng.uniform(0.75, 1.2) + rng.normal(0, 5, 3), 0, 255)
    )


def _path(rng: Rng, size: int, bend: float = 0.22) -> list[tuple[float, float]]:
    """Return the points of a bent line across the image."""
    angle, offset = rng.uniform(0, np.pi), rng.uniform(-0.3, 0.3) * size
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    t = np.linspace(-0.8, 0.8, 9)
    wave = offset + bend * size * np.sin(t * rng.uniform(2, 6) + rng.uniform(0, 6))
    points = size / 2 + t[:, None] * size * along + wave[:, None] * across
    return [(float(x), float(y)) for x, y in points]


def _field(pen: ImageDraw.ImageDraw, rng: Rng, size: int) -> None:
    """Draw a quadrilateral of one colour with furrows."""
    centre, half = rng.uniform(0.15, 0.85, 2) * size, rng.uniform(0.12, 0.28, 2) * size
    turn = rng.uniform(0, np.pi)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half @ axes + centre
    colour = _shade(rng, (112, 118, 66) if rng.random() < 0.6 else (134, 112, 82))
    pen.polygon([(float(x), float(y)) for x, y in corners], fill=colour)
    for step in np.linspace(0.15, 0.85, 5):
        a, b = corners[0] * (1 - step) + corners[1] * step, corners[3] * (1 - step) + corners[2] * step
        pen.line([tuple(a), tuple(b)], fill=tuple(int(v * 0.9) for v in colour))


def _clearing(pen: ImageDraw.ImageDraw, rng: Rng, size: int) -> None:
    """Draw an irregular light patch: the colours of a field without straight edges."""
    centre, angles = rng.uniform(0.15, 0.85, 2) * size, np.sort(rng.uniform(0, 2 * np.pi, 11))
    radii = rng.uniform(0.05, 0.17, 11) * size
    rim = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    pen.polygon([(float(x), float(y)) for x, y in rim], fill=_shade(rng, (116, 116, 72)))


def _houses(pen: ImageDraw.ImageDraw, rng: Rng, size: int) -> None:
    centre = rng.uniform(0.2, 0.8, 2) * size
    for x, y in centre + rng.normal(0, size / 10, (int(rng.integers(5, 14)), 2)):
        side = rng.uniform(1, 2.2)
        pen.rectangle(
            [float(x), float(y), float(x + side), float(y + side)], fill=_shade(rng, (196, 186, 180))
        )


def _mine(pen: ImageDraw.ImageDraw, rng: Rng, size: int) -> None:
    """Draw ochre ground with small turquoise ponds."""
    x, y = rng.uniform(0.25, 0.75, 2) * size
    r = rng.uniform(0.15, 0.24) * size
    pen.ellipse([x - r, y - 0.7 * r, x + r, y + 0.7 * r], fill=_shade(rng, (188, 158, 104)))
    for dx, dy in rng.uniform(-0.6, 0.6, (4, 2)) * r:
        pen.ellipse([x + dx - 2, y + dy - 2, x + dx + 2, y + dy + 2], fill=_shade(rng, (88, 168, 158)))
