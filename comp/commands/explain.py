"""explain: labels, probabilities and heat maps of any single images.

Reads runs/<recipe>/fold<k>/model.safetensors, decision.json and the images; also labels and folds if they are
here, to recognise training images. Writes a picture.
"""

from pathlib import Path

from comp.artifacts.paths import explanation_path, model_path, oof_path
from comp.artifacts.schemas import BlendStamp
from comp.artifacts.stamps import read_stamp
from comp.config.recipe import Recipe
from comp.console import info, progress, table
from comp.errors import CompError
from comp.evaluation.explanation import Explanation, explain, read_query, with_training_labels
from comp.plots.explanation import draw
from comp.training.model_stamp import limits_of_model, read_decision

MAX_IMAGES = 50  # rows of a picture


def run(recipe: Recipe, *, images: list[str], folds: list[int], to: str | None, force: bool) -> None:
    made = read_stamp(oof_path(recipe.name), BlendStamp) or {}
    if recipe.members or "how" in made:
        names = ", ".join([member.name for member in recipe.members] or made["members"])
        raise CompError(f"{recipe.name} is a blend of {names}; explain takes the recipe of one of them")
    if len(images) > MAX_IMAGES:
        raise CompError(f"{len(images)} images; a picture holds at most {MAX_IMAGES}")
    folds = [fold for fold in folds if model_path(recipe.name, fold).exists()] or folds
    decision = read_decision(recipe, folds)
    classes = tuple(decision["thresholds"])
    many = f"{len(images)} images" if len(images) > 1 else images[0]
    info(f"explain: {many}, by {recipe.name}, {len(folds)} network{'s' * (len(folds) > 1)}")
    limits = limits_of_model(model_path(recipe.name, folds[0]))
    with progress("images", len(images)) as advance:
        queries = []
        for image in images:
            query = read_query(Path(image), recipe, decision, limits)
            queries.append(with_training_labels(query, recipe, decision, folds))
            advance(1)
    target = Path(to) if to else explanation_path(recipe.name, queries[0].name)
    if target.suffix != ".png":
        raise CompError(f"--to {target}: a name that ends in .png is expected")
    if target.resolve() in {path.resolve() for query in queries for path in query.paths}:
        raise CompError(f"{target} is an input and would be replaced; --to names another file")
    if to and target.exists() and not force:
        raise CompError(f"{target} is there; --force replaces it, --to names another file")
    replaced = ", replaces an older picture" if target.exists() else ""
    answers = explain(recipe, folds, queries)
    for answer in answers:
        show(answer, classes)
    with progress("picture", 1):
        title = f"{recipe.competition.title or recipe.competition.name}, {recipe.name}"
        draw(answers, classes, title, target)
    info(f"explain: {target}{replaced}")


def show(answer: Explanation, classes: tuple[str, ...]) -> None:
    """Print an image's labels, and why they were given."""
    info(f"{answer.query.name}: {answer.about}")
    true, rows = answer.query.true, []
    for c in answer.shown:
        at, p = answer.query.rule.threshold_of(c), answer.probs[c]
        numbers = ["", ""] if at is None else [f"{at:.3f}", f"{p - at:+.3f}"]
        truth = [] if true is None else ["yes" if true[c] else "no"]
        rows.append([classes[c], "yes" if answer.given[c] else "no", *truth, f"{p:.3f}", *numbers])
    table(
        ["label", "predicted", *([] if true is None else ["true"]), "probability", "threshold", "above it"],
        rows,
    )
