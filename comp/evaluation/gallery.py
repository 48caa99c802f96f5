"""The images of the report, with heat maps."""

import base64
import json
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from comp.artifacts.paths import model_path
from comp.console import ProgressBars, info
from comp.data.image_cache import read_as_cached
from comp.data.image_files import resize
from comp.data.thumbnails import encode_jpeg, thumbnail
from comp.decisions.metrics import log_losses
from comp.errors import CompError
from comp.evaluation.label_errors import find_label_errors
from comp.evaluation.report_data import MAX_NAME
from comp.evaluation.results import RunResults
from comp.evaluation.run_metadata import RunMetadata
from comp.safe_text import visible

PICTURE_SIZE = 160  # pixels
MAX_IMAGES = 480
MAX_BYTES = 12_000_000  # of images and their heat maps
MAX_SUSPECTS = 50  # suspected labels that are shown as images
MAX_LISTED = 500  # suspected labels in the list
MAX_MAPS = 6  # per image


def report_images(results: RunResults, members: Sequence[RunMetadata], bars: ProgressBars) -> dict[str, Any]:
    """Return the images that are shown, and the suspected labels among all images."""
    probs, targets, decisions = results.probs, results.targets, results.decisions
    losses, parts = log_losses(probs, targets), list(results.rules)
    rows, classes, doubts = find_label_errors(probs, targets)
    seen = rows[:MAX_SUSPECTS].tolist()
    chosen = gallery(probs, targets, decisions, losses, seen, MAX_IMAGES, results.recipe.seed)
    channels = results.recipe.competition.images.channels
    files = results.data.images("train", results.ids[chosen], channels)
    shown, n_bytes = [], 0
    for at, row in enumerate(chosen.tolist()):
        bars.update("pictures", at, len(chosen))
        try:
            picture = encode_jpeg(thumbnail(files, at, PICTURE_SIZE), 85)
        except OSError as error:
            raise CompError(f"{files.paths[at][0]}: {str(error).splitlines()[0]}; replace it") from error
        part = str(results.parts[row])
        image = {
            "id": visible(results.ids[row], MAX_NAME),
            "fold": int(results.folds[row]),
            "part": parts.index(part),
            "nearest": results.rules[part].is_nearest(probs[row], decisions[row]),
            "loss": round(float(losses[row]), 4),
            "true": np.flatnonzero(targets[row]).tolist(),
            "decided": np.flatnonzero(decisions[row]).tolist(),
            "probs": {c: p for c, p in enumerate(probs[row].astype(float).round(3).tolist()) if p},
            "picture": picture,
        }
        if (n_bytes := n_bytes + size_of(image)) > MAX_BYTES:
            break
        shown.append(image)
    bars.update("pictures", len(chosen), len(chosen))
    place = {row: i for i, row in enumerate(chosen[: len(shown)].tolist())}
    listed = zip(rows[:MAX_LISTED].tolist(), classes.tolist(), doubts.tolist())
    doubtful = [
        {"id": visible(results.ids[row], MAX_NAME), "image": place.get(row), "label": c}
        | {"doubt": round(doubt, 3), "given": int(targets[row, c]), "p": round(float(probs[row, c]), 3)}
        for row, c, doubt in listed
    ]
    wanted = [wanted_maps(image, doubtful, i) for i, image in enumerate(shown)]
    of = next((m for m in members if any(model_path(m.name, fold).exists() for fold in m.folds)), None)
    maps = encoded_heat_maps(results, of, chosen[: len(shown)], wanted, bars) if of else [{} for _ in shown]
    for image, found in zip(shown, maps):
        fits = (n_bytes := n_bytes + size_of(found)) < MAX_BYTES
        image["maps"] = found if fits else {}
    maps_by = of.name if of and len(members) > 1 else None
    return {"images": shown, "suspects": doubtful, "n_suspects": len(rows), "maps_by": maps_by}


def size_of(content: Any) -> int:
    return len(json.dumps(content, separators=(",", ":")))


