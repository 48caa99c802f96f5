"""run: all stages of a recipe, one after the other, then a summary.

Writes runs/<name>/finished.json last: the summary, and the state of the files that the stages read and wrote.
While these are unchanged, the run is finished, and no stage has to look.
"""

from collections.abc import Callable, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from comp import __version__
from comp.artifacts.files import read_json, write_json
from comp.artifacts.paths import (
    decision_path,
    duplicates_path,
    finished_path,
    folds_path,
    manifest_path,
    model_path,
    oof_path,
    predicted_paths,
    report_path,
    run_recipe_path,
    test_path,
)
from comp.artifacts.schemas import Finished
from comp.artifacts.stamps import digest, to_json
from comp.config.metric import Metric
from comp.config.recipe import Recipe
from comp.console import clock, info, leaderboard_text, table
from comp.evaluation.run_summary import summarize_run
from comp.kaggle import ledger

N_LABELS = 3  # best and worst labels in the summary


def run(
    recipe: Recipe,
    *,
    stages: Mapping[str, Callable[[], None]],
    send: bool,
    options: Mapping[str, Any],
    force: bool,
) -> None:
    """Call `stages` by name, in order; of a finished run only `submit`, and that only with `send`. `options`
    are those that results depend on."""
    if recipe.members:
        from comp.decisions.blending import methods_of

        methods_of(options.get("how", "auto"), recipe.competition.metric)
    path = finished_path(recipe.name)
    settings = digest(recipe.model_dump(mode="json"))
    asked = to_json({"version": __version__, "recipe": settings, **options})
    known = read_json(path, Finished) if path.exists() else None
    if known and not force and known["options"] == asked and known["files"] == _state(known["files"]):
        info(f"run: {recipe.name} done already")
        if send:
            stages["submit"]()
            known = {**known, **_summary(recipe), "files": _state(known["files"])}
            write_json(path, known)
    else:
        path.unlink(missing_ok=True)
        for stage in stages.values():
            stage()
        known = {"options": asked, **_summary(recipe), "files": _state(_files(recipe))}
        write_json(path, known)
    _show(recipe, known)


def _files(recipe: Recipe) -> list[str]:
    """Return the files that the stages of a run read and wrote."""
    from comp.data.manifest import read_manifest

    competition = recipe.competition
    data = read_manifest(competition)
    folds, duplicates = (
        folds_path(competition.name, recipe.n_folds, recipe.seed),
        duplicates_path(competition.name),
    )
    paths = [
        *(data.labels_csv, data.sample_csv, manifest_path(competition.name), folds, duplicates),
        *(place for places in data.folders.values() for place, _ in places),
    ]
    for one in (*recipe.members, recipe):
        paths += [run_recipe_path(one.name), oof_path(one.name), test_path(one.name)]
        for fold in range(one.n_networks if not one.members else 0):
            paths += [model_path(one.name, fold), *predicted_paths(one.name, fold, one.n_folds)]
    paths += [decision_path(recipe.name), report_path(recipe.name)]
    paths += [submission.with_suffix(end) for submission in _submissions(recipe) for end in (".csv", ".json")]
    return [str(path) for path in paths]


def _submissions(recipe: Recipe) -> list[Path]:
    """Return the CSVs of the run's submission, as the ledger lists it last."""
    from comp.artifacts.paths import submission_path

    names = [row["name"] for row in ledger.read() if row["recipe"] == recipe.name]
    return [submission_path(name) for name in names[-1:]]


def _state(paths: Any) -> dict[str, list[int] | None]:
    """Return size and time of change of files by path; None for those that are absent."""
    answer: dict[str, list[int] | None] = {}
    for path in paths:
        try:
            status = Path(path).stat()
            answer[path] = [status.st_size, status.st_mtime_ns]
        except OSError:
            answer[path] = None
    return answer


def _summary(recipe: Recipe) -> dict[str, Any]:
    """Return what the summary shows beside the files: scores, and those of the best and worst classes."""
    from comp.decisions.class_scores import own_scores
    from comp.evaluation.results import read_results

    results = read_results(recipe)
    one = summarize_run(recipe, ledger.read())
    own = own_scores(results.scorer, results.targets, results.decisions)
    scored = [(v, name) for v, name in zip(own.values.tolist(), results.labels.classes) if isfinite(v)]
    by_score = sorted(scored, key=lambda pair: (own.sign * pair[0], pair[1]), reverse=True)
    n = min(N_LABELS, len(by_score) // 2)
    return {
        "scores": {
            "cross_fitted": one.cross_fitted,
            "public": one.public,
            "private": one.private,
            **({} if one.corrected is None else {"corrected": one.corrected}),
        },
        "by": own.name,
        "best": {name: value for value, name in by_score[:n]},
        "worst": {name: value for value, name in by_score[len(by_score) - n :]},
        "seconds": one.seconds,
    }


def _show(recipe: Recipe, known: Mapping[str, Any]) -> None:
    """Print the summary of a finished run."""
    scores = known["scores"]
    board = [
        [key, f"{leaderboard_text(scores[key])} ({scores[key] - scores['cross_fitted']:+.4f})"]
        for key in ("public", "private")
        if scores[key] is not None
    ]
    metric = recipe.competition.metric
    submission = next((str(path) for path in _submissions(recipe)), "")
    rows = [
        ["cross-fitted", f"{scores['cross_fitted']:.4f}"],
        *([["by corrected labels", f"{scores['corrected']:.4f}"]] if "corrected" in scores else []),
        *(board or [["leaderboard", "not scored yet"]]),
        *_of_classes(known, metric),
        ["trained", f"{clock(known['seconds'])}, summed over networks"],
        ["report", str(report_path(recipe.name))],
        ["submission", submission],
    ]
    table([recipe.name, str(metric)], rows, shortened=1)
    name = recipe.name
    if recipe.competition.slug and not board:
        info(f"run: next, look at the report, then `comp submit {name} --send`")
    else:
        info(f"run: next, look at the report, then try a change: `comp run {name} --as NAME --set KEY=VALUE`")


def _of_classes(known: Mapping[str, Any], metric: Metric) -> list[list[str]]:
    """Return the lines about the best and the worst classes."""
    by, form = known.get("by") or f"F{metric.beta:g}", ".4g" if metric.kind == "numbers" else ".2f"
    return [
        [f"{which} {metric.noun}, {by}", ", ".join(f"{name} {v:{form}}" for name, v in known[which].items())]
        for which in ("best", "worst")
        if known[which]
    ]
