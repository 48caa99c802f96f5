"""report: a decided run as one page that opens anywhere, without a network.

Reads runs/<recipe>/: logs, models, oof.npz, test.npz and decision.json, and some images; writes
runs/<recipe>/report.html.
"""

import base64
import json
import time
from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import Any

import numpy as np

from comp.artifacts import (
    model_path,
    oof_path,
    plain,
    read_stamp,
    report_path,
    test_path,
    write_text,
)
from comp.config import Recipe
from comp.console import say, size_text, table
from comp.errors import CompError
from comp.findings import (
    by_class,
    calibration,
    commonest,
    curves,
    drift,
    gallery,
    log_losses,
    scores,
    together,
)
from comp.images import as_cached, resize
from comp.outcomes import Outcome, read_outcome
from comp.pictures import jpeg, thumbnail
from comp.predictions import aligned, load
from comp.suspects import suspects

PICTURE = 160  # pixels
MOST_IMAGES = 480
MOST_BYTES = 10_000_000  # of pictures, as text
MOST_SUSPECTS = 50  # as pictures
MOST_LISTED = 500
MOST_MAPS = 6  # of an image
MOST_PAIRED = 40  # classes that are shown with each other


def run(recipe: Recipe, *, force: bool) -> None:
    started = time.monotonic()
    outcome = read_outcome(recipe)
    path, stamp = report_path(recipe.name), plain({"decision": outcome.decision["stamp"]})
    if read_stamp(path) == stamp and not force:
        say(f"report: {path} done already")
        return
    content = findings(outcome)
    content["images"], content["suspects"] = images_of(outcome)
    text = page(content, stamp)
    write_text(path, text)
    told(content)
    n_images, seconds = len(content["images"]), time.monotonic() - started
    size = size_text(len(text.encode()))
    say(f"report: {path}, {size}, {n_images:,} images, in {seconds:.0f} s; open it in a browser")


def findings(outcome: Outcome) -> dict[str, Any]:
    """All but the images."""
    recipe, classes = outcome.recipe, outcome.labels.classes
    competition = recipe.competition
    path = test_path(recipe.name)
    test_ids = outcome.data.sample_ids(competition)
    metric = competition.metric.settings
    test = aligned(load(path, classes), test_ids, path)
    decided = outcome.fitted.decide(test, beta=metric["beta"], empty=metric.get("empty", 0.0))
    members = networks_of(recipe)
    rows, pairs = by_class(outcome), commonest(outcome.targets, MOST_PAIRED)
    aps = [row["ap"] for row in rows if row["ap"] is not None]
    return {
        "name": recipe.name,
        "competition": competition.title or competition.name,
        "metric": str(competition.metric),
        "beta": metric["beta"],
        "single": competition.labels.single,
        "rule": outcome.decision["rule"],
        "backbones": [member.backbone for member in recipe.members or (recipe,)],
        "views": list(recipe.views),
        "n_rows": len(outcome.rows),
        "n_test": len(test_ids),
        "n_folds": len(np.unique(outcome.folds)),
        "scores": scores(outcome),
        "mean_ap": float(np.mean(aps)),
        "log_loss": float(log_losses(outcome.probs, outcome.targets).mean() / len(classes)),
        "curves": curves(members, recipe.n_networks),
        "sizes": [[phase.size, phase.epochs] for phase in (recipe.members or (recipe,))[0].phases],
        "classes": rows,
        "calibration": calibration(outcome.probs, outcome.targets),
        "together": {
            "classes": pairs,
            "true": together(outcome.targets[:, pairs]).tolist(),
            "decided": together(outcome.decisions[:, pairs]).tolist(),
        },
        "drift": drift(outcome, decided),
        "labels_an_image": {
            "true": float(outcome.targets.sum(1).mean()),
            "held_out": float(outcome.decisions.sum(1).mean()),
            "test": float(decided.sum(1).mean()),
        },
    }


def networks_of(recipe: Recipe) -> list[str]:
    """The runs whose networks a run is made of."""
    if recipe.members:
        return [member.name for member in recipe.members]
    made_from = read_stamp(oof_path(recipe.name)) or {}
    return list(made_from["members"]) if "how" in made_from else [recipe.name]


