"""Equal and nearly equal images: thumbnails -> fingerprints, whose products say how alike two images are ->
groups that must not be torn apart.

A fingerprint is a perceptual hash that is not rounded to bits. ImageHash's `phash` has one bit for each of
the lowest 8×8 frequencies of a 32-pixel thumbnail, so that images without much contrast are compared by their
noise. Here the lowest 16×16 are numbers, each times its frequency: amplitudes of natural images fall with it
(Field 1987), so that each then says about as much. What rounding to grey levels adds counts as unlike.

Where every channel is a file of its own, each counts as much as the others, however bright it is, and not at
all where it is blank. One alike channel is not enough: the microscope's shading may be all that it holds."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from comp.artifacts.csv_tables import read_table
from comp.artifacts.paths import duplicates_path
from comp.artifacts.schemas import Compared
from comp.artifacts.stamps import digest, read_stamp
from comp.console import progress
from comp.data.image_files import resize
from comp.data.labels import Labels
from comp.errors import CompError, some
from comp.safe_text import of_cell

SIDE = 32  # pixels of a thumbnail
KEPT = 16  # its lowest frequencies, each way
LIKENESS = 0.9  # from which two images count as nearly equal
BLANK = 0.5  # the squared length of a fingerprint that is as much rounding as image
TILE = 1024  # rows that are compared with as many others at once: 4 MB
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # RGB to grey, as Pillow and ImageHash do it (ITU-R 601)

_k = np.arange(KEPT)
BASIS = np.cos(np.pi / SIDE * (np.arange(SIDE) + 0.5) * _k[:, None]) * np.sqrt(
    2 / SIDE
)  # DCT-II, orthonormal
BASIS[0] /= np.sqrt(2)
BASIS = BASIS.astype(np.float32)
FREQUENCY = np.sqrt(_k[:, None] ** 2 + _k**2).astype(np.float32)  # 0 for the mean, which doesn't count
ROUNDING = float((FREQUENCY**2).sum() / 12)  # what rounding to whole grey levels adds to a squared length

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows i, rows j, and how alike each two are
Groups = dict[tuple[str, str], str]  # by (split, id), of the images that have a duplicate


def fingerprints(thumbnails: np.ndarray, *, joined: bool) -> np.ndarray:
    """(N, 256 a channel) float32, of length 1 or less, of thumbnails (N, side, side, channels) uint8. RGB is
    one channel, its luma; `joined` channels are one each."""
    parts = [np.zeros((0, KEPT * KEPT * (thumbnails.shape[-1] if joined else 1)), np.float32)]
    for start in range(0, len(thumbnails), TILE):
        images = np.asarray(thumbnails[start : start + TILE])
        if images.shape[1:3] != (SIDE, SIDE):
            images = np.stack([resize(image, SIDE) for image in images])
        images = images.astype(np.float32)
        planes = images.transpose(0, 3, 1, 2) if joined else (images @ LUMA)[:, None]
        waves = BASIS @ planes @ BASIS.T * FREQUENCY
        waves /= np.sqrt((waves**2).sum((2, 3), keepdims=True) + ROUNDING)
        prints = waves.reshape(len(images), -1)
        parts.append(prints / np.maximum(1, np.linalg.norm(prints, axis=1, keepdims=True)))
    return np.concatenate(parts)


@dataclass(frozen=True)
class Found:
    group: np.ndarray  # (N,) int: the first row of each row's group, itself where it has no duplicate
    likeness: np.ndarray  # (N,) float32: to the most alike other row of the group, 0 where there is none
    n_blank: int  # rows without contrast, which are never called duplicates
    torn: float = 0.0  # how alike rows are that `most` keeps apart


def find(
    thumbnails: Sequence[np.ndarray], *, joined: bool, likeness: float = LIKENESS, most: int | None = None
) -> Found:
    """Groups of alike images over several sets of thumbnails, whose rows are counted through. An equal
    thumbnail joins the groups of two images, and so does a product of `likeness` or more: the most alike
    first, and none but equal ones to a group of over `most` rows of the first set. The images of a camera
    that stands still are each like the next, and would else all be one group."""
    prints = np.concatenate([fingerprints(part, joined=joined) for part in thumbnails])
    n, strength = len(prints), (prints**2).sum(1)
    blank = strength < BLANK
    seen: dict[bytes, int] = {}
    keys = (
        hashlib.blake2b(image.tobytes(), digest_size=16).digest() for part in thumbnails for image in part
    )
    group = np.array([seen.setdefault(key, row) for row, key in enumerate(keys)], int)
    group[blank] = np.flatnonzero(blank)
    copies = np.flatnonzero(group != np.arange(n))
    nearest = np.zeros(n, np.float32)
    nearest[copies] = nearest[group[copies]] = 1
    # one of each that is equal; a product is at most the shorter one's length
    rows = np.flatnonzero((group == np.arange(n)) & (strength >= likeness**2))
    i, j, values = forest(alike(prints[rows], likeness), len(rows))
    i, j, torn = rows[i], rows[j], 0.0
    if most is not None:
        kept = within(most, np.bincount(group[: len(thumbnails[0])], minlength=n), i, j)
        torn = float(values[~kept].max(initial=0))
        i, j, values = i[kept], j[kept], values[kept]
    np.maximum.at(nearest, i, values)
    np.maximum.at(nearest, j, values)
    return Found(connected(group, i, j), np.minimum(nearest, 1), int(blank.sum()), torn)


def alike(prints: np.ndarray, likeness: float) -> Iterator[Pairs]:
    """All pairs i < j of rows (N, F) whose product is `likeness` or more, some at a time: (i, j, product)."""
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


def forest(pairs: Iterable[Pairs], n: int) -> Pairs:
    """Those of the pairs of n rows that connect as much as all of them, the most alike ones: a maximum
    spanning forest. They are sorted, the most alike first."""
    kept: Pairs = (np.zeros(0, int), np.zeros(0, int), np.zeros(0, np.float32))
    for more in pairs:
        i, j, values = (np.concatenate(both) for both in zip(kept, more))
        graph = coo_matrix((2 - values.astype(float), (i, j)), (n, n))  # never 0, which would be no pair
        tree = minimum_spanning_tree(graph.tocsr()).tocoo()
        kept = tree.row, tree.col, (2 - tree.data).astype(np.float32)
    i, j, values = kept
    order = np.lexsort((j, i, -values))
    return i[order], j[order], values[order]


def within(most: int, size: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """(P,) bool: which pairs, one after the other, join two groups of rows (N,) of these sizes to one of at
    most so many."""
    part, size = np.arange(len(size)), size.copy()

    def first(row: int) -> int:
        while part[row] != row:
            part[row] = row = part[part[row]]
        return row

    kept = np.zeros(len(i), bool)
    for pair, ends in enumerate(zip(i.tolist(), j.tolist())):
        a, b = map(first, ends)
        if size[a] == 0 or size[b] == 0 or size[a] + size[b] <= most:
            kept[pair], part[b] = True, a
            size[a] += size[b]
    return kept


def connected(group: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """(N,) int: the first row of each row's group, once rows i and j are in one."""
    rows = np.concatenate([np.arange(len(group)), i])
    columns = np.concatenate([group, j])
    graph = coo_matrix((np.ones(len(rows), np.uint8), (rows, columns)), (len(group), len(group)))
    _, part_of = connected_components(graph, directed=False)
    return np.unique(part_of, return_index=True)[1][part_of]


