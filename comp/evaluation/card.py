"""What the card of a run says: scores, learning curves, best and worst labels, six images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from comp.console import leaderboard_text
from comp.data.thumbnails import thumbnail, to_rgb
from comp.decisions.class_scores import own_scores
from comp.errors import CompError
from comp.evaluation.explanation import number_text
from comp.evaluation.report_answers import labels_for_counts, places_of, probabilities_of
from comp.evaluation.report_data import curves, has_single_label, scores
from comp.evaluation.results import RunResults
from comp.evaluation.run_metadata import RunMetadata
from comp.user_code import is_reference

N_IMAGES, N_EXTREME = 6, 4  # images; best and worst labels
PICTURE_SIZE = 320  # pixels
MAX_POINTS = 2000  # of numbers


@dataclass(frozen=True)
class CardImage:
    pixels: np.ndarray  # (side, side, 3) uint8
    true: str
    predicted: str
    right: bool | None  # None of numbers, which are never quite right


@dataclass(frozen=True)
class Card:
    name: str
    about: list[str]  # lines: the competition, and how it was trained
    score: str
    score_title: str
    spread: str
    board: list[tuple[str, str]]  # public and private scores, as far as they are known
    curve_title: str
    curves: list[tuple[np.ndarray, np.ndarray]]  # of each fold: epochs and held-out scores
    class_title: str
    classes: list[tuple[str, float]]  # the best labels, then the worst ones
    n_left_out: int  # labels between these
    points: np.ndarray  # (n, 2) true and predicted numbers, where answers are numbers
    images: list[CardImage]


def card_of(
    results: RunResults, members: Sequence[RunMetadata], submissions: Sequence[Mapping[str, str]]
) -> Card:
    """Return the card of a decided run. `submissions` are rows of the ledger; of the run's, the last one with
    a public score counts."""
    recipe, competition = results.recipe, results.recipe.competition
    scored = [row for row in submissions if row["recipe"] == recipe.name and row["public"]]
    board = [(part, leaderboard_text(float(scored[-1][part]))) for part in ("public", "private")
             if scored and scored[-1][part]]  # fmt: skip
    found = scores(results)[0]
    by_fold = [fold["value"] for fold in found["folds"] if fold["value"] is not None]
    lower = ", lower is better" if results.scorer.sign < 0 else ""
    spread = f"folds {min(by_fold):.4f} to {max(by_fold):.4f}" if len(by_fold) > 1 else ""
    title, lines = _curves(results, members)
    class_title, classes, n_left_out = _classes(results)
    return Card(
        recipe.name, [_about(results), *_networks(members)], f"{found['value']:.4f}",
        f"{competition.metric}, cross-fitted{lower}", spread, board, title, lines, class_title, classes,
        n_left_out, _points(results), _images(results),
    )  # fmt: skip


def _about(results: RunResults) -> str:
    competition = results.recipe.competition
    drawn = " (synthetic images)" if competition.drawn else ""
    return f"{competition.title or competition.name}{drawn}"


def _networks(members: Sequence[RunMetadata]) -> list[str]:
    """Return a line about the networks that predicted."""
    known = [member for member in members if member.recipe]
    backbones = dict.fromkeys(member.recipe.backbone for member in known if member.recipe)
    sizes = dict.fromkeys(str(phase.size) for m in known if m.recipe for phase in m.recipe.phases)
    n = sum(len(member.folds) for member in known)
    return [f"{n} × {' + '.join(backbones)} at {', '.join(sizes)} px"] if known else []


def _curves(
    results: RunResults, members: Sequence[RunMetadata]
) -> tuple[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Return the title of the held-out scores by epoch, and those of each fold; of a blend, no curves."""
    metric = results.recipe.competition.metric
    key = "score" if is_reference(metric.name) else metric.name
    if len(members) != 1:
        return "", []
    lines = []
    for network in curves(members):
        points = [(row["epoch"], row[key]) for row in network["rows"] if row.get(key) is not None]
        if network["fold"] is not None and points:
            lines.append(tuple(np.array(points, float).T))
    return f"held-out {metric} by epoch", lines  # type: ignore[return-value]


