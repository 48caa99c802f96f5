"""look: what a network will see, before it trains.

Reads images, labels and, where they are made, folds and resized images; writes runs/<recipe>/look-<phase>.png
with the first batch of each phase, its labels, and test-time views of a held-out image. Nothing is trained.
"""

from comp.artifacts.paths import look_path
from comp.config.recipe import Recipe
from comp.console import info, table
from comp.plots.look import draw
from comp.training.batch_checks import checks, label_rows, warnings
from comp.training.first_batches import FirstBatches, read_first_batches


def run(recipe: Recipe, *, folds: list[int]) -> None:
    for each in recipe.members or (recipe,):
        seen = read_first_batches(each, folds[0])
        show(seen)
        for batch in seen.batches:
            path = look_path(each.name, batch.number)
            draw(seen, batch, path)
            info(f"look: {path}")


def show(seen: FirstBatches) -> None:
    """Print the checks and the labels of each batch, and a line for each thing that is odd."""
    recipe, phases = seen.recipe, [f"phase {batch.number}" for batch in seen.batches]
    info(f"look: {recipe.name}, the first batch of each phase, fold {seen.fold}")
    if 0 < seen.n_measured < seen.n_train:
        info(
            f"look: mean and deviation are those of {seen.n_measured:,} images, until all are resized; "
            "training measures more"
        )
    found = [checks(seen, batch) for batch in seen.batches]
    names = dict.fromkeys(name for each in found for name in each)
    table(["batch", *phases], [[name, *(each.get(name, "") for each in found)] for name in names])
    rows, numbers = label_rows(seen), recipe.competition.metric.kind == "numbers"
    info("")
    titles = ["mean of", "an epoch"] if numbers else ["images with", "an epoch"]
    table([*titles, *phases], rows)
    if (n_more := len(seen.classes) - len(rows)) > 0:
        info(f"and {n_more:,} rarer ones")
    for batch in seen.batches:
        for line in warnings(seen, batch):
            info(f"look: phase {batch.number}: {line}")