# --- what other stages ask ----------------------------------------------------------------------------------


def read_groups(competition: str) -> Groups:
    """The groups that `comp duplicates` found; none where it has not run."""
    path = duplicates_path(competition)
    if not path.exists():
        return {}
    table = read_table(path, ["split", "id", "group"])
    return dict(zip(zip(table["split"], table["id"].map(of_cell)), table["group"]))


def groups_about(competition: str, sets: Mapping[str, str]) -> Groups:
    """The same, which must be about these sets of images, stamps by name: CompError where it is about others.
    A table that has no stamp is not from here, and taken as it is."""
    path = duplicates_path(competition)
    groups, made = read_groups(competition), read_stamp(path.with_suffix(".json"), Compared)
    for name, stamp in sets.items():
        if path.exists() and made and made["sets"].get(name) != stamp:
            raise CompError(f"{path} is about other {name} images; run `comp duplicates --force`")
    return groups


def grouped(labels: Labels, competition: str, images: str) -> Labels:
    """The labels with the rows that must stay in one fold: those of one `labels.group`, and those that are
    duplicates, or have groups with duplicates of each other. `images` is the data's stamp.

    Raises CompError where the duplicates are those of other images."""
    path = duplicates_path(competition)
    found = groups_about(competition, {"train": digest(images, labels.ids)})
    groups = {name: group for (split, name), group in found.items() if split == "train"}
    if not groups:
        return labels
    if unknown := sorted(groups.keys() - set(labels.ids.tolist())):
        raise CompError(f"{path} has train ids that the labels don't have: {some(unknown)}")
    names, unit_of = np.unique(labels.ids if labels.groups is None else labels.groups, return_inverse=True)
    first: dict[str, int] = {}
    pairs = [
        (unit, first.setdefault(groups[name], unit))
        for name, unit in zip(labels.ids.tolist(), unit_of.tolist())
        if name in groups
    ]
    i, j = np.array(pairs).T
    return replace(labels, groups=names[connected(np.arange(len(names)), i, j)[unit_of]])


def copies_of(
    held_out: Sequence[str], split: str, ids: Sequence[str], groups: Mapping[tuple[str, str], str]
) -> np.ndarray:
    """(N,) bool: which images `ids` of the set `split` are duplicates of train images in `held_out`, and must
    not be trained on while those are."""
    leaking = {groups[key] for name in held_out if (key := ("train", str(name))) in groups}
    return np.array([groups.get((split, str(name))) in leaking for name in ids], bool)
