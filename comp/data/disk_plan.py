"""How many images a recipe has, and what they take on the disk, before or after the download."""

from dataclasses import dataclass

from comp.artifacts.paths import manifest_path
from comp.config.recipe import Recipe
from comp.console import size_text
from comp.data.duplicates import THUMBNAIL_SIDE
from comp.data.image_cache import cache_bytes, probe
from comp.data.manifest import read_manifest
from comp.errors import CompError


@dataclass(frozen=True)
class ImageCounts:
    """The images of a competition, without external ones."""

    n_train: int
    n_test: int
    size: int  # the longer side of an image, in pixels
    archive_bytes: float  # to download and to unpack; 0 after the download
    source: str  # of these numbers, for people


def count_images(recipe: Recipe) -> ImageCounts:
    """Return the counts by the downloaded files, or else by the competition's TOML. Raise CompError if
    neither has them."""
    competition = recipe.competition
    if manifest_path(competition.name).exists():
        data = read_manifest(competition)
        train = data.images("train", data.labels(competition).ids, recipe.channels)
        n_test = len(data.test_ids(competition))
        return ImageCounts(len(train.ids), n_test, probe(train)[0], 0.0, "as downloaded")
    if drawn := competition.drawn:
        return ImageCounts(drawn.n_train, drawn.n_test, drawn.size, 0.0, "to be drawn")
    if counts := listed_counts(recipe):
        return counts
    raise CompError(
        f"how many images {competition.name} has is not known; run `comp download` first, or write n_train, "
        "n_test and size (pixels) into a table [listed] of the competition's TOML"
    )


def listed_counts(recipe: Recipe) -> ImageCounts | None:
    """Return the counts by the competition's TOML; None if it has none."""
    if not (listed := recipe.competition.listed):
        return None
    n_bytes = listed.gigabytes * 1e9
    return ImageCounts(listed.n_train, listed.n_test, listed.size, n_bytes, "as the competition lists them")


def cached_parts(recipe: Recipe, counts: ImageCounts) -> dict[str, int]:
    """Return by name the bytes of each cache that the stages of a recipe build."""
    wanted = [("train", counts.n_train, size) for size in recipe.cached_sizes.values()]
    wanted.append(("test", counts.n_test, recipe.phases[-1].size))
    wanted.append(("all", counts.n_train + counts.n_test, THUMBNAIL_SIDE))
    sides = [(name, n, min(size, counts.size)) for name, n, size in wanted]
    return {f"{name} {side} px": cache_bytes(n, side, recipe.n_channels) for name, n, side in sides}


def listed_cache_bytes(recipe: Recipe) -> int:
    """Return the bytes of all caches by the competition's TOML; 0 if it has no counts."""
    counts = listed_counts(recipe)
    return sum(cached_parts(recipe, counts).values()) if counts else 0


def describe_download(recipe: Recipe, free: int) -> str | None:
    """Return a line on the disk that all stages of a recipe take from the download on, beside the `free`
    bytes; None if the sizes are not listed."""
    if not (counts := listed_counts(recipe)):
        return None
    archives, cached = counts.archive_bytes, listed_cache_bytes(recipe)
    verdict = ""
    if archives + cached > free:
        verdict = ": free some space, or move data/ with COMP_DATA"
    elif 2 * archives + cached > free:
        verdict = ", enough since zip archives are then removed while they are unpacked"
    return (
        f"{recipe.name} takes about {size_text(archives)} of archives, as much unpacked, and "
        f"{size_text(cached)} of resized images; {size_text(free)} are free{verdict}"
    )
