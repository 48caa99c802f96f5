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
from comp.data.thumbnails import encode_webp, thumbnail
from comp.decisions.cut_points import expected_grades
from comp.errors import CompError
from comp.evaluation.label_errors import Suspects
from comp.evaluation.report_answers import MAX_NAME, labels_for_counts, losses_of, places_of, probabilities_of
from comp.evaluation.report_curves import short
from comp.evaluation.report_data import has_single_label
from comp.evaluation.results import RunResults
from comp.evaluation.run_metadata import RunMetadata
from comp.evaluation.suspects import correcting, find_suspects
from comp.safe_text import visible

PICTURE_SIZE = 160  # pixels, in the list of images
LARGE_SIZE = 320  # pixels, of one image alone
MAX_IMAGES = 480
MAX_BYTES = 12_000_000  # of images and their heat maps
MAX_SUSPECTS = 50  # suspected labels that are shown as images
MAX_LISTED = 500  # suspected labels in the list
MAX_PROBS = 100  # probabilities of an image
MAX_MAPS = 6  # per image


def report_images(
    results: RunResults, members: Sequence[RunMetadata], bars: ProgressBars, max_bytes: int = MAX_BYTES
) -> dict[str, Any]:
    """Return the images that are shown, their "rows" of the results, and the suspected labels or numbers
    among all images."""
    single, answer = has_single_label(results), results.scorer.answer
    losses, parts = losses_of(results, single=single), list(results.rules)
    suspects = find_suspects(results)
    rows, classes, _ = suspects
    seen = list(dict.fromkeys(rows[:MAX_SUSPECTS].tolist()))
    labels = None if answer == "numbers" else labels_for_counts(results, single=single)
    if labels is None:
        queues = number_queues(results.decisions - results.targets)
    else:
        queues = label_queues(results.probs, results.targets, labels)
    chosen = gallery(losses, queues, seen, MAX_IMAGES, results.recipe.seed)
    channels = results.recipe.competition.images.channel_names
    files = results.data.images("train", results.ids[chosen], channels)
    shown, larges, n_bytes = [], [], 0
    for at, row in enumerate(chosen.tolist()):
        bars.update("pictures", at, len(chosen))
        try:
            pixels = thumbnail(files, at, LARGE_SIZE)
        except OSError as error:
            raise CompError(f"{files.paths[at][0]}: {str(error).splitlines()[0]}; replace it") from error
        part = str(results.parts[row])
        image = {
            **shown_id(results.ids[row]),
            "fold": int(results.folds[row]),
            "part": parts.index(part),
            "nearest": results.rules[part].is_nearest(results.probs[row], results.decisions[row]),
            "loss": short(float(losses[row])),
            **(numbers_of(results, row) if labels is None else labels_of(results, row, labels[row])),
            "picture": encode_webp(resize(pixels, min(PICTURE_SIZE, len(pixels)))),
        }
        if (n_bytes := n_bytes + size_of(image)) > max_bytes:
            break
        shown.append(image)
        larges.append(encode_webp(pixels) if len(pixels) > PICTURE_SIZE else "")
    bars.update("pictures", len(chosen), len(chosen))
    rows_shown = chosen[: len(shown)].tolist()
    place = {row: i for i, row in enumerate(rows_shown)}
    doubtful = listed_suspects(results, suspects, place)
    wanted = [wanted_maps(image, doubtful, i) for i, image in enumerate(shown)]
    by = next((m for m in members if any(model_path(m.name, fold).exists() for fold in m.folds)), None)
    maps = encoded_heat_maps(results, by, chosen[: len(shown)], wanted, bars) if by else [{} for _ in shown]
    for image, found, large in zip(shown, maps, larges):
        fits = (n_bytes := n_bytes + size_of(found)) < max_bytes
        image["maps"] = found if fits else {}
        if large and (n_bytes := n_bytes + len(large)) < max_bytes:
            image["large"] = large
    maps_by = by.name if by and len(members) > 1 else None
    return {
        "images": shown,
        "rows": rows_shown,
        "suspects": doubtful,
        "n_suspects": len(rows),
        "maps_by": maps_by,
        "correcting": correcting(results),
    }


def shown_id(name: str) -> dict[str, str]:
    """Return an id as the page shows it and, if that is another text, as it is."""
    shown = visible(name, MAX_NAME)
    return {"id": shown} if shown == name else {"id": shown, "real": str(name)}


def exact(value: np.floating) -> float | None:
    """Return a given number with the digits that its precision holds, so that it can be told to be right;
    None for one that is not known."""
    return float(str(value)) if np.isfinite(value) else None


def listed_suspects(results: RunResults, suspects: Suspects, place: dict[int, int]) -> list[dict[str, Any]]:
    """Return the first suspects as the page lists them. `place` is where rows are among the images."""
    answer, targets, probs = results.scorer.answer, results.targets, results.probs
    rows, classes, doubts = suspects
    found = []
    for row, c, doubt in zip(rows[:MAX_LISTED].tolist(), classes.tolist(), doubts.tolist()):
        of = {**shown_id(results.ids[row]), "image": place.get(row), "label": c}
        of |= {"doubt": round(doubt, 3)}
        if answer == "numbers":
            of |= {"given": exact(targets[row, c]), "p": short(results.decisions[row, c])}
        else:
            of |= {
                "given": None if np.isnan(targets[row, c]) else int(targets[row, c]),
                "p": round(float(probs[row, c]), 3),
            }
        if answer == "grades":
            of["expected"] = short(expected_grades(probs[row : row + 1])[0])
        found.append(of)
    return found