def images_of(outcome: Outcome) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The images that are shown, and the suspected labels of all."""
    probs, targets, decisions = outcome.probs, outcome.targets, outcome.decisions
    losses = log_losses(probs, targets)
    rows, classes, doubts = suspects(probs, targets)
    chosen = gallery(
        probs, targets, decisions, losses, rows[:MOST_SUSPECTS].tolist(), MOST_IMAGES, outcome.recipe.seed
    )
    competition = outcome.recipe.competition
    files = outcome.data.images("train", outcome.ids[chosen], competition.images.channels)
    shown, n_bytes = [], 0
    for at, row in enumerate(chosen.tolist()):
        try:
            picture = jpeg(thumbnail(files, at, PICTURE), 85)
        except OSError as error:
            raise CompError(f"{files.paths[at][0]}: {str(error).splitlines()[0]}; mend it") from error
        if (n_bytes := n_bytes + len(picture)) > MOST_BYTES:
            break
        shown.append(
            {
                "id": str(outcome.ids[row]),
                "fold": int(outcome.folds[row]),
                "loss": round(float(losses[row]), 4),
                "true": np.flatnonzero(targets[row]).tolist(),
                "decided": np.flatnonzero(decisions[row]).tolist(),
                "probs": [round(float(p), 3) for p in probs[row]],
                "picture": picture,
            }
        )
    chosen = chosen[: len(shown)]
    place = {row: i for i, row in enumerate(chosen.tolist())}
    doubtful = [
        {"id": str(outcome.ids[row]), "image": place.get(row), "label": c, "doubt": round(doubt, 3)}
        | {"given": int(targets[row, c]), "p": round(float(probs[row, c]), 3)}
        for row, c, doubt in zip(rows.tolist(), classes.tolist(), doubts.tolist())
    ]
    wanted = [wanted_maps(image, doubtful, i) for i, image in enumerate(shown)]
    for image, maps in zip(shown, heat_maps_of(outcome, chosen, wanted)):
        image["maps"] = maps
    return shown, doubtful[:MOST_LISTED]


def wanted_maps(image: dict[str, Any], doubtful: Sequence[dict[str, Any]], at: int) -> list[int]:
    """The labels of an image whose evidence one would look at: those in question first."""
    true, decided = set(image["true"]), set(image["decided"])
    asked = [s["label"] for s in doubtful[:MOST_SUSPECTS] if s["image"] == at]
    falling = sorted(true | decided, key=lambda c: (c in true and c in decided, -image["probs"][c]))
    return list(dict.fromkeys([*asked, *falling]))[:MOST_MAPS]


def heat_maps_of(
    outcome: Outcome, rows: np.ndarray, classes: Sequence[Sequence[int]]
) -> list[dict[int, tuple[int, int, str]]]:
    """For each of the rows, by class: (height, width, base64 of uint8) of its heat map, by the network that
    held the image out. Empty where no such network is there."""
    from comp import model as models
    from comp.heatmaps import heat_maps
    from comp.parallel import devices

    found: list[dict[int, tuple[int, int, str]]] = [{} for _ in rows]
    members = {member.name: member for member in outcome.recipe.members or (outcome.recipe,)}
    first = next((m for name, m in members.items() if model_path(name, int(outcome.folds[0])).exists()), None)
    if first is None:
        return found
    device = devices(1)[0].activate()
    for fold in np.unique(outcome.folds[rows]).tolist():
        if not (path := model_path(first.name, fold)).exists():
            continue
        part = np.flatnonzero(outcome.folds[rows] == fold).tolist()
        images = outcome.data.images("train", outcome.ids[rows[part]], first.channels)
        model, spec = models.load(path)
        size, joined = first.phases[-1].size, bool(images.channels)
        pixels = [
            as_cached(paths, size, joined=joined, finest=first.finest, filter=first.filter)
            for paths in images.paths
        ]
        side = max(map(len, pixels))
        seen = np.stack([resize(image, side) for image in pixels])
        maps = heat_maps(model, spec, seen, [classes[i] for i in part], device)
        for i, of_image in zip(part, maps):
            for c, values in zip(classes[i], of_image):
                if values.any():
                    data = base64.b64encode((values * 255).round().astype(np.uint8).tobytes()).decode()
                    found[i][c] = (*values.shape, data)
    return found


def page(content: dict[str, Any], stamp: dict[str, Any]) -> str:
    """The page: template, style and script that ship with the package, with the content inside."""
    files = {name: resources.files("comp.pages").joinpath(name).read_text("utf-8") for name in
             ("report.html", "report.css", "report.js")}  # fmt: skip
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    parts = {
        "@STAMP@": json.dumps(stamp).replace("--", "-\\u002d"),
        "@TITLE@": escape(f"{content['name']}: {content['metric']}"),
        "@STYLE@": files["report.css"],
        "@SCRIPT@": files["report.js"],
        "@DATA@": data.replace("<", "\\u003c"),
    }
    text = files["report.html"]
    for mark, part in parts.items():
        text = text.replace(mark, part, 1)
    return text


def told(content: dict[str, Any]) -> None:
    """What the page finds that should not wait for a browser."""
    warned = [row for row in content["drift"] if row["warn"]]
    if warned:
        say("report: labels that the test images are given more or less often than those held out")
        table(
            ["class", "true", "held out", "test"],
            [[row["name"], *(f"{row[key]:.2%}" for key in ("true", "held_out", "test"))] for row in warned],
        )
