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

from comp.artifacts.files import write_text
from comp.artifacts.paths import model_path, oof_path, report_path, test_path
from comp.artifacts.predictions import aligned, load
from comp.artifacts.schemas import Blended
from comp.artifacts.stamps import digest, plain, read_stamp
from comp.config.recipe import Recipe
from comp.console import Bars, say, size_text, table
from comp.data.image_cache import as_cached
from comp.data.image_files import resize
from comp.data.thumbnails import jpeg, thumbnail
from comp.decisions.metrics import log_losses
from comp.errors import CompError
from comp.evaluation.gallery import gallery
from comp.evaluation.label_errors import suspects
from comp.evaluation.report_data import (
    MOST_OF_NAME,
    by_class,
    calibration,
    commonest,
    curves,
    drift,
    scores,
    together,
)
from comp.evaluation.results import Outcome, read_outcome
from comp.evaluation.run_metadata import Origin, members_of, origin_of
from comp.safe_text import visible

PICTURE = 160  # pixels
MOST_IMAGES = 480
MOST_BYTES = 12_000_000  # of images and their heat maps
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
    origins = []
    for member in members_of(recipe.name, outcome.made):
        made = outcome.made if member == recipe.name else read_stamp(oof_path(member), Blended) or {}
        if member != recipe.name and digest(made) != outcome.made["members"][member]:
            say(f"report: {member} was trained or predicted again since it was blended; left out")
        else:
            origins.append(origin_of(member, made))
            if changed := ", ".join(map(str, origins[-1].changed)):
                say(f"report: {member}, fold {changed} was trained or predicted again; left out")
    n_rows, n_classes = outcome.probs.shape
    say(f"report: {recipe.name}, {n_rows:,} held-out images, {n_classes:,} labels")
    content = findings(outcome, origins)
    with Bars() as bars:
        content |= images_of(outcome, origins, bars)
    text = page(content, stamp)
    replaced = ", instead of that of another decision" if path.exists() and read_stamp(path) != stamp else ""
    write_text(path, text)
    told(content)
    n_images, seconds = len(content["images"]), time.monotonic() - started
    size = size_text(len(text.encode()))
    say(f"report: {path}, {size}, {n_images:,} images, in {seconds:.0f} s{replaced}; open it in a browser")


