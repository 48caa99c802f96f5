"""suspects: the labels, grades or numbers that may be wrong, the most doubtful first.

Reads runs/<recipe>/oof.npz and decision.json, labels and folds; writes runs/<recipe>/suspects.csv. Labels
stay as they are.
"""

import numpy as np

from comp.artifacts.files import write_text
from comp.artifacts.paths import suspects_path
from comp.config.recipe import Recipe
from comp.console import info, table
from comp.evaluation.results import read_results
from comp.evaluation.suspects import suspects_table
from comp.safe_text import escape_cell, visible

N_SHOWN = 30  # suspects in the table
ID_WIDTH, LABEL_WIDTH = 22, 18  # characters, so that the table fits 80 columns


def run(recipe: Recipe) -> None:
    results = read_results(recipe)
    noun = {"grades": "grade", "numbers": "number"}.get(results.scorer.answer, "label")
    frame = suspects_table(results)
    path = suspects_path(recipe.name)
    texts = {name: [escape_cell(str(text)) for text in frame[name]] for name in ("id", "label")}
    text = frame.assign(**texts).to_csv(index=False, lineterminator="\n", float_format="%.6g")
    write_text(path, text)
    n = len(frame)
    info(f"suspects: {recipe.name}, {n:,} of {np.isfinite(results.targets).sum():,} {noun}s may be wrong")
    if n:
        shown = frame.head(N_SHOWN)
        table(
            ["image", noun, *frame.columns[2:]],
            [
                [visible(image, ID_WIDTH), visible(label, LABEL_WIDTH), *map(_text, numbers)]
                for image, label, *numbers in shown.itertuples(index=False)
            ],
            shortened=1,
        )
    info(f"suspects: {path}" + (f", all {n:,}" if n > N_SHOWN else ""))
    if n:
        info("suspects: tick them in the report, which makes corrections.csv")


def _text(cell: object) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
