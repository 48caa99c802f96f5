"""One image: its probabilities, its labels, and heat maps of the evidence for them."""

import filecmp
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.paths import decision_path, manifest_path, model_path
from comp.artifacts.predictions import mean_of_folds
from comp.compute.devices import devices
from comp.config.recipe import Recipe
from comp.console import info, progress
from comp.data.decoding import Limits
from comp.data.discovery import split_template
from comp.data.image_cache import read_as_cached
from comp.data.image_files import look_up, template_to_regex, to_nfc
from comp.data.manifest import read_manifest, read_training
from comp.decisions.calibration import TINY, logit
from comp.decisions.decision_stamp import differences
from comp.decisions.metrics import FBeta
from comp.decisions.rules import FittedRule
from comp.errors import CompError
from comp.evaluation.results import parts_of, rules_of, stamp_now
from comp.models import network as models
from comp.models.gradcam import heat_maps
from comp.models.inference import predict_image

N_LABELS, N_MAPS = 6, 4  # shown per image; more labels where more are given
NEAR_THRESHOLD = 1.0  # logits; labels this close below their threshold get a heat map too


@dataclass(frozen=True)
class Query:
    """An image to explain, with its labels if it is a training image."""

    name: str
    paths: tuple[Path, ...]  # one, or one per channel
    pixels: np.ndarray  # (side, side, channels) uint8, at the networks' size
    rule: FittedRule
    fold: int | None = None  # the fold that held out a training image
    true: np.ndarray | None = None  # (C,) 0/1 labels of a training image
    limits: Limits | None = None  # black and white of values with more than 8 bits


@dataclass(frozen=True)
class Explanation:
    query: Query
    n_networks: int
    probs: np.ndarray  # (C,) float32
    given: np.ndarray  # (C,) 0/1
    shown: list[int]  # classes, the most important first
    maps: np.ndarray  # (up to N_MAPS, h, w) 0 … 1, heat maps of the first classes

    @property
    def about(self) -> str:
        """Return which networks answered, and whether labels were given although none passed its
        threshold."""
        if self.query.fold is not None:
            whose = f"a training image, predicted by the network that held it out (fold {self.query.fold})"
        else:
            whose = f"mean of {self.n_networks} networks" if self.n_networks > 1 else "one network"
        if self.query.rule.expected:
            return f"{whose}; labels of the best expected F-beta"
        nearest = self.query.rule.is_nearest(self.probs, self.given)
        return whose + ("; no label is above its threshold, so the nearest is given" if nearest else "")


def read_query(path: Path, recipe: Recipe, decision: dict[str, Any], limits: Limits | None = None) -> Query:
    """Return the image at `path` with the rule that decides it."""
    name, paths, pixels = read_image(path, recipe, limits)
    rule = FittedRule.from_json(decision, tuple(decision["thresholds"]))
    return Query(name, paths, pixels, rule, limits=limits)


def read_image(
    path: Path, recipe: Recipe, limits: Limits | None = None
) -> tuple[str, tuple[Path, ...], np.ndarray]:
    """Return the name, the files and (side, side, channels) uint8 of the image at `path`, or of the one of
    which it is a channel. Raise CompError where a file is missing or isn't an image."""
    if not path.is_file():
        raise CompError(f"{path}: {'a folder; give the images in it' if path.is_dir() else 'no such file'}")
    name, paths = path.stem.encode("utf-8", "replace").decode(), [path]
    if recipe.channels:
        places = names_of(path, recipe)
        if not places:
            raise CompError(
                f"{path}: a channel of an image is expected, with a name like "
                f"{' or '.join(recipe.competition.images.train)}"
            )
        folder, pattern, name = places[0]
        names = [pattern.format(id=name, channel=channel) for channel in recipe.channels]
        paths = [found for other in names if (found := look_up(folder, other))]
        if absent := [folder / other for other in names if not look_up(folder, other)]:
            raise CompError(f"{absent[0]}: no such file; it is another channel of the image of {path}")
    try:
        pixels = read_as_cached(
            paths, recipe.phases[-1].size, joined=bool(recipe.channels), max_size=recipe.max_size,
            filter=recipe.filter, code=recipe.code, limits=limits,
        )  # fmt: skip
    except OSError as error:
        raise CompError(f"{path} can't be read as an image: {str(error).splitlines()[0]}") from error
    return name, tuple(paths), pixels


def names_of(path: Path, recipe: Recipe) -> list[tuple[Path, str, str]]:
    """Return (folder, pattern, id) for each way in which the competition's templates give this path. Ids
    without folders come first."""
    images, parts, found = recipe.competition.images, path.absolute().parts, []
    for pattern in dict.fromkeys(split_template(template)[1] for template in (*images.train, *images.test)):
        fits = template_to_regex(pattern, images.channels, identifier=".+").fullmatch
        found += [
            (Path(*parts[:-n]), pattern, match["id"])
            for n in range(1, len(parts))
            if (match := fits(to_nfc("/".join(parts[-n:]))))
        ]
    return sorted(found, key=lambda place: place[2].count("/"))


