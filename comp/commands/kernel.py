"""kernel: a recipe packed for a Kaggle kernel without internet.

Reads the recipe, and for `infer` its finished models and decision.json; writes runs/<recipe>/kernel-<kind>/:
kernel/ (the script and kernel-metadata.json), and the dataset folders weights/ and wheels/. `push` runs it on
Kaggle and downloads its output to runs/<recipe>/kernel-<kind>-v<version>/.
"""

from comp.config.recipe import Recipe
from comp.console import clock, info, size_text, table
from comp.deadline import parse_budget
from comp.kaggle.kernels.build import build, list_parts
from comp.kaggle.kernels.kernel import BUDGETS, Kernel, check_options, find_owner
from comp.kaggle.kernels.push import push, watch
from comp.kaggle.kernels.wheels import image_versions


def run(
    recipe: Recipe,
    *,
    action: str,
    kind: str,
    owner: str | None,
    accelerator: str,
    folds: list[int],
    budget: float | None,
    resume: bool,
) -> None:
    check_options(kind, accelerator, budget, resume)
    kernel = Kernel(
        recipe=recipe,
        kind=kind,
        owner=find_owner(owner),
        machine=accelerator,
        budget=parse_budget(BUDGETS[kind]) if budget is None else budget,
        folds=tuple(folds),
        resume=resume,
    )
    if action == "watch":
        watch(kernel)
        return
    info(f"kernel: {kernel.folder} for {recipe.name}, {len(folds)} folds")
    show(kernel, changed=build(kernel))
    if action == "push":
        push(kernel)
    else:
        info(f"kernel: next, run `comp kernel push` with the same recipe and --kind {kind}")


def show(kernel: Kernel, *, changed: bool) -> None:
    state = "built" if changed else "done already"
    info(f"kernel: {kernel.folder} {state}, to run for at most {clock(kernel.budget)}")
    rows = [[folder, name, n, size_text(size)] for folder, name, n, size in list_parts(kernel)]
    date, versions = image_versions()
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    info(f"kernel: tried with the versions of Kaggle's image of {date}: {listed}")
    table(["folder", "on Kaggle", "files", "size"], rows)
