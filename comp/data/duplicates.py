"""Find equal and nearly equal images: thumbnails -> fingerprints -> likeness of pairs -> groups.

A fingerprint is a perceptual hash that is not rounded to bits; the product of two is the likeness of their
images. ImageHash's `phash` has one bit for each of the lowest 8×8 frequencies of a 32-pixel thumbnail, so it
compares images without much contrast by their noise. Here the lowest 16×16 frequencies are numbers, each
multiplied by its frequency: amplitudes of natural images fall with frequency (Field 1987), so all numbers
then matter about equally. The error of rounding to grey levels lowers the likeness.

If every channel is a file of its own, all channels count equally, however bright they are; a blank channel
does not count. One similar channel is not enough: it may show nothing but the microscope's shading."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from comp.artifacts.csv_tables import read_table
from comp.artifacts.paths import duplicates_path
from comp.artifacts.schemas import DuplicatesStamp
from comp.artifacts.stamps import digest, read_stamp
from comp.console import progress
from comp.data.image_files import resize
from comp.data.labels import Labels
from comp.errors import CompError, summarize
from comp.safe_text import unescape_cell

THUMBNAIL_SIDE = 32  # pixels of a thumbnail
N_FREQUENCIES = 16  # lowest frequencies per direction
LIKENESS = 0.9  # default: two images with at least this likeness are nearly equal
MIN_STRENGTH = 0.5  # squared length of a fingerprint: less is a blank image
TILE = 1024  # rows and columns of likeness computed at once: 4 MB
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # RGB to grey, as Pillow and ImageHash do it (ITU-R 601)

_k = np.arange(N_FREQUENCIES)
BASIS = np.cos(np.pi / THUMBNAIL_SIDE * (np.arange(THUMBNAIL_SIDE) + 0.5) * _k[:, None]) * np.sqrt(
    2 / THUMBNAIL_SIDE
)  # DCT-II, orthonormal
BASIS[0] /= np.sqrt(2)
BASIS = BASIS.astype(np.float32)
FREQUENCY = np.sqrt(_k[:, None] ** 2 + _k**2).astype(np.float32)  # 0 for the mean: it does not count
ROUNDING = float((FREQUENCY**2).sum() / 12)  # squared length added by rounding to grey levels

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows i, rows j, likeness
Groups = dict[tuple[str, str], str]  # (split, id) of an image with a duplicate: its group


def fingerprints(thumbnails: np.ndarray, *, joined: bool) -> np.ndarray:
    """Return (N, 256 per channel) float32, of length 1 or less, for thumbnails (N, side, side, channels)
    uint8. RGB is one channel, its luma; `joined` channels count separately."""
    parts = [
        np.zeros((0, N_FREQUENCIES * N_FREQUENCIES * (thumbnails.shape[-1] if joined else 1)), np.float32)
    ]
    for start in range(0, len(thumbnails), TILE):
        images = np.asarray(thumbnails[start : start + TILE])
        if images.shape[1:3] != (THUMBNAIL_SIDE, THUMBNAIL_SIDE):
            images = np.stack([resize(image, THUMBNAIL_SIDE) for image in images])
        images = images.astype(np.float32)
        planes = images.transpose(0, 3, 1, 2) if joined else (images @ LUMA)[:, None]
        waves = BASIS @ planes @ BASIS.T * FREQUENCY
        waves /= np.sqrt((waves**2).sum((2, 3), keepdims=True) + ROUNDING)
        prints = waves.reshape(len(images), -1)
        parts.append(prints / np.maximum(1, np.linalg.norm(prints, axis=1, keepdims=True)))
    return np.concatenate(parts)


@dataclass(frozen=True)
class FoundDuplicates:
    group: np.ndarray  # (N,) int: the first row of each row's group
    likeness: np.ndarray  # (N,) float32: to the most similar row of the group; 0: no duplicate
    n_blank: int  # rows without contrast: never duplicates
    split_likeness: float = 0.0  # largest likeness of two rows that `max_group` keeps apart


def find_duplicates(
    thumbnails: Sequence[np.ndarray],
    *,
    joined: bool,
    likeness: float = LIKENESS,
    max_group: int | None = None,
) -> FoundDuplicates:
    """Return the groups of similar images in several sets of thumbnails, whose rows are numbered
    consecutively.

    Equal thumbnails are always in one group. Pairs with `likeness` or more join their groups, the most
    similar pairs first, unless the group would have more than `max_group` rows of the first set. Without this
    limit all images of a still camera would be one group, because each is similar to the next."""
    prints = np.concatenate([fingerprints(part, joined=joined) for part in thumbnails])
    n, strength = len(prints), (prints**2).sum(1)
    blank = strength < MIN_STRENGTH
    seen: dict[bytes, int] = {}
    keys = (
        hashlib.blake2b(image.tobytes(), digest_size=16).digest() for part in thumbnails for image in part
    )
    group = np.array([seen.setdefault(key, row) for row, key in enumerate(keys)], int)
    group[blank] = np.flatnonzero(blank)
    copies = np.flatnonzero(group != np.arange(n))
    nearest = np.zeros(n, np.float32)
    nearest[copies] = nearest[group[copies]] = 1
    # one row of equal ones; a product is at most the length of the shorter fingerprint
    rows = np.flatnonzero((group == np.arange(n)) & (strength >= likeness**2))
    i, j, values = spanning_forest(similar_pairs(prints[rows], likeness), len(rows))
    i, j, split_likeness = rows[i], rows[j], 0.0
    if max_group is not None:
        kept = allowed_joins(max_group, np.bincount(group[: len(thumbnails[0])], minlength=n), i, j)
        split_likeness = float(values[~kept].max(initial=0))
        i, j, values = i[kept], j[kept], values[kept]
    np.maximum.at(nearest, i, values)
    np.maximum.at(nearest, j, values)
    return FoundDuplicates(connect(group, i, j), np.minimum(nearest, 1), int(blank.sum()), split_likeness)


def similar_pairs(prints: np.ndarray, likeness: float) -> Iterator[Pairs]:
    """Yield (i, j, product) of all pairs i < j of rows (N, F) with a product of at least `likeness`, in
    parts."""
    n = len(prints)
    with progress("comparing pairs of images", n * (n + 1) // 2) as advance:
        for top in range(0, n, TILE):
            rows = prints[top : top + TILE]
            for left in range(top, n, TILE):
                products = (rows @ prints[left : left + TILE].T).ravel()
                places = np.flatnonzero(products >= likeness)
                i, j = np.divmod(places, min(TILE, n - left))
                once = i + top < j + left
                if once.any():
                    yield (i + top)[once], (j + left)[once], products[places[once]]
            advance(len(rows) * (n - top) - len(rows) * (len(rows) - 1) // 2)


def spanning_forest(pairs: Iterable[Pairs], n: int) -> Pairs:
    """Return a maximum spanning forest: the most similar pairs of n rows that connect as much as all pairs
    do. They are sorted by falling likeness."""
    kept: Pairs = (np.zeros(0, int), np.zeros(0, int), np.zeros(0, np.float32))
    for more in pairs:
        i, j, values = (np.concatenate(both) for both in zip(kept, more))
        graph = coo_matrix((2 - values.astype(float), (i, j)), (n, n))  # never 0: that would be no pair
        tree = minimum_spanning_tree(graph.tocsr()).tocoo()
        kept = tree.row, tree.col, (2 - tree.data).astype(np.float32)
    i, j, values = kept
    order = np.lexsort((j, i, -values))
    return i[order], j[order], values[order]


def allowed_joins(max_group: int, size: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return (P,) bool: which pairs, one after another, join two groups without exceeding `max_group`. `size`
    (N,) are the sizes of the rows."""
    part, size = np.arange(len(size)), size.copy()

    def first(row: int) -> int:
        while part[row] != row:
            part[row] = row = part[part[row]]
        return row

    kept = np.zeros(len(i), bool)
    for pair, ends in enumerate(zip(i.tolist(), j.tolist())):
        a, b = map(first, ends)
        if size[a] == 0 or size[b] == 0 or size[a] + size[b] <= max_group:
            kept[pair], part[b] = True, a
            size[a] += size[b]
    return kept