def with_training_labels(
    query: Query, recipe: Recipe, decision: dict[str, Any], folds: Sequence[int]
) -> Query:
    """Return the query; that of a training image with its labels, the fold that holds it out, and the rule
    that was fitted to the other folds. A training image is recognised by its name and bytes, if the data is
    here. Raise CompError where that fold isn't among `folds`."""
    competition = recipe.competition
    if not manifest_path(competition.name).exists():
        return query
    try:
        folders = read_manifest(competition).folders["train"]
    except CompError as error:
        info(f"explain: no check for training images ({error})")
        return query
    channel = recipe.channels[0] if recipe.channels else ""
    for _, _, name in names_of(query.paths[0], recipe):
        originals = [look_up(folder, pattern.format(id=name, channel=channel)) for folder, pattern in folders]
        if any(file and filecmp.cmp(file, query.paths[0], shallow=False) for file in originals):
            break
    else:
        return query
    data, labels, fold_of = read_training(recipe)
    wanted = stamp_now(recipe, labels, fold_of, None)
    if other := differences(decision["stamp"], wanted, ("labels", "folds")):
        raise CompError(
            f"{name} is a training image, but {decision_path(recipe.name)} was made with other {other[0]}; "
            "run the stages from `comp train` on"
        )
    row = {to_nfc(image): i for i, image in enumerate(labels.ids.tolist())}.get(to_nfc(name))
    if row is None:  # the file is in the training folder, but not in the label table
        return query
    fold = int(fold_of[row])
    if fold not in folds:
        raise CompError(
            f"{name} is a training image of fold {fold}, and only that fold's network has not learned it; "
            f"{model_path(recipe.name, fold)} is missing, or not among --folds"
        )
    part, of_fold = str(fold), np.flatnonzero(fold_of == fold)
    if "by_fifth" in decision:  # only this fold was held out
        (part,) = parts_of(recipe, data, labels, of_fold, fold_of)[of_fold == row].tolist()
    rule = rules_of(decision, labels.classes).get(part, query.rule)
    return replace(query, name=name, rule=rule, fold=fold, true=labels.targets[row])


def explain(recipe: Recipe, folds: Sequence[int], queries: Sequence[Query]) -> list[Explanation]:
    """Return for each image the mean of these folds' networks; for a training image, the network that held it
    out."""
    place, metric = devices(1)[0].activate(), FBeta.from_metric(recipe.competition.metric)
    n_answers = sum(len(folds) if query.fold is None else 1 for query in queries)
    found: list[list[np.ndarray]] = [[] for _ in queries]
    with progress("answers", n_answers) as advance:
        for model, spec, rows in _networks(recipe, folds, queries):
            for i in rows:
                found[i].append(predict_image(recipe, model, spec, queries[i].pixels, place))
                advance(1)
    probs = [mean_of_folds(of_image) for of_image in found]
    given = [query.rule.decide(p[None], metric)[0] for query, p in zip(queries, probs)]
    listed, mapped = zip(*(labels_to_show(query, p, g) for query, p, g in zip(queries, probs, given)))
    maps: list[list[np.ndarray]] = [[] for _ in queries]
    with progress("heat maps", n_answers) as advance:
        for model, spec, rows in _networks(recipe, folds, queries):
            for i in rows:
                maps[i] += heat_maps(model, spec, queries[i].pixels[None], [mapped[i]], place)
                advance(1)
    return [
        Explanation(query, len(of_image), p, g, order, _scaled_to_1(np.mean(of_image, 0)))
        for query, p, g, order, of_image in zip(queries, probs, given, listed, maps)
    ]


def _scaled_to_1(maps: np.ndarray) -> np.ndarray:
    return maps / np.maximum(maps.max((1, 2), keepdims=True), 1e-9)


def _networks(
    recipe: Recipe, folds: Sequence[int], queries: Sequence[Query]
) -> Iterator[tuple[Any, models.ModelSpec, list[int]]]:
    """Yield each network with its spec and the positions of its queries."""
    for fold in folds:
        if rows := [i for i, query in enumerate(queries) if query.fold in (None, fold)]:
            yield *models.load(model_path(recipe.name, fold), recipe.code), rows


def labels_to_show(query: Query, probs: np.ndarray, given: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the labels to show, and those of them with heat maps. Wrong labels come first, then given ones,
    then others; within each, the label that is furthest above its threshold comes first."""
    wrong = np.zeros(len(probs), bool) if query.true is None else query.true != given
    nearness = logit(probs, TINY) - (0 if query.rule.expected else logit(query.rule.thresholds, TINY))
    order = np.lexsort((-nearness, given == 0, ~wrong)).tolist()
    with_maps = [c for c in order if given[c] or wrong[c] or nearness[c] > -NEAR_THRESHOLD]
    return order[: max(N_LABELS, int(((given == 1) | wrong).sum()))], (with_maps or order)[:N_MAPS]
