"""Numbers of any kind to uint8: which become black and white."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Limits(NamedTuple):
    """The values that become black and white in files with more than 8 bits per channel: numbers for all
    channels, or one for each."""

    low: float | tuple[float, ...]
    high: float | tuple[float, ...]
    bits: str = ""  # for messages: how many bits of the file are used

    @classmethod
    def of_pairs(cls, pairs: Sequence[Sequence[float]], bits: str = "") -> "Limits":
        """Return the limits for pairs of black and white: one for all channels, or one for each."""
        low, high = zip(*pairs)
        return cls(low, high, bits) if len(pairs) > 1 else cls(low[0], high[0], bits)

    def pairs(self) -> list[tuple[float, float]]:
        """Return black and white: one pair for all channels, or one for each."""
        return list(zip(np.atleast_1d(self.low).tolist(), np.atleast_1d(self.high).tolist()))

    def of_channels(self, channels: Sequence[int]) -> "Limits":
        """Return the limits of these channels, counted from 0."""
        pairs = self.pairs()
        return self if len(pairs) == 1 else self.of_pairs([pairs[k] for k in channels], self.bits)

    def __str__(self) -> str:
        ranges = [f"{low:,.6g} … {high:,.6g}" for low, high in self.pairs()]
        return ranges[0] if len(ranges) == 1 else f"{'; '.join(ranges)} (by channel)"


def scale_to_uint8(values: np.ndarray, limits: Limits) -> np.ndarray:
    """Scale values of any type to uint8; limits by channel belong to the last axis. Values beyond the limits
    are clipped; NaN becomes black."""
    low, high = np.asarray(limits.low, float), np.asarray(limits.high, float)
    wide = values.astype(np.float64)
    wide = np.clip(np.where(np.isnan(wide), low, wide), low, high)
    if (low == 0).all() and ((high + 1) % 256 == 0).all():  # whole bits: drop the lowest ones
        return (wide // ((high + 1) / 256)).astype(np.uint8)
    return np.rint((wide - low) * (255 / (high - low))).astype(np.uint8)
