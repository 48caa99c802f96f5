"""explain: labels, probabilities and heat maps of single images, whichever they are.

Reads runs/<recipe>/fold<k>/model.safetensors, decision.json and the images, and where they are at hand labels
and folds, by which training images are known; writes a picture.
"""

from pathlib import Path

from comp.artifacts.paths import explanation_path, model_path, oof_path
from comp.artifacts.schemas import Blended
from comp.artifacts.stamps import read_stamp
from comp.config.recipe import Recipe
from comp.console import progress, say, table
from comp.errors import CompError
from comp.evaluation.explanation import Answer, explain, known, read
from comp.plots.explanation import draw
from comp.training.model_stamp import limits_of_model, read_decision

MOST_IMAGES = 50  # rows of a picture


def run(recipe: Recipe, *, images: list[str], folds: list[int], to: str | None, force: bool) -> None:
    made = read_stamp(oof_path(recipe.name), Blended) or {}
    if recipe.members or "how" in made:
        names = ", ".join([member.name for member in recipe.members] or made["members"])
        raise CompError(f"{recipe.name} is a blend of {names}; explain takes the recipe of one of them")
    if len(images) > MOST_IMAGES:
        raise CompError(f"{len(images)} images; a picture holds {MOST_IMAGES} at most")
    folds = [fold for fold in folds if model_path(recipe.name, fold).exists()] or folds
    decision = read_decision(recipe, folds)
    classes = tuple(decision["thresholds"])
    many = f"{len(images)} images" if len(images) > 1 else images[0]
    say(f"explain: {many}, by {recipe.name}, {len(folds)} network{'s' * (len(folds) > 1)}")
    limits = limits_of_model(model_path(recipe.name, folds[0]))
    with progress("images", len(images)) as advance:
        asked = []
        for image in images:
            asked.append(known(read(Path(image), recipe, decision, limits), recipe, decision, folds))
            advance(1)
    target = Path(to) if to else explanation_path(recipe.name, asked[0].name)
    if target.suffix != ".png":
        raise CompError(f"--to {target}: a name that ends in .png is expected")
    if target.resolve() in {path.resolve() for one in asked for path in one.paths}:
        raise CompError(f"{target} would replace an image that is explained; --to names another file")
    if to and target.exists() and not force:
        raise CompError(f"{target} is there; --force replaces it, --to names another file")
    replaced = ", which replaces another" if target.exists() else ""
    answers = explain(recipe, folds, asked)
    for answer in answers:
        report(answer, classes)
    with progress("picture", 1):
        title = f"{recipe.competition.title or recipe.competition.name}, {recipe.name}"
        draw(answers, classes, title, target)
    say(f"explain: {target}{replaced}")


# --- what is asked ------------------------------------------------------------------------------------------


# --- what is answered ---------------------------------------------------------------------------------------


def report(answer: Answer, classes: tuple[str, ...]) -> None:
    say(f"{answer.asked.name}: {answer.about}")
    true, rows = answer.asked.true, []
    for c in answer.shown:
        at, p = answer.asked.rule.threshold_of(c), answer.probs[c]
        numbers = ["", ""] if at is None else [f"{at:.3f}", f"{p - at:+.3f}"]
        truth = [] if true is None else ["yes" if true[c] else "no"]
        rows.append([classes[c], "yes" if answer.given[c] else "no", *truth, f"{p:.3f}", *numbers])
    table(
        ["label", "predicted", *([] if true is None else ["true"]), "probability", "threshold", "above it"],
        rows,
    )


# --- the picture --------------------------------------------------------------------------------------------
