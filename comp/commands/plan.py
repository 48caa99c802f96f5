"""plan: what a recipe will cost in disk, memory and time, here and elsewhere, before anything starts."""

from collections.abc import Sequence

from comp.artifacts.files import free_bytes
from comp.artifacts.paths import cache_dir
from comp.benchmarks.bare_step import make_bare_step
from comp.compute.devices import devices, n_cores
from comp.config.recipe import Recipe
from comp.console import announce_if_slow, clock, info, size_text, table
from comp.data.disk_plan import ImageCounts, cached_parts, count_images
from comp.kaggle.limits import (
    DISK_BYTES,
    KEPT_BYTES,
    SESSION_HOURS,
    WEEK_HOURS,
    check_kernel,
    kept_bytes,
)
from comp.models import network as models
from comp.training.cost import (
    KAGGLE_T4,
    SPEEDS,
    Machine,
    NetworkCost,
    RunTime,
    count_sizes,
    gpu_bytes,
    gpu_names,
    launched_images,
    run_time,
)

ELSEWHERE = ("RTX 3090", "RTX 4090", "A100")
PIXELS_ON_CPU = 64 * 64 * 64  # in a batch of the measured step on a CPU
N_STEPS = 2  # measured


def run(recipe: Recipe) -> None:
    for one in recipe.members or (recipe,):
        _plan(one)


def _plan(recipe: Recipe) -> None:
    counts = count_images(recipe)
    models.check(
        recipe.backbone, list(recipe.cached_sizes), recipe.n_channels,
        pretrained=False, weights=None, code=recipe.code,
    )  # fmt: skip
    costs = count_sizes(recipe)
    n_parameters = next(iter(costs.values())).n_parameters
    info(
        f"plan: {recipe.name}: {counts.n_train:,} training and {counts.n_test:,} test images of "
        f"{counts.size} px ({counts.source}); {recipe.n_networks} × {recipe.backbone}, "
        f"{n_parameters / 1e6:.1f} million parameters"
    )
    if recipe.external or recipe.pseudo:
        info("plan: external and pseudo-labelled images come on top")
    _print_disk(recipe, counts, n_parameters)
    here = devices(recipe.n_networks)
    name = next(iter(gpu_names()), f"{n_cores()} cores" if here[0].name == "cpu" else "a GPU")
    machine = Machine("here", 1.0, len(here), n_cores=n_cores())
    with announce_if_slow(f"plan: measuring {N_STEPS} training steps at each size on {name}"):
        measured = {phase.size: _measure(recipe, phase.size) for phase in recipe.phases}
    elsewhere = [KAGGLE_T4, *(Machine(card, SPEEDS[card]) for card in ELSEWHERE)]
    times = {"here": run_time(recipe, counts, machine, costs, measured)}
    times |= {one.name: run_time(recipe, counts, one, costs) for one in elsewhere}
    _print_times(recipe, costs, times)
    info(
        f"plan: here is {name}, {len(here)} at once, by measured steps. The others are estimates (± 30 %), "
        "by the network's operations and published rates of ResNet-50 (comp/training/cost.py)"
    )
    _print_small_batches(recipe, costs, elsewhere)
    _print_verdict(recipe, counts, costs, times[KAGGLE_T4.name])


def _print_small_batches(recipe: Recipe, costs: dict[int, NetworkCost], machines: Sequence[Machine]) -> None:
    """Print the phases whose steps wait for their launches: larger batches cost nothing there."""
    for number, phase in enumerate(recipe.phases):
        images = {one.name: launched_images(costs[phase.size], one) for one in machines}
        waiting = [f"{n:,} on {name}" for name, n in images.items() if n >= 2 * phase.batch_size]
        if waiting:
            info(
                f"plan: at {phase.size} px a GPU waits for launches: steps take as long for batches up to "
                f"{', '.join(waiting)}. phases.{number}.batch_size = {2 * phase.batch_size} would halve the "
                "steps; try it with a higher lr on one fold, since it changes what is learned"
            )


def _print_disk(recipe: Recipe, counts: ImageCounts, n_parameters: int) -> None:
    parts = cached_parts(recipe, counts)
    rows = [[f"resized images, {name}", size_text(n_bytes)] for name, n_bytes in parts.items()]
    kept = kept_bytes(recipe, counts, n_parameters, n_at_once=2)
    rows.append(["models, checkpoints, probabilities", size_text(kept)])
    if counts.archive_bytes:
        rows.append(["archives (a kernel has them mounted)", size_text(counts.archive_bytes)])
        rows.append(["their contents (the same)", size_text(counts.archive_bytes)])
    table(["on the disk", "size"], rows)
    total = sum(parts.values()) + kept + 2 * counts.archive_bytes
    free = free_bytes(cache_dir(recipe.competition.name))
    info(f"plan: {size_text(total)} in all; {size_text(free)} are free here")


def _measure(recipe: Recipe, size: int) -> float:
    """Return the seconds of training per image at a size, by a few steps of the network on this machine."""
    place = devices(recipe.n_networks)[0].activate()
    phase = next(phase for phase in recipe.phases if phase.size == size)
    n_images = phase.batch_size // phase.accumulate
    if place.type == "cpu":
        n_images = max(2, min(n_images, PIXELS_ON_CPU // size**2))
    phase = phase.model_copy(update={"batch_size": n_images})
    steps = make_bare_step(recipe, phase, place, len(recipe.competition.labels.classes) or 17)
    steps(1)
    return 1 / steps(N_STEPS)


def _print_times(recipe: Recipe, costs: dict[int, NetworkCost], times: dict[str, RunTime]) -> None:
    rows = [["resizing the images", "", *(clock(t.decode) if t.decode else "" for t in times.values())]]
    for number, phase in enumerate(recipe.phases):
        rows.append(
            [
                f"a fold: {phase.epochs} epochs at {phase.size} px",
                size_text(gpu_bytes(costs[phase.size], phase)),
                *(clock(time.phases[number]) for time in times.values()),
            ]
        )
    rows.append([f"training {recipe.n_networks} networks", "", *(clock(t.train) for t in times.values())])
    rows.append(["predicting", "", *(clock(t.predict) for t in times.values())])
    rows.append(["all of it", "", *(clock(t.total) for t in times.values())])
    table(["time", "GPU memory", *times], rows)


def _print_verdict(recipe: Recipe, counts: ImageCounts, costs: dict[int, NetworkCost], time: RunTime) -> None:
    n_parameters = next(iter(costs.values())).n_parameters
    cached = sum(cached_parts(recipe, counts).values())
    kept = kept_bytes(recipe, counts, n_parameters, n_at_once=2)
    reasons = check_kernel(recipe, counts, costs, time)
    info(
        f"plan: a kernel on two T4 {'does not do' if reasons else 'does'} it: {time.total / 3600:.1f} h of "
        f"{SESSION_HOURS} h a session and {WEEK_HOURS} h a week; {size_text(cached + kept)} of "
        f"{size_text(DISK_BYTES)} disk; {size_text(kept)} of {size_text(KEPT_BYTES)} kept"
    )
    for reason in reasons:
        info(f"plan: {reason}")
