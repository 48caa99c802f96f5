"""One image: its probabilities, its labels and where the evidence for them lies."""

import filecmp
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.paths import decision_path, manifest_path, model_path
from comp.artifacts.stamps import digest
from comp.compute.devices import devices
from comp.config.recipe import Recipe
from comp.console import progress, say
from comp.data.decoding import Limits
from comp.data.discovery import split_template
from comp.data.image_cache import as_cached
from comp.data.image_files import as_expression, composed, look_up
from comp.data.manifest import read_manifest, read_training
from comp.decisions.calibration import TINY, logit
from comp.decisions.rules import Fitted
from comp.errors import CompError
from comp.evaluation.results import parts_of, rules_of
from comp.models import network as models
from comp.models.gradcam import heat_maps
from comp.models.inference import predict_image

N_LABELS, N_MAPS = 6, 4  # shown of an image: more labels where more are given
NEAR = 1.0  # in logits: labels this little below their threshold have a heat map as well


@dataclass(frozen=True)
class Asked:
    """An image to explain, and what is known of it."""

    name: str
    paths: tuple[Path, ...]  # 1, or one a channel
    pixels: np.ndarray  # (side, side, channels) uint8, as networks see it
    rule: Fitted
    fold: int | None = None  # of a training image: the one that holds it out
    true: np.ndarray | None = None  # (C,) 0/1, of a training image
    limits: Limits | None = None  # of values of more than 8 bits


@dataclass(frozen=True)
class Answer:
    asked: Asked
    n_networks: int
    probs: np.ndarray  # (C,) float32
    given: np.ndarray  # (C,) 0/1
    shown: list[int]  # classes, the most important first
    maps: np.ndarray  # (up to N_MAPS, h, w) 0 … 1, of the first of them

    @property
    def about(self) -> str:
        """Whose answer it is, and how labels came in that no threshold lets in."""
        if self.asked.fold is not None:
            whose = f"a training image; the answer of the network that held it out, of fold {self.asked.fold}"
        else:
            whose = f"mean of {self.n_networks} networks" if self.n_networks > 1 else "one network"
        if self.asked.rule.expected:
            return f"{whose}, labels of the best expected F-beta"
        nearest = self.asked.rule.is_nearest(self.probs, self.given)
        return whose + ("; none above its threshold, so the nearest" if nearest else "")


def read(path: Path, recipe: Recipe, decision: dict[str, Any], limits: Limits | None = None) -> Asked:
    """The image at `path`, or of which it is a channel. Raises CompError where it, or another of its
    channels, isn't there or isn't an image."""
    if not path.is_file():
        raise CompError(f"{path}: {'a folder; name the images in it' if path.is_dir() else 'no such file'}")
    name, paths = path.stem.encode("utf-8", "replace").decode(), [path]
    if recipe.channels:
        places = names_of(path, recipe)
        if not places:
            raise CompError(
                f"{path}: a file is expected that is named as one channel of an image, "
                f"{' or '.join(recipe.competition.images.train)}"
            )
        folder, pattern, name = places[0]
        names = [pattern.format(id=name, channel=channel) for channel in recipe.channels]
        paths = [found for other in names if (found := look_up(folder, other))]
        if absent := [folder / other for other in names if not look_up(folder, other)]:
            raise CompError(f"{absent[0]}: no such file, and {path} is another channel of this image")
    try:
        pixels = as_cached(
            paths, recipe.phases[-1].size, joined=bool(recipe.channels), finest=recipe.finest,
            filter=recipe.filter, limits=limits,
        )  # fmt: skip
    except OSError as error:
        raise CompError(f"{path} can't be read as an image: {str(error).splitlines()[0]}") from error
    rule = Fitted.from_json(decision, tuple(decision["thresholds"]))
    return Asked(name, tuple(paths), pixels, rule, limits=limits)


def names_of(path: Path, recipe: Recipe) -> list[tuple[Path, str, str]]:
    """(folder, pattern, id) by which the competition's templates give this path; ids without folders come
    first."""
    images, parts, found = recipe.competition.images, path.absolute().parts, []
    for pattern in dict.fromkeys(split_template(template)[1] for template in (*images.train, *images.test)):
        fits = as_expression(pattern, images.channels, identifier=".+").fullmatch
        found += [
            (Path(*parts[:-n]), pattern, match["id"])
            for n in range(1, len(parts))
            if (match := fits(composed("/".join(parts[-n:]))))
        ]
    return sorted(found, key=lambda place: place[2].count("/"))