def findings(outcome: Outcome, origins: Sequence[Origin]) -> dict[str, Any]:
    """All but the images."""
    recipe, classes = outcome.recipe, outcome.labels.classes
    competition = recipe.competition
    path = test_path(recipe.name)
    test_ids = outcome.data.sample_ids(competition)
    metric = competition.metric.settings
    test = aligned(load(path, classes), test_ids, path)
    decided = outcome.fitted.decide(test, beta=metric["beta"], empty=metric.get("empty", 0.0))
    rows, pairs = by_class(outcome), commonest(outcome.targets, MOST_PAIRED)
    aps = [row["ap"] for row in rows if row["ap"] is not None]
    return {
        "name": recipe.name,
        "competition": competition.title or competition.name,
        "metric": str(competition.metric),
        "beta": metric["beta"],
        "single": competition.labels.single,
        "rule": outcome.decision["rule"],
        "rules": rules_by_part(outcome.decision),
        "networks": [[o.recipe.backbone, *o.views] for o in origins if o.recipe],
        "n_rows": len(outcome.rows),
        "n_test": len(test_ids),
        "n_folds": len(np.unique(outcome.folds)),
        "scores": scores(outcome),
        "mean_ap": float(np.mean(aps)),
        "log_loss": float(log_losses(outcome.probs, outcome.targets).mean() / len(classes)),
        "curves": curves(origins),
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


def rules_by_part(decision: dict[str, Any]) -> dict[str, list[str]]:
    """The names of the rules that cross-fitted decisions are by, each with its parts."""
    found: dict[str, list[str]] = {}
    for part, rule in (decision.get("by_fold") or decision["by_fifth"]).items():
        found.setdefault(rule["rule"], []).append(part)
    return found


def images_of(outcome: Outcome, origins: Sequence[Origin], bars: Bars) -> dict[str, Any]:
    """The images that are shown, and the suspected labels of all."""
    probs, targets, decisions = outcome.probs, outcome.targets, outcome.decisions
    losses, parts = log_losses(probs, targets), list(outcome.rules)
    rows, classes, doubts = suspects(probs, targets)
    seen = rows[:MOST_SUSPECTS].tolist()
    chosen = gallery(probs, targets, decisions, losses, seen, MOST_IMAGES, outcome.recipe.seed)
    channels = outcome.recipe.competition.images.channels
    files = outcome.data.images("train", outcome.ids[chosen], channels)
    shown, n_bytes = [], 0
    for at, row in enumerate(chosen.tolist()):
        bars.at("pictures", at, len(chosen))
        try:
            picture = jpeg(thumbnail(files, at, PICTURE), 85)
        except OSError as error:
            raise CompError(f"{files.paths[at][0]}: {str(error).splitlines()[0]}; mend it") from error
        part = str(outcome.parts[row])
        image = {
            "id": visible(outcome.ids[row], MOST_OF_NAME),
            "fold": int(outcome.folds[row]),
            "part": parts.index(part),
            "nearest": outcome.rules[part].is_nearest(probs[row], decisions[row]),
            "loss": round(float(losses[row]), 4),
            "true": np.flatnonzero(targets[row]).tolist(),
            "decided": np.flatnonzero(decisions[row]).tolist(),
            "probs": {c: p for c, p in enumerate(probs[row].astype(float).round(3).tolist()) if p},
            "picture": picture,
        }
        if (n_bytes := n_bytes + size_of(image)) > MOST_BYTES:
            break
        shown.append(image)
    bars.at("pictures", len(chosen), len(chosen))
    place = {row: i for i, row in enumerate(chosen[: len(shown)].tolist())}
    listed = zip(rows[:MOST_LISTED].tolist(), classes.tolist(), doubts.tolist())
    doubtful = [
        {"id": visible(outcome.ids[row], MOST_OF_NAME), "image": place.get(row), "label": c}
        | {"doubt": round(doubt, 3), "given": int(targets[row, c]), "p": round(float(probs[row, c]), 3)}
        for row, c, doubt in listed
    ]
    wanted = [wanted_maps(image, doubtful, i) for i, image in enumerate(shown)]
    of = next((o for o in origins if any(model_path(o.name, fold).exists() for fold in o.folds)), None)
    maps = heat_maps_of(outcome, of, chosen[: len(shown)], wanted, bars) if of else [{} for _ in shown]
    for image, found in zip(shown, maps):
        fits = (n_bytes := n_bytes + size_of(found)) < MOST_BYTES
        image["maps"] = found if fits else {}
    maps_by = of.name if of and len(origins) > 1 else None
    return {"images": shown, "suspects": doubtful, "n_suspects": len(rows), "maps_by": maps_by}


def size_of(content: Any) -> int:
    return len(json.dumps(content, separators=(",", ":")))


def wanted_maps(image: dict[str, Any], doubtful: Sequence[dict[str, Any]], at: int) -> list[int]:
    """The labels of an image whose evidence one would look at: those in question first."""
    true, decided = set(image["true"]), set(image["decided"])
    asked = [s["label"] for s in doubtful[:MOST_SUSPECTS] if s["image"] == at]
    falling = sorted(true | decided, key=lambda c: (c in true and c in decided, -image["probs"].get(c, 0)))
    return list(dict.fromkeys([*asked, *falling]))[:MOST_MAPS]


def heat_maps_of(
    outcome: Outcome, origin: Origin, rows: np.ndarray, classes: Sequence[Sequence[int]], bars: Bars
) -> list[dict[int, tuple[int, int, str]]]:
    """For each of the rows, by class: (height, width, base64 of uint8) of its heat map, by the network of a
    run that held the image out. Empty where it isn't there, or has no layer for it."""
    bars.at("heat maps", 0, len(rows))
    from comp.compute.devices import devices
    from comp.models import network as models
    from comp.models.gradcam import heat_maps

    found: list[dict[int, tuple[int, int, str]]] = [{} for _ in rows]
    n_done = 0
    recipe, device = origin.recipe, devices(1)[0].activate()
    assert recipe
    for fold in origin.folds:
        part = np.flatnonzero(outcome.folds[rows] == fold).tolist()
        if not (part and (path := model_path(origin.name, fold)).exists()):
            continue
        images = outcome.data.images("train", outcome.ids[rows[part]], recipe.channels)
        model, spec = models.load(path)
        size, joined = recipe.phases[-1].size, bool(images.channels)
        pixels = [
            as_cached(
                paths, size, joined=joined, finest=recipe.finest, filter=recipe.filter, limits=images.limits
            )
            for paths in images.paths
        ]
        side = max(map(len, pixels))
        seen = np.stack([resize(image, side) for image in pixels])
        try:
            maps = heat_maps(model, spec, seen, [classes[i] for i in part], device)
        except CompError as error:
            say(f"report: {error}")
            break
        for i, of_image in zip(part, maps):
            for c, values in zip(classes[i], of_image):
                if values.any():
                    data = base64.b64encode((values * 255).round().astype(np.uint8).tobytes()).decode()
                    found[i][c] = (*values.shape, data)
        bars.at("heat maps", n_done := n_done + len(part), len(rows))
    return found


def page(content: dict[str, Any], stamp: dict[str, Any]) -> str:
    """The page: template, style and script that ship with the package, with the content inside."""
    folder = resources.files("comp.evaluation") / "page"
    names = ("report.html", "report.css", "report.js")
    files = {name: (folder / name).read_text("utf-8") for name in names}
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
