"""report: a decided run as one page that opens anywhere, without a network.

Reads runs/<recipe>/: logs, models, oof.npz, test.npz and decision.json, submissions/ledger.csv, and some
images; writes runs/<recipe>/card.png, the run as a picture, and report.html last.
"""

import time
from typing import Any

from comp.artifacts.files import write_text
from comp.artifacts.paths import card_path, oof_path, report_path
from comp.artifacts.schemas import BlendStamp
from comp.artifacts.stamps import digest, read_stamp, to_json
from comp.config.recipe import Recipe
from comp.console import ProgressBars, info, size_text, table
from comp.evaluation.card import card_of
from comp.evaluation.gallery import MAX_BYTES, report_images, size_of
from comp.evaluation.provenance import provenance
from comp.evaluation.report_data import read_test_answers, report_data
from comp.evaluation.report_map import MAX_MAP_BYTES, report_map
from comp.evaluation.report_page import report_page
from comp.evaluation.results import RunResults, read_results
from comp.evaluation.run_metadata import RunMetadata, members_of, metadata_of
from comp.kaggle import ledger
from comp.plots.card import draw
from comp.safe_text import visible

MAX_PAGE_BYTES = 14_000_000
MAX_TEXT = 200  # characters of a cell of the ledger


def run(recipe: Recipe, *, force: bool) -> None:
    started = time.monotonic()
    results = read_results(recipe)
    path, sent, card = report_path(recipe.name), submissions_of(recipe), card_path(recipe.name)
    stamp = to_json(
        {"decision": results.decision["stamp"], **({"submissions": digest(sent)} if sent else {})}
    )
    done = read_stamp(path) == stamp and not force
    if done and card.exists():
        info(f"report: {path} done already")
        return
    members = read_members(results)
    draw(card_of(results, members, ledger.read()), card)
    if done:
        info(f"report: {path} done already; {card} shows the run as a picture")
        return
    n_rows, n_classes = results.probs.shape
    answer = results.scorer.answer
    noun = {"grades": "grade", "numbers": "number"}.get(answer, "label") + "s" * (n_classes != 1)
    info(f"report: {recipe.name}, {n_rows:,} held-out images, {n_classes:,} {noun}")
    content = report_data(results, members, read_test_answers(results))
    content |= {"provenance": provenance(results, members), "submissions": sent}
    room = min(MAX_BYTES, MAX_PAGE_BYTES - size_of(content) - MAX_MAP_BYTES)
    with ProgressBars() as bars:
        content |= report_images(results, members, bars, room)
        content["map"] = report_map(results, members, content.pop("rows"), bars)
    text = report_page(content, stamp)
    replaced = ", replaces an older one" if path.exists() and read_stamp(path) != stamp else ""
    write_text(path, text)
    show_drift(content)
    n_images, seconds = len(content["images"]), time.monotonic() - started
    size = size_text(len(text.encode()))
    info(f"report: {path}, {size}, {n_images:,} images, in {seconds:.0f} s{replaced}; open it in a browser")
    info(f"report: {card}, the run as a picture to show")


def submissions_of(recipe: Recipe) -> list[dict[str, Any]]:
    """Return the submissions of a run by the ledger, the newest first. Scores are numbers or None."""
    rows = [
        row for row in ledger.read()
        if (row["recipe"], row["competition"]) == (recipe.name, recipe.competition.name)
    ]  # fmt: skip
    return [
        {
            **{key: visible(row[key], MAX_TEXT) for key in ("time", "name", "status", "message")},
            **{key: float(row[key]) if row[key] else None for key in ("cross_fitted", "public", "private")},
        }
        for row in reversed(rows)
    ]


def read_members(results: RunResults) -> list[RunMetadata]:
    """Return the runs whose networks predicted, without those that have changed since."""
    found, name = [], results.recipe.name
    for member in members_of(name, results.made):
        made = results.made if member == name else read_stamp(oof_path(member), BlendStamp) or {}
        if member != name and digest(made) != results.made["members"][member]:
            info(f"report: {member} was trained or predicted again since it was blended; left out")
            continue
        found.append(metadata_of(member, made))
        if changed := ", ".join(map(str, found[-1].changed)):
            info(f"report: {member}, fold {changed} was trained or predicted again; left out")
    return found


def show_drift(content: dict[str, Any]) -> None:
    """Print the labels that test images are given more or less often than held-out images; of probabilities
    and numbers, those whose means differ."""
    warned = [row for row in content["drift"] if row["warn"]]
    means = content["answer"] in ("probabilities", "numbers")
    if warned and means:
        info(f"report: {content['answer']} whose means for test images and for held-out images differ")
    elif warned:
        info("report: labels that test images are given more or less often than held-out images")
    if warned:
        form, keys = "{:.4g}" if means else "{:.2%}", ("true", "held_out", "test")
        cells = [["–" if row[key] is None else form.format(row[key]) for key in keys] for row in warned]
        rows = [[row["name"], *numbers] for row, numbers in zip(warned, cells)]
        table(["class", "true", "held out", "test"], rows)
