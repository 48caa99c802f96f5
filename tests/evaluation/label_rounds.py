"""Labels put right, measured: a drawn competition with planted errors is trained, its 50 most doubtful
labels are ticked by the truth, and it is trained again. `python -m tests.evaluation.label_rounds [SEED …]`
prints the held-out F2 against the clean labels before and after."""

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
KEPT = ("agriculture", "clear", "cloudy", "haze", "partly_cloudy", "primary")  # labels that are soon learned
PLANTED = ("cloudy", "haze")
RECIPE = """
extends = "demo"
n_folds = 2
views = ["identity"]
rule = "global"
seed = {seed}

[competition]
drawn = {{ n_train = {n_train}, n_test = 50, size = 32, seed = {seed} }}

[competition.labels]
classes = {classes}
exclusive = []
empty = true

[[phases]]
size = 32
epochs = {epochs}
lr = 5e-3
batch_size = 32
"""


def keep(path: Path, labels: tuple[str, ...]) -> None:
    """Leave out other labels of a CSV file of names and tags."""
    frame = pd.read_csv(path, dtype=str)
    frame["tags"] = [" ".join(tag for tag in text.split() if tag in labels) for text in frame["tags"]]
    frame.to_csv(path, index=False)


def plant(path: Path, labels: tuple[str, ...], share: float, seed: int) -> None:
    """Turn round each of the labels for a share of the images of a CSV file of names and tags."""
    frame, rng = pd.read_csv(path, dtype=str), np.random.default_rng(seed)
    for label in labels:
        for row in rng.choice(len(frame), round(share * len(frame)), replace=False):
            tags = frame.tags[row].split()
            frame.loc[row, "tags"] = " ".join(
                [t for t in tags if t != label] if label in tags else [*tags, label]
            )
    frame.to_csv(path, index=False)


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


def one_round(seed: int, n_train: int = 500, epochs: int = 24, share: float = 0.05) -> dict[str, float]:
    """Return the scores of the working directory's competition before and after a round of ticks."""
    Path("rounds.toml").write_text(
        RECIPE.format(seed=seed, n_train=n_train, epochs=epochs, classes=list(KEPT))
    )
    recipe = load_recipe("rounds.toml")
    assert main(["download", "rounds.toml", "--set", "competition.labels.classes=[]"]) == 0
    data = read_manifest(recipe.competition)
    keep(data.labels_csv, KEPT)
    clean = data.labels(recipe.competition)
    plant(data.labels_csv, PLANTED, share, seed)
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
    seeds = [int(word) for word in sys.argv[1:]] or [0, 1, 2]
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            found = one_round(seed)
        print(
            f"seed {seed}: " + ", ".join(f"{name} {value:.4g}" for name, value in found.items()), flush=True
        )
