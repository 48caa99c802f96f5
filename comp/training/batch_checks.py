"""What is measured on the first batches, as tables, as lines below the pictures, and as warnings."""

import numpy as np

from comp.errors import summarize
from comp.training.first_batches import FirstBatch, FirstBatches

MAX_MEAN = 1.0  # of a channel after normalising; about 0 is expected
MIN_STD, MAX_STD = 0.2, 5.0  # of a channel after normalising; about 1 is expected
MUCH_BLACK = 0.5  # share of the pixels
MANY = 5.0  # images of a batch that a label is expected in, so that a batch without it is odd (e**-5 = 0.7 %)
MAX_LABELS = 20  # rows of the table of labels


def checks(seen: FirstBatches, batch: FirstBatch) -> dict[str, str]:
    """Return what is measured on a batch, by name."""
    found = {
        "images": f"{len(batch.targets):,} of {seen.n_train:,}",
        "files": files_text(batch),
        "size": f"{batch.phase.size} px"
        + (f" from {batch.side} px" if batch.side != batch.phase.size else ""),
        "black pixels": f"{batch.black:.1%}",
    }
    for k, name in enumerate(channel_names(seen)):
        found[f"{name}: mean, deviation"] = f"{batch.mean[k]:+.2f}, {batch.std[k]:.2f}"
    if kinds := sorted({image.kind for image in batch.shown if image.kind}):
        found["mixed"] = f"{' and '.join(kinds)}, own share {batch.shares.mean():.2f}"
    return found


def channel_names(seen: FirstBatches) -> list[str]:
    """Return the names of the channels that the network gets."""
    return list(seen.recipe.channels) or ["red", "green", "blue"]


def files_text(batch: FirstBatch) -> str:
    """Return '256 × 256 px', or the smallest and the largest of different sizes."""
    sizes = sorted(set(batch.files), key=lambda size: (size[0] * size[1], size))
    texts = [f"{width} × {height}" for width, height in (sizes[0], sizes[-1])]
    return f"{' to '.join(dict.fromkeys(texts))} px"


def label_rows(seen: FirstBatches) -> list[list[str]]:
    """Return a row for each of the commonest labels: its share of an epoch's images, and how many images of
    each batch have it; of numbers, the mean of an epoch and of each batch."""
    numbers = seen.recipe.competition.metric.kind == "numbers"
    order = np.argsort(-seen.expected, kind="stable") if not numbers else np.arange(len(seen.expected))
    rows = []
    for c in order[:MAX_LABELS].tolist():
        if numbers:
            means = [seen.expected[c], *(np.nanmean(batch.targets[:, c]) for batch in seen.batches)]
            rows.append([seen.classes[c], *(f"{mean:.4g}" for mean in means)])
        else:
            counts = [f"{_count(batch, c):,}" for batch in seen.batches]
            rows.append([seen.classes[c], f"{seen.expected[c]:.1%}", *counts])
    return rows


def check_lines(seen: FirstBatches, batch: FirstBatch) -> list[str]:
    """Return the checks of a batch as lines, and how many of its images have each label."""
    about = checks(seen, batch)
    channels = [name for name in about if "deviation" in name]
    of_channels = "; ".join(f"{name.split(':')[0]} {about[name]}" for name in channels)
    others = "; ".join(f"{name}: {text}" for name, text in about.items() if name not in channels)
    lines = [f"mean, deviation after normalising: {of_channels}", others]
    if seen.recipe.competition.metric.kind != "numbers":
        counts = (batch.targets > 0.5).sum(0)
        most = [c for c in np.argsort(-counts, kind="stable")[:MAX_LABELS].tolist() if counts[c]]
        lines.append("images with: " + ", ".join(f"{seen.classes[c]} {counts[c]:,}" for c in most))
    return lines


def warnings(seen: FirstBatches, batch: FirstBatch) -> list[str]:
    """Return a line for each thing that is odd about a batch."""
    lines, n = [], len(batch.targets)
    odd = (np.abs(batch.mean) > MAX_MEAN) | (batch.std < MIN_STD) | (batch.std > MAX_STD)
    if odd.any():
        values = [
            f"{name} {mean:+.2f}, {std:.2f}"
            for name, mean, std, is_odd in zip(channel_names(seen), batch.mean, batch.std, odd)
            if is_odd
        ]
        hint = "" if seen.n_measured else '; normalize = "dataset" measures the training images'
        lines.append(f"mean and deviation are far from 0 and 1: {'; '.join(values)}{hint}")
    if batch.n_blank:
        lines.append(f"{batch.n_blank} of {n} images are blank: all pixels have one value")
    elif batch.black > MUCH_BLACK:
        lines.append(f"{batch.black:.0%} of the pixels are black")
    small = sum(max(size) < batch.phase.size for size in batch.files)
    if small > n / 2:
        lines.append(f"{small} of {n} files are smaller than {batch.phase.size} px, and are enlarged")
    if seen.recipe.competition.metric.kind == "numbers":
        return lines
    likely = seen.expected * n >= MANY
    if absent := [seen.classes[c] for c in np.flatnonzero(likely).tolist() if not _count(batch, c)]:
        lines.append(
            f"no image of the batch has {summarize(absent)}, which {MANY:g} or more would have by chance"
        )
    return lines


def _count(batch: FirstBatch, c: int) -> int:
    return int((batch.targets[:, c] > 0.5).sum())
