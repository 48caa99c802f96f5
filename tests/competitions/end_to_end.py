"""`python -m tests.competitions.end_to_end [NAME…]`: each competition that comes with comp, and others,
from a folder in its form to a submission that a grader scores. Images are drawn. A recipe adds only a small
network and two short phases."""

import contextlib
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from comp.artifacts.paths import submission_path
from comp.cli.main import main
from comp.kaggle import ledger
from tests.competitions.forms import FORMS, Draft, Form
from tests.competitions.graders import GRADERS, Grader, grade
from tests.competitions.other_forms import OTHER

STAGES = ("download", "folds", "train", "predict", "blend", "decide", "submit")
RECIPE = """competition = "{competition}"
backbone = "test_resnet"
pretrained = false
n_folds = 2
n_trials = 5
ema_decay = 0.9
augment = "none"
views = ["identity"]
"""
PHASE = """
[[phases]]
size = {}
epochs = {}
lr = 4e-3
batch_size = 16
"""


def run(
    name: str, n: int, n_test: int, phases: Sequence[tuple[int, int]], *, signal: float = 1.0
) -> tuple[Form, Grader, Path]:
    """Draw the competition `name` in the working directory, run its stages, and return its form, its grader
    and its submission. `phases` are sizes in pixels and epochs."""
    draft = Draft(Path("files", name), n, n_test, signal, np.random.default_rng(0))
    draft.folder.mkdir(parents=True)
    competition, builder, grader = name, FORMS.get(name), GRADERS.get(name)
    if builder is None or grader is None:
        text, builder, grader = OTHER[name]
        competition = f"{name}.toml"
        Path(competition).write_text(text)
    form = builder(draft)
    recipe = Path(f"{name}-small.toml")
    recipe.write_text(
        RECIPE.format(competition=competition) + "".join(PHASE.format(*phase) for phase in phases)
    )
    for stage in STAGES:
        arguments = ["--from", str(draft.folder)] if stage == "download" else []
        assert main([stage, str(recipe), *arguments]) == 0, (name, stage)
    submissions = [row["name"] for row in ledger.read() if row["recipe"] == recipe.stem]
    return form, grader, submission_path(submissions[-1])


def benchmark(names: Sequence[str], quick: bool) -> None:
    """Print a row for each competition; of one that fails, its last lines."""
    print("| competition | metric | score | best constant |\n|---|---|---|---|")
    home = Path.cwd()
    if hasattr(os, "sched_setaffinity"):  # on one core, folds need no processes of their own
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    size: tuple[int, int, list[tuple[int, int]]] = (240, 120, [(24, 8), (32, 4)])
    if quick:
        size = (60, 24, [(24, 2), (32, 1)])
    for name in names:
        started, line = time.monotonic(), ""
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            log = Path("log.txt")
            with log.open("w") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                try:
                    form, grader, file = run(name, *size, signal=1.0 if quick else 0.5)
                    score, constant = grade(grader, form, file)
                    line = f"| {name} | {grader.metric} | {score:.4f} | {constant:.4f} |"
                except Exception:
                    traceback.print_exc()
            print(line or f"{name} FAILED\n{log.read_text()[-2500:]}", flush=True)
            print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            os.chdir(home)


if __name__ == "__main__":
    given = [name for name in sys.argv[1:] if name != "--quick"]
    benchmark(given or [*GRADERS, *OTHER], "--quick" in sys.argv)
