"""kernel: a recipe packed for a Kaggle kernel without internet.

Reads the recipe, and for `infer` its finished models and decision.json; writes runs/<recipe>/kernel-<kind>/:
kernel/ (the script and kernel-metadata.json), and the dataset folders weights/ and wheels/. push runs it on
Kaggle and fetches its output to runs/<recipe>/kernel-<kind>-v<version>/.
"""

import re

from comp.config.recipe import Recipe
from comp.console import clock, say, size_text, table
from comp.deadline import parse_budget
from comp.errors import CompError
from comp.kaggle.kernels.build import build
from comp.kaggle.kernels.kernel import PARTS, Kernel, find_owner
from comp.kaggle.kernels.push import push, watch

BUDGETS = {"train": "11h", "infer": "8.5h"}  # Kaggle ends kernels after 12 hours, most competitions after 9


def run(
    recipe: Recipe,
    *,
    action: str,
    kind: str,
    owner: str | None,
    python: str,
    folds: list[int],
    budget: float | None,
    resume: bool,
) -> None:
    if not re.fullmatch(r"3\.(1[1-9]|[2-9]\d)", python):
        raise CompError(f"--python {python}: 3.11 or newer is expected, such as 3.12")
    if budget is not None and budget > 12 * 3600:
        raise CompError("Kaggle ends every kernel after 12 hours; give a shorter --time-budget")
    if resume and kind == "infer":
        raise CompError("--resume goes with --kind train: what infer does is done in one run")
    kernel = Kernel(
        recipe=recipe,
        kind=kind,
        owner=find_owner(owner),
        python=python,
        budget=parse_budget(BUDGETS[kind]) if budget is None else budget,
        folds=tuple(folds),
        resume=resume,
    )
    if action == "watch":
        watch(kernel)
        return
    say(f"kernel: {kernel.folder} for {recipe.name}, {len(folds)} folds")
    changed = build(kernel)
    ids = dict(zip(PARTS, (kernel.id, kernel.weights_id, kernel.wheels_id)))
    rows = []
    for part in PARTS:
        sizes = [path.stat().st_size for path in (kernel.folder / part).glob("*")]
        if sizes:
            rows.append([kernel.folder / part, ids[part], len(sizes), size_text(sum(sizes))])
    state = "built" if changed else "done already"
    say(f"kernel: {kernel.folder} {state}, to run for at most {clock(kernel.budget)}")
    table(["folder", "on Kaggle", "files", "size"], rows)
    if action == "push":
        push(kernel)
    else:
        say(f"kernel: next, `comp kernel push` with the same recipe and --kind {kind}")
