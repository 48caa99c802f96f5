"""Kaggle's limits for a kernel, and whether a recipe keeps to them."""

from collections.abc import Iterator, Mapping

from comp.config.recipe import Recipe
from comp.console import size_text
from comp.data.disk_plan import ImageCounts, cached_parts
from comp.kaggle.kernels.entrypoint import DISK_BYTES
from comp.training.cost import NetworkCost, RunTime, gpu_bytes

SESSION_HOURS, USABLE_HOURS, WEEK_HOURS = 12, 11, 30  # with a GPU; `comp kernel` stops at 11 hours
KEPT_BYTES = 20e9  # of /kaggle/working, which is kept
T4_BYTES = 14.5 * 2**30  # of a T4's memory that programs get
RESERVE_BYTES = 4e9  # of the disk, for wheels, weights and what else is written
STEP = 32  # pixels between two sizes that are tried


def kept_bytes(recipe: Recipe, counts: ImageCounts, n_parameters: int, n_at_once: int) -> float:
    """Return the bytes that a run leaves: a model for each network, checkpoints of those that are trained at
    once, and probabilities."""
    models = 4 * n_parameters * recipe.n_networks + 16 * n_parameters * n_at_once
    n_classes = len(recipe.competition.labels.classes) or 100
    return models + 4 * n_classes * (2 * counts.n_train + (recipe.n_networks + 1) * counts.n_test)


def check_kernel(
    recipe: Recipe, counts: ImageCounts, costs: Mapping[int, NetworkCost], time: RunTime
) -> list[str]:
    """Return what keeps a recipe from a kernel on two T4, each with what to change; [] if it fits."""
    n_parameters = next(iter(costs.values())).n_parameters
    kept = kept_bytes(recipe, counts, n_parameters, 2)
    cached = sum(cached_parts(recipe, counts).values())
    return [
        *_too_long(recipe, time),
        *_too_large(recipe, counts, DISK_BYTES - RESERVE_BYTES - kept, cached),
        *(
            [f"{size_text(kept)} are kept, more than {size_text(KEPT_BYTES)}: name fewer folds with --folds"]
            if kept > KEPT_BYTES
            else []
        ),
        *_too_much_memory(recipe, costs),
    ]


def _too_long(recipe: Recipe, time: RunTime) -> Iterator[str]:
    hours = time.total / 3600
    if hours <= USABLE_HOURS:
        return
    again = (time.decode or 0.0) / 3600  # each session resizes the images again
    n_sessions = -(-(hours - again) // max(1.0, USABLE_HOURS - again))
    text = f"{hours:.1f} h are more than a session of {SESSION_HOURS} h: about {n_sessions:.0f} sessions"
    if hours + again * (n_sessions - 1) > WEEK_HOURS:
        text += f", more than the {WEEK_HOURS} h of a week"
    rounds = (USABLE_HOURS - again) * 3600 // max(time.fold, 1.0)
    each = f", or --folds with {2 * rounds:.0f} folds in each" if rounds >= 1 else ""
    yield f"{text}; each next one by `comp kernel push {recipe.name} --resume`{each}"


def _too_large(recipe: Recipe, counts: ImageCounts, space: float, cached: float) -> Iterator[str]:
    if cached <= space:
        return
    text = f"{size_text(cached)} of resized images are more than the {size_text(space)} for them: "
    options = []
    smaller = recipe.model_copy(update={"cache": "largest"})
    if recipe.cache == "each" and (n := sum(cached_parts(smaller, counts).values())) < cached:
        options.append(f'cache = "largest" ({size_text(n)}{"" if n <= space else ", still too much"})')
        cached = n
    size = recipe.max_size
    while cached > space and size > STEP:
        size -= STEP
        phases = tuple(p.model_copy(update={"size": min(p.size, size)}) for p in recipe.phases)
        cached = sum(cached_parts(smaller.model_copy(update={"phases": phases}), counts).values())
    if size < recipe.max_size:
        options.append(f"phases of at most {size} px ({size_text(cached)})")
    yield text + ", and ".join(options)


def _too_much_memory(recipe: Recipe, costs: Mapping[int, NetworkCost]) -> Iterator[str]:
    for number, phase in enumerate(recipe.phases):
        needed = gpu_bytes(costs[phase.size], phase)
        if needed <= T4_BYTES:
            continue
        n_parts = phase.accumulate
        while needed > T4_BYTES and n_parts < phase.batch_size // 2:
            n_parts += 1
            needed = gpu_bytes(costs[phase.size], phase, -(-phase.batch_size // n_parts))
        yield (
            f"a step at {phase.size} px needs {size_text(gpu_bytes(costs[phase.size], phase))} of a T4's "
            f"{size_text(T4_BYTES)}: set phases.{number}.accumulate={n_parts}"
        )