def _classes(results: RunResults) -> tuple[str, list[tuple[str, float]], int]:
    """Return the title, the best and the worst labels, and how many are between them. Numbers have different
    units, and one label is the score itself: neither is listed."""
    if results.scorer.answer == "numbers" or len(results.labels.classes) < 2:
        return "", [], 0
    own = own_scores(results.scorer, results.targets, results.decisions)
    known = np.flatnonzero(np.isfinite(own.values) & (np.nansum(results.targets, 0) > 0))
    order = known[np.argsort(-own.sign * own.values[known], kind="stable")].tolist()
    shown = order if len(order) <= 2 * N_EXTREME else [*order[:N_EXTREME], *order[-N_EXTREME:]]
    listed = [(results.labels.classes[c], float(own.values[c])) for c in shown]
    noun = "grade" if results.scorer.answer == "grades" else "label"
    return f"{own.name or 'score'} by {noun}", listed, len(order) - len(shown)


def _points(results: RunResults) -> np.ndarray:
    if results.scorer.answer != "numbers":
        return np.zeros((0, 2))
    pairs = np.stack([results.targets[:, 0], results.decisions[:, 0]], 1).astype(float)
    pairs = pairs[~np.isnan(pairs).any(1)]
    return pairs[np.random.default_rng(results.recipe.seed).permutation(len(pairs))[:MAX_POINTS]]


def _images(results: RunResults) -> list[CardImage]:
    """Return some held-out images, picked at random, with their true and predicted labels."""
    rng, numbers = np.random.default_rng(results.recipe.seed), results.scorer.answer == "numbers"
    rows = np.sort(rng.permutation(len(results.rows))[:N_IMAGES])
    files = results.data.images("train", results.ids[rows], results.recipe.competition.images.channel_names)
    chosen = None if numbers else labels_for_counts(results, single=has_single_label(results))
    found = []
    for at, row in enumerate(rows.tolist()):
        try:
            pixels = to_rgb(thumbnail(files, at, PICTURE_SIZE))
        except OSError as error:
            raise CompError(f"{files.paths[at][0]}: {str(error).splitlines()[0]}; replace it") from error
        found.append(CardImage(pixels, *_texts(results, row, None if chosen is None else chosen[row])))
    return found


def _texts(results: RunResults, row: int, chosen: np.ndarray | None) -> tuple[str, str, bool | None]:
    """Return the true and the predicted answer of an image as texts, and whether they agree. `chosen`
    (C,) are its predicted labels 0/1; None for numbers."""
    classes, answer = np.array(results.labels.classes, str), results.scorer.answer
    true, given = results.targets[row], results.decisions[row]
    none = results.recipe.competition.labels.none or "none"
    if chosen is None:
        shown = np.flatnonzero(~np.isnan(true))[:2].tolist()
        texts = [", ".join(number_text(values[c]) for c in shown) for values in (true, given)]
        return texts[0], texts[1], None
    is_true = np.nan_to_num(true) > 0.5
    said = ", ".join(classes[is_true]) or none
    if answer == "ranking":
        place = int(places_of(true[None], given[None])[0])
        first = str(classes[int(given.argmax())])
        return said, first if place == 1 else f"{first} (true: place {place:,})", place == 1
    chosen = chosen > 0.5
    right = bool((chosen == is_true)[~np.isnan(true)].all())
    if answer == "probabilities":
        probs = probabilities_of(results)[row]
        likely = np.argsort(-probs, kind="stable")[: max(1, min(3, int(chosen.sum())))]
        return said, ", ".join(f"{classes[c]} {probs[c]:.2f}" for c in likely), right
    return said, ", ".join(classes[chosen]) or none, right
