"""explain: labels, probabilities or numbers, and heat maps of any single images.

Reads runs/<recipe>/fold<k>/model.safetensors, decision.json and the images; also labels and folds if they are
here, to recognise training images. Writes a picture.
"""

from pathlib import Path

import numpy as np

from comp.artifacts.decision_schema import classes_of
from comp.artifacts.paths import explanation_path, model_path, oof_path
from comp.artifacts.schemas import BlendStamp
from comp.artifacts.stamps import read_stamp
from comp.config.recipe import Recipe
from comp.console import info, progress, table
from comp.errors import CompError
from comp.evaluation.explanation import (
    Explanation,
    explain,
    number_text,
    read_query,
    with_training_labels,
)
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
    classes = classes_of(decision)
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
    """Print an image's answer, and why it was given."""
    info(f"{answer.query.name}: {answer.about}")
    true, kind = answer.query.true, answer.query.answer
    columns = {"labels": _label_columns, "numbers": _number_columns}.get(kind, _answer_columns)(answer)
    truth = (
        {}
        if true is None or kind == "numbers"
        else {"true": [YES_NO.get(true[c], "unknown") for c in answer.shown]}
    )
    first, *others = columns.items()
    titles, cells = zip(*(first, *truth.items(), *others))
    rows = [[classes[c], *row] for c, *row in zip(answer.shown, *cells)]
    table([{"grades": "grade", "numbers": "number"}.get(kind, "label"), *titles], rows)


YES_NO = {1: "yes", 0: "no"}


def _label_columns(answer: Explanation) -> dict[str, list[str]]:
    at = {c: answer.query.rule.threshold_of(c) for c in answer.shown}
    return {
        "predicted": [YES_NO[int(answer.given[c])] for c in answer.shown],
        "probability": [f"{answer.probs[c]:.3f}" for c in answer.shown],
        "threshold": ["" if t is None else f"{t:.3f}" for t in at.values()],
        "above it": ["" if t is None else f"{answer.probs[c] - t:+.3f}" for c, t in at.items()],
    }


def _answer_columns(answer: Explanation) -> dict[str, list[str]]:
    chosen, shown = answer.query.chosen(answer.given), answer.shown
    columns = {"probability": [f"{answer.probs[c]:.3f}" for c in shown]}
    if answer.query.answer == "probabilities":
        calibrated = {"calibrated": [f"{answer.given[c]:.3f}" for c in shown]}
        return columns | (calibrated if not np.allclose(answer.given, answer.probs) else {})
    if answer.query.answer == "ranking":
        place = (-answer.given).argsort(kind="stable").argsort() + 1
        return {"place": [f"{place[c]:,}" for c in shown], **columns}
    return {"predicted": [YES_NO[int(chosen[c])] for c in shown], **columns}


def _number_columns(answer: Explanation) -> dict[str, list[str]]:
    given, true, ranges = answer.given, answer.query.true, answer.ranges
    columns = {"predicted": [number_text(given[c]) for c in answer.shown]}
    if true is not None:
        columns["true"] = [number_text(true[c]) for c in answer.shown]
        errors = given - true
        columns["error"] = ["" if np.isnan(e) else f"{e:+.4g}" for e in errors[answer.shown].tolist()]
    if ranges is not None:
        columns["held-out images have"] = [" to ".join(map(number_text, ranges[c])) for c in answer.shown]
    return columns