def known(asked: Asked, recipe: Recipe, decision: dict[str, Any], folds: Sequence[int]) -> Asked:
    """The same; a training image, which has the name and the bytes of one, with its labels, the fold that
    holds it out, and the rule that was fitted to the other folds. Without the data none is known."""
    competition = recipe.competition
    if not manifest_path(competition.name).exists():
        return asked
    try:
        folders = read_manifest(competition).folders["train"]
    except CompError as error:
        say(f"explain: whether it is a training image isn't known ({error})")
        return asked
    channel = recipe.channels[0] if recipe.channels else ""
    for _, _, name in names_of(asked.paths[0], recipe):
        originals = [look_up(folder, pattern.format(id=name, channel=channel)) for folder, pattern in folders]
        if any(file and filecmp.cmp(file, asked.paths[0], shallow=False) for file in originals):
            break
    else:
        return asked
    data, labels, fold_of = read_training(recipe)
    made_with = {
        "labels": digest(labels.ids, labels.classes, labels.targets),
        "folds": digest(labels.ids, fold_of),
    }
    if other := [part for part in made_with if decision["stamp"].get(part) != made_with[part]]:
        raise CompError(
            f"{name} is a training image, and {decision_path(recipe.name)} was made with other {other[0]}; "
            "run the stages from `comp train` on"
        )
    row = {composed(image): i for i, image in enumerate(labels.ids.tolist())}.get(composed(name))
    if row is None:  # it lies there without labels
        return asked
    fold = int(fold_of[row])
    if fold not in folds:
        raise CompError(
            f"{name} is a training image of fold {fold}, and only its network has not learned it; "
            f"{model_path(recipe.name, fold)} is not there, or not among --folds"
        )
    part, of_fold = str(fold), np.flatnonzero(fold_of == fold)
    if "by_fifth" in decision:  # this fold alone was held out
        (part,) = parts_of(recipe, data, labels, of_fold, fold_of)[of_fold == row].tolist()
    rule = rules_of(decision, labels.classes).get(part, asked.rule)
    return replace(asked, name=name, rule=rule, fold=fold, true=labels.targets[row])


def explain(recipe: Recipe, folds: Sequence[int], asked: Sequence[Asked]) -> list[Answer]:
    """The mean answer of the networks of these folds, or that of the one which held the image out."""
    place, metric = devices(1)[0].activate(), recipe.competition.metric
    n_answers = sum(len(folds) if one.fold is None else 1 for one in asked)
    found: list[list[np.ndarray]] = [[] for _ in asked]
    with progress("answers", n_answers) as advance:
        for model, spec, rows in _networks(recipe, folds, asked):
            for i in rows:
                found[i].append(predict_image(recipe, model, spec, asked[i].pixels, place))
                advance(1)
    probs = [np.mean(of_image, 0) for of_image in found]
    given = [
        one.rule.decide(p[None], beta=metric.beta, empty=metric.empty)[0] for one, p in zip(asked, probs)
    ]
    listed, mapped = zip(*(shown(one, p, g) for one, p, g in zip(asked, probs, given)))
    maps: list[list[np.ndarray]] = [[] for _ in asked]
    with progress("heat maps", n_answers) as advance:
        for model, spec, rows in _networks(recipe, folds, asked):
            for i in rows:
                maps[i] += heat_maps(model, spec, asked[i].pixels[None], [mapped[i]], place)
                advance(1)
    return [
        Answer(one, len(of_image), p, g, order, _to_one(np.mean(of_image, 0)))
        for one, p, g, order, of_image in zip(asked, probs, given, listed, maps)
    ]


def _to_one(maps: np.ndarray) -> np.ndarray:
    return maps / np.maximum(maps.max((1, 2), keepdims=True), 1e-9)


def _networks(
    recipe: Recipe, folds: Sequence[int], asked: Sequence[Asked]
) -> Iterator[tuple[Any, models.ModelSpec, list[int]]]:
    """Each network with its spec and the images that it is asked about."""
    for fold in folds:
        if rows := [i for i, one in enumerate(asked) if one.fold in (None, fold)]:
            yield *models.load(model_path(recipe.name, fold)), rows


def shown(asked: Asked, probs: np.ndarray, given: np.ndarray) -> tuple[list[int], list[int]]:
    """(Labels that are wrongly given or missed, that are given, and others, each from the nearest to be given
    on; the first of them, to draw maps of)."""
    wrong = np.zeros(len(probs), bool) if asked.true is None else asked.true != given
    nearness = logit(probs, TINY) - (0 if asked.rule.expected else logit(asked.rule.thresholds, TINY))
    order = np.lexsort((-nearness, given == 0, ~wrong)).tolist()
    telling = [c for c in order if given[c] or wrong[c] or nearness[c] > -NEAR]
    return order[: max(N_LABELS, int(((given == 1) | wrong).sum()))], (telling or order)[:N_MAPS]