def connect(group: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Return (N,) int: the first row of each row's group after joining the groups of rows i and j."""
    rows = np.concatenate([np.arange(len(group)), i])
    columns = np.concatenate([group, j])
    graph = coo_matrix((np.ones(len(rows), np.uint8), (rows, columns)), (len(group), len(group)))
    _, part_of = connected_components(graph, directed=False)
    return np.unique(part_of, return_index=True)[1][part_of]


# --- read by other stages -----------------------------------------------------------------------------------


def read_groups(competition: str) -> Groups:
    """Return the groups that `comp duplicates` found; none if it has not run."""
    path = duplicates_path(competition)
    if not path.exists():
        return {}
    table = read_table(path, ["split", "id", "group"])
    return dict(zip(zip(table["split"], table["id"].map(unescape_cell)), table["group"]))


def read_groups_for(competition: str, sets: Mapping[str, str]) -> Groups:
    """Return the groups, and raise CompError if they were found in other images than `sets`, the fingerprints
    by name. A table without a stamp was not written by comp and is used unchanged."""
    path = duplicates_path(competition)
    groups, made = read_groups(competition), read_stamp(path.with_suffix(".json"), DuplicatesStamp)
    for name, fingerprint in sets.items():
        if path.exists() and made and made["sets"].get(name) != fingerprint:
            raise CompError(f"{path} is about other {name} images; run `comp duplicates --force`")
    return groups


def with_duplicate_groups(labels: Labels, competition: str, images: str) -> Labels:
    """Return the labels with `fold_groups` that join the groups of `labels.group` and those of duplicates.

    `images` is the fingerprint of the competition's files. Raise CompError if the duplicates were found in
    other images."""
    path = duplicates_path(competition)
    found = read_groups_for(competition, {"train": digest(images, labels.ids)})
    groups = {name: group for (split, name), group in found.items() if split == "train"}
    if not groups:
        return labels
    if unknown := sorted(groups.keys() - set(labels.ids.tolist())):
        raise CompError(f"{path} has train ids that the labels don't have: {summarize(unknown)}")
    names, unit_of = np.unique(
        labels.ids if labels.fold_groups is None else labels.fold_groups, return_inverse=True
    )
    first: dict[str, int] = {}
    pairs = [
        (unit, first.setdefault(groups[name], unit))
        for name, unit in zip(labels.ids.tolist(), unit_of.tolist())
        if name in groups
    ]
    i, j = np.array(pairs).T
    return replace(labels, fold_groups=names[connect(np.arange(len(names)), i, j)[unit_of]])


def find_copies(
    held_out: Sequence[str], split: str, ids: Sequence[str], groups: Mapping[tuple[str, str], str]
) -> np.ndarray:
    """Return (N,) bool: which images `ids` of the set `split` are duplicates of the train images `held_out`.
    They must not be trained on while these are held out."""
    leaking = {groups[key] for name in held_out if (key := ("train", str(name))) in groups}
    return np.array([groups.get((split, str(name))) in leaking for name in ids], bool)
