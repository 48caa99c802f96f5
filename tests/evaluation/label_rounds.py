"""Labels put right, measured: in a drawn competition a share of the hazy images is called cloudy, and of the
partly cloudy ones clear. It is trained, its 50 most doubtful labels are ticked by the truth, and it is
trained again. `python -m tests.evaluation.label_rounds [SEED …]` prints the held-out F2 against the clean
labels before and after."""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from comp.cli.main import main
from comp.config.loading import load_recipe
from comp.data.manifest import read_manifest
from comp.evaluation.results import RunResults, read_results
from comp.evaluation.suspects import suspects_table

N_TICKS = 50
CALLED = {"haze": "cloudy", "partly_cloudy": "clear"}  # what is planted: the first called the second,
SHARE = 0.4  # in this share of its images
RECIPE = """
extends = "demo"
n_folds = 2
views = ["identity"]
rule = "global+exclusive"
seed = {seed}

[competition]
drawn = {{ n_train = {n_train}, n_test = 50, size = 32, seed = {seed} }}

[[phases]]
size = 32
epochs = {epochs}
lr = 5e-3
batch_size = 32
"""


def plant(path: Path, seed: int) -> None:
    """Exchange labels for others in a CSV file of names and tags."""
    frame, rng = pd.read_csv(path, dtype=str), np.random.default_rng(seed)
    tags = [text.split() for text in frame["tags"]]
    for label, other in CALLED.items():
        rows = [row for row, of_row in enumerate(tags) if label in of_row]
        for row in rng.choice(rows, round(SHARE * len(rows)), replace=False):
            tags[row][tags[row].index(label)] = other
    frame.assign(tags=[" ".join(of_row) for of_row in tags]).to_csv(path, index=False)


def trained(name: str) -> RunResults:
    for stage in ("train", "predict", "blend", "decide"):
        assert main([stage, name]) == 0
    return read_results(load_recipe(name))


def tick(results: RunResults, clean: np.ndarray, path: Path) -> int:
    """Write corrections of the most doubtful labels by the clean ones (N, C); return how many were wrong."""
    frame = suspects_table(results).head(N_TICKS)
    rows = pd.Index(results.labels.ids).get_indexer(frame["id"])
    columns = [results.labels.classes.index(name) for name in frame["label"]]
    values = clean[rows, columns].astype(int)
    frame.assign(value=values, who="the truth", when="2026-01-01T00:00:00Z")[
        ["id", "label", "value", "who", "when"]
    ].to_csv(path, index=False)
    return int((values != frame["given"]).sum())


def one_round(seed: int, n_train: int = 400, epochs: int = 16) -> dict[str, float]:
    """Return the scores of the working directory's competition before and after a round of ticks."""
    Path("rounds.toml").write_text(RECIPE.format(seed=seed, n_train=n_train, epochs=epochs))
    recipe = load_recipe("rounds.toml")
    assert main(["download", "rounds.toml"]) == 0
    data = read_manifest(recipe.competition)
    clean = data.labels(recipe.competition)
    plant(data.labels_csv, seed)
    assert main(["folds", "rounds.toml"]) == 0

    def score(results: RunResults) -> float:
        return results.scorer.score(clean.targets[results.rows], results.decisions)

    first = trained("rounds.toml")
    n_wrong = tick(first, clean.targets, Path("corrections.csv"))
    Path("again.toml").write_text(
        'extends = "rounds.toml"\n[competition.labels]\ncorrections = "corrections.csv"\n'
    )
    second = trained("again.toml")
    return {
        "planted": int((first.labels.targets != clean.targets).sum()),
        "put right": n_wrong,
        "before": score(first),
        "after": score(second),
        "by given labels, before": first.decision["scores"]["cross_fitted"],
        "by given labels, after": second.decision["scores"]["cross_fitted"],
        "by corrected labels, after": second.decision["scores"]["corrected"],
    }


if __name__ == "__main__":
    for seed in [int(word) for word in sys.argv[1:]] or range(8):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            found = one_round(seed)
        print(
            f"seed {seed}: " + ", ".join(f"{name} {value:.4g}" for name, value in found.items()), flush=True
        )
