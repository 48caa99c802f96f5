"""Synthetic images with one answer each: the amount of cloud, the share of water, the country of a flag."""

from itertools import permutations

import numpy as np
from PIL import Image

from comp.data.synthetic.scenes import Rng, smooth_noise

N_GRADES = 5  # of cloud: 0 is a clear sky
LABEL_ERRORS = 0.1  # share of flags
COLOURS = {
    "black": (25, 25, 25),
    "blue": (35, 70, 170),
    "green": (30, 130, 60),
    "red": (190, 30, 40),
    "white": (235, 235, 230),
    "yellow": (235, 200, 50),
}
FLAGS = tuple("-".join(colours) for colours in permutations(COLOURS, 3))  # 120: three stripes from the top


def render_clouds(rng: Rng, size: int) -> tuple[Image.Image, str]:
    """Return an RGB image of a landscape under clouds, and their grade from 0 to 4. People who grade err by
    one in a tenth of the images."""
    cover = rng.beta(0.8, 1.2)
    ground = np.array([60, 90, 55]) + 14 * smooth_noise(rng, size, 8)[..., None]
    sky = smooth_noise(rng, size, 4) + 0.5 * smooth_noise(rng, size, 9)
    clouds = _covering(sky, cover)
    image = ground * (1 - clouds) + (225 + 10 * smooth_noise(rng, size, 6)[..., None]) * clouds
    grade = int(cover * N_GRADES) + int(rng.choice([-1, 0, 1], p=[0.05, 0.9, 0.05]))
    return _picture(rng, image), str(min(max(grade, 0), N_GRADES - 1))


def render_lakes(rng: Rng, size: int) -> tuple[Image.Image, str]:
    """Return an RGB image of land with lakes, and the share of water in percent with a decimal."""
    share = rng.beta(1.2, 1.8)
    land = np.array([120, 115, 70]) + 16 * smooth_noise(rng, size, 9)[..., None]
    water = _covering(smooth_noise(rng, size, 5), share)
    image = land * (1 - water) + np.array([45, 70, 100]) * water
    return _picture(rng, image), f"{100 * float(water.mean()):.1f}"


def render_flag(rng: Rng, size: int, flags: tuple[str, ...]) -> tuple[Image.Image, str]:
    """Return an RGB image of one of the flags, rippled by the wind, and its name: the colours of its stripes
    from the top. Some flags are rarer than others, and LABEL_ERRORS of the images have another's name."""
    odds = 1 / np.arange(1, len(flags) + 1) ** 0.5
    name = flags[int(rng.choice(len(flags), p=odds / odds.sum()))]
    stripes = np.array([COLOURS[colour] for colour in name.split("-")], float)
    ripple = smooth_noise(rng, size, 4) * size * 0.03
    height = np.arange(size)[:, None] + ripple
    image = stripes[np.clip(height * 3 / size, 0, 2.999).astype(int)]
    given = name if rng.random() > LABEL_ERRORS else str(rng.choice(flags))
    return _picture(rng, image * (1 + 0.06 * ripple[..., None] / (size * 0.03))), given


def _covering(field: np.ndarray, share: float) -> np.ndarray:
    """Return (size, size, 1) 1 in the highest places of a field, which make up the share, else 0."""
    return (field > np.quantile(field, 1 - share))[..., None].astype(float)


def _picture(rng: Rng, image: np.ndarray) -> Image.Image:
    noisy = image * rng.uniform(0.85, 1.15) + rng.normal(0, 7, image.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