def labels_of(results: RunResults, row: int, chosen: np.ndarray) -> dict[str, Any]:
    """Return the labels of an image, those that were chosen (C,) 0/1, and the probabilities."""
    answer, true = results.scorer.answer, results.targets[row]
    probs = probabilities_of(results)[row]
    found: dict[str, Any] = {
        "true": np.flatnonzero(true == 1).tolist(),
        "decided": np.flatnonzero(chosen).tolist(),
        "probs": listed_probs(probs, (true == 1) | (chosen == 1)),
    }
    if np.isnan(true).any():
        found["unknown"] = np.flatnonzero(np.isnan(true)).tolist()
    if answer == "grades":
        found["expected"] = short(expected_grades(results.probs[row : row + 1])[0])
    if answer == "ranking":
        found["rank"] = int(places_of(true[None], results.decisions[row : row + 1])[0])
    return found


def listed_probs(probs: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Return the probabilities (C,) above 0.0005 by class: the MAX_PROBS highest, and those of `labels` (C,)
    0/1."""
    listed = np.union1d(np.argsort(-probs, kind="stable")[:MAX_PROBS], np.flatnonzero(labels))
    rounded = probs[listed].astype(float).round(3).tolist()
    return {c: p for c, p in zip(listed.tolist(), rounded) if p}


def numbers_of(results: RunResults, row: int) -> dict[str, Any]:
    """Return by column [true or None, predicted] of an image, and the columns with the largest errors first,
    in standard deviations of the targets."""
    true, given = results.targets[row], results.decisions[row]
    scale = np.nanstd(results.targets, axis=0)
    errors = np.abs(given - true) / np.where(scale > 0, scale, 1)
    worst = np.argsort(-np.where(np.isnan(errors), -1, errors), kind="stable")
    return {"numbers": [[exact(t), short(g)] for t, g in zip(true, given)], "worst": worst.tolist()}


def size_of(content: Any) -> int:
    return len(json.dumps(content, separators=(",", ":")))


def wanted_maps(image: dict[str, Any], doubtful: Sequence[dict[str, Any]], at: int) -> list[int]:
    """Return the labels of an image to draw heat maps of: suspected ones first, then missed ones and false
    alarms, or else the most probable one; of numbers, those with the largest errors."""
    asked = [s["label"] for s in doubtful[:MAX_SUSPECTS] if s["image"] == at]
    if "numbers" in image:
        return list(dict.fromkeys([*asked, *image["worst"]]))[:MAX_MAPS]
    true, decided = set(image["true"]), set(image["decided"])
    falling = sorted(true | decided, key=lambda c: (c in true and c in decided, -image["probs"].get(c, 0)))
    likeliest = sorted(image["probs"], key=image["probs"].__getitem__)[-1:]
    return (list(dict.fromkeys([*asked, *falling])) or likeliest)[:MAX_MAPS]


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
            "bands": images.bands,
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
    losses: np.ndarray, queues: list[list[int]], suspected: Sequence[int], n_most: int, seed: int
) -> np.ndarray:
    """Return rows (at most n_most) worth a look: those with suspected labels; an eighth with the highest
    losses, and an eighth at random; then in turn the first of each queue, longest queues first."""
    rng = np.random.default_rng(seed)
    others = [np.argsort(-losses, kind="stable"), rng.permutation(len(losses))]
    chosen = dict.fromkeys([*suspected, *np.ravel([order[: n_most // 8] for order in others]).tolist()])
    in_turn = (row for found in zip_longest(*queues) for row in found if row is not None)
    for row in chain(in_turn, others[0].tolist()):
        if len(chosen) >= n_most:
            break
        chosen[row] = None
    return np.array(list(chosen), int)


def label_queues(probs: np.ndarray, targets: np.ndarray, chosen: np.ndarray) -> list[list[int]]:
    """Return for each class the rows of its misses and of its false alarms, each with the worst first; the
    longest lists first. All arrays are (N, C)."""
    queues = []
    for true, order in ((1, probs), (0, -probs)):
        for c in range(targets.shape[1]):
            rows = np.flatnonzero((targets[:, c] == true) & (chosen[:, c] != true))
            queues.append(rows[np.argsort(order[rows, c], kind="stable")].tolist())
    return sorted(queues, key=len, reverse=True)


def number_queues(errors: np.ndarray) -> list[list[int]]:
    """Return for each column of errors (N, C) the rows of the numbers that are too high and of those that are
    too low, the worst first."""
    queues = []
    for column in errors.T:
        order = np.argsort(-column, kind="stable")
        queues += [[row for row in order.tolist() if column[row] > 0]]
        queues += [[row for row in order[::-1].tolist() if column[row] < 0]]
    return queues