def wanted_maps(image: dict[str, Any], doubtful: Sequence[dict[str, Any]], at: int) -> list[int]:
    """Return the labels of an image to draw heat maps of: suspected ones first, then missed ones and false
    alarms."""
    true, decided = set(image["true"]), set(image["decided"])
    asked = [s["label"] for s in doubtful[:MAX_SUSPECTS] if s["image"] == at]
    falling = sorted(true | decided, key=lambda c: (c in true and c in decided, -image["probs"].get(c, 0)))
    return list(dict.fromkeys([*asked, *falling]))[:MAX_MAPS]


def encoded_heat_maps(
    results: RunResults,
    member: RunMetadata,
    rows: np.ndarray,
    classes: Sequence[Sequence[int]],
    bars: ProgressBars,
) -> list[dict[int, tuple[int, int, str]]]:
    """Return for each row, by class, (height, width, base64 of uint8) of its heat map, by the network of a
    run that held the image out. A row is empty without that network, or without a layer for heat maps."""
    bars.update("heat maps", 0, len(rows))
    from comp.compute.devices import devices
    from comp.models import network as models
    from comp.models.gradcam import heat_maps

    found: list[dict[int, tuple[int, int, str]]] = [{} for _ in rows]
    n_done = 0
    recipe, device = member.recipe, devices(1)[0].activate()
    assert recipe
    for fold in member.folds:
        part = np.flatnonzero(results.folds[rows] == fold).tolist()
        if not (part and (path := model_path(member.name, fold)).exists()):
            continue
        images = results.data.images("train", results.ids[rows[part]], recipe.channels)
        model, spec = models.load(path, recipe.code)
        settings: dict[str, Any] = {
            "joined": bool(images.channels),
            "max_size": recipe.max_size,
            "filter": recipe.filter,
            "code": recipe.code,
            "limits": images.limits,
        }
        pixels = [read_as_cached(paths, recipe.phases[-1].size, **settings) for paths in images.paths]
        side = max(map(len, pixels))
        seen = np.stack([resize(image, side) for image in pixels])
        try:
            maps = heat_maps(model, spec, seen, [classes[i] for i in part], device)
        except CompError as error:
            info(f"report: {error}")
            break
        for i, of_image in zip(part, maps):
            for c, values in zip(classes[i], of_image):
                if values.any():
                    data = base64.b64encode((values * 255).round().astype(np.uint8).tobytes()).decode()
                    found[i][c] = (*values.shape, data)
        bars.update("heat maps", n_done := n_done + len(part), len(rows))
    return found


def gallery(
    probs: np.ndarray,
    targets: np.ndarray,
    decisions: np.ndarray,
    losses: np.ndarray,
    suspected: Sequence[int],
    n_most: int,
    seed: int,
) -> np.ndarray:
    """Return rows (at most n_most) worth a look: those with suspected labels; an eighth with the highest
    losses, and an eighth at random; then in turn the worst miss and the worst false alarm of each class,
    classes with the most errors first."""
    rng = np.random.default_rng(seed)
    others = [np.argsort(-losses, kind="stable"), rng.permutation(len(probs))]
    chosen = dict.fromkeys([*suspected, *np.ravel([order[: n_most // 8] for order in others]).tolist()])
    queues = []
    missed, alarms = (targets == 1) & (decisions == 0), (targets == 0) & (decisions == 1)
    for wrong, order in ((missed, probs), (alarms, -probs)):
        for c in range(targets.shape[1]):
            rows = np.flatnonzero(wrong[:, c])
            queues.append(rows[np.argsort(order[rows, c], kind="stable")].tolist())
    queues.sort(key=len, reverse=True)
    in_turn = (row for found in zip_longest(*queues) for row in found if row is not None)
    for row in chain(in_turn, others[0].tolist()):
        if len(chosen) >= n_most:
            break
        chosen[row] = None
    return np.array(list(chosen), int)
