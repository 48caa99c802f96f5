"""One image: its probabilities or numbers, its labels, and heat maps of the evidence for them."""

import filecmp
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from comp.artifacts.decision_schema import Decision, classes_of
from comp.artifacts.files import read_json
from comp.artifacts.paths import decision_path, manifest_path, model_path, oof_path
from comp.artifacts.predictions import load, mean_of_folds
from comp.compute.devices import devices
from comp.config.metric import Answer
from comp.config.recipe import Recipe
from comp.console import info, progress
from comp.data.discovery import split_template
from comp.data.image_cache import read_as_cached
from comp.data.image_files import expand_folders, look_up, template_to_regex, to_nfc
from comp.data.manifest import CompetitionFiles, read_manifest, read_training
from comp.data.path_tables import ending_of
from comp.data.scaling import Limits
from comp.data.table_rows import columns_in
from comp.decisions.answer_rules import Rule, cuts_of, rule_from_json
from comp.decisions.calibration import TINY, logit
from comp.decisions.cut_points import expected_grades
from comp.decisions.decision_stamp import differences
from comp.decisions.rules import FittedRule
from comp.decisions.scorers import first_classes, without_code
from comp.errors import CompError
from comp.evaluation.results import parts_of, rules_of, stamp_now
from comp.models import network as models
from comp.models.gradcam import heat_maps
from comp.models.inference import predict_image

N_LABELS, N_MAPS = 6, 4  # shown per image; more labels where more are given
N_NUMBERS = 12  # shown per image
NEAR_THRESHOLD = 1.0  # logits; labels this close below their threshold get a heat map too


@dataclass(frozen=True)
class Query:
    """An image to explain, with its labels if it is a training image."""

    name: str
    paths: tuple[Path, ...]  # one, or one per channel
    pixels: np.ndarray  # (side, side, channels) uint8, at the networks' size
    rule: Rule
    fold: int | None = None  # the fold that held out a training image
    true: np.ndarray | None = None  # (C,) 0/1 labels or numbers of a training image, NaN where unknown
    limits: Limits | None = None  # black and white of values with more than 8 bits
    features: np.ndarray | None = None  # (F,) of a training image
    bands: tuple[int, ...] = ()  # of the file, that are its channels
    n_first: int = 1  # labels of an answer that is a ranking

    @property
    def answer(self) -> Answer:
        """What an answer is."""
        return "labels" if isinstance(self.rule, FittedRule) else self.rule.answer

    def chosen(self, given: np.ndarray) -> np.ndarray:
        """Return (C,) bool: the labels that an answer (C,) gives. Of probabilities these are those above 0.5,
        of a ranking the first ones."""
        if self.answer == "ranking":
            return np.isin(np.arange(len(given)), first_classes(given[None], self.n_first)[0])
        return given > 0.5


@dataclass(frozen=True)
class Explanation:
    query: Query
    n_networks: int
    probs: np.ndarray  # (C,) float32 probabilities or numbers of the networks
    given: np.ndarray  # (C,) the answer: 0/1, probabilities or numbers
    shown: list[int]  # classes, the most important first
    maps: np.ndarray  # (up to N_MAPS, h, w) 0 … 1, heat maps of the first classes
    ranges: np.ndarray | None = None  # (C, 2) lowest and highest numbers of held-out images, if known

    @property
    def about(self) -> str:
        """Return which networks answered, and whether labels were given although none passed its
        threshold."""
        if self.query.fold is not None:
            whose = f"a training image, predicted by the network that held it out (fold {self.query.fold})"
        else:
            whose = f"mean of {self.n_networks} networks" if self.n_networks > 1 else "one network"
        if self.query.answer == "grades":
            return f"{whose}; {self.grade}"
        if self.query.answer != "labels":
            return whose
        if self.query.rule.expected:
            return f"{whose}; labels of the best expected F-beta"
        nearest = self.query.rule.is_nearest(self.probs, self.given)
        return whose + ("; no label is above its threshold, so the nearest is given" if nearest else "")

    @property
    def grade(self) -> str:
        """Return the expected grade, counted from 0, and where it lies between the cut points."""
        cuts, expected = cuts_of(self.query.rule), float(expected_grades(self.probs[None])[0])
        text = f"the expected grade is {expected:.2f}"
        if not cuts:
            return f"{text}, the most probable one is given"
        at = int(self.given.argmax())
        low, high = (f"{cuts[i]:.2f}" if 0 <= i < len(cuts) else "" for i in (at - 1, at))
        if low and high:
            return f"{text}, between the cut points {low} and {high}"
        return f"{text}, {'above' if low else 'below'} the cut point {low or high}"


def number_text(value: float) -> str:
    """Return a number as people write it, with four digits or more."""
    return "unknown" if np.isnan(value) else f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def read_query(path: Path, recipe: Recipe, decision: dict[str, Any], limits: Limits | None = None) -> Query:
    """Return the image at `path` with the rule that decides it."""
    name, paths, pixels = read_image(path, recipe, limits)
    rule = rule_from_json(decision, classes_of(decision))
    k = recipe.competition.metric.k
    return Query(name, paths, pixels, rule, limits=limits, bands=recipe.bands, n_first=k)


def read_image(
    path: Path, recipe: Recipe, limits: Limits | None = None
) -> tuple[str, tuple[Path, ...], np.ndarray]:
    """Return the name, the files and (side, side, channels) uint8 of the image at `path`, or of the one of
    which it is a channel. Raise CompError where a file is missing or isn't an image."""
    if not path.is_file():
        raise CompError(f"{path}: {'a folder; give the images in it' if path.is_dir() else 'no such file'}")
    name, paths = path.stem.encode("utf-8", "replace").decode(), [path]
    if recipe.channels and not recipe.bands:
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
            paths, recipe.phases[-1].size, joined=bool(recipe.channels), bands=recipe.bands,
            max_size=recipe.max_size, filter=recipe.filter, code=recipe.code, limits=limits,
        )  # fmt: skip
    except OSError as error:
        raise CompError(f"{path} can't be read as an image: {str(error).splitlines()[0]}") from error
    return name, tuple(paths), pixels


def names_of(path: Path, recipe: Recipe) -> list[tuple[Path, str, str]]:
    """Return (folder, pattern, id) for each way in which the competition's templates give this path. Ids
    without folders come first."""
    images, parts, found = recipe.competition.images, path.absolute().parts, []
    patterns = [split_template(template)[1] for template in (*images.train, *images.test)]
    if not recipe.competition.labels.csv:  # the ids are paths
        patterns = [f"{{id}}{ending_of(pattern)}" for pattern in patterns]
    patterns = [p[p[: p.index("{")].rfind("/") + 1 :] for p in patterns if not columns_in([p])]  # without *
    for pattern in dict.fromkeys(patterns):
        fits = template_to_regex(pattern, images.channels, identifier=".+").fullmatch
        found += [
            (Path(*parts[:-n]), pattern, match["id"])
            for n in range(1, len(parts))
            if (match := fits(to_nfc("/".join(parts[-n:]))))
        ]
    return sorted(found, key=lambda place: place[2].count("/"))


def training_name(path: Path, recipe: Recipe, data: CompetitionFiles) -> str | None:
    """Return the id of the training image with the name and the bytes of the file at `path`; None if there is
    none."""
    folders = data.folders["train"]
    if columns_in([pattern for _, pattern in folders]):  # only the table knows the names
        ids = data.labels(recipe.competition).ids
        files = [paths[0] for paths in data.images("train", ids, recipe.channels).paths]
        same = (i for i, file in enumerate(files) if file.name == path.name and _are_equal(file, path))
        row = next(same, None)
        return None if row is None else str(ids[row])
    channel = recipe.channels[0] if recipe.channels else ""
    places = [place for folder, pattern in folders for place in expand_folders(folder, pattern)]
    for _, _, name in names_of(path, recipe):
        originals = [look_up(folder, pattern.format(id=name, channel=channel)) for folder, pattern in places]
        if any(file and _are_equal(file, path) for file in originals):
            return name
    return None


def _are_equal(file: Path, other: Path) -> bool:
    return filecmp.cmp(file, other, shallow=False)


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
        name = training_name(query.paths[0], recipe, read_manifest(competition))
    except CompError as error:
        info(f"explain: no check for training images ({error})")
        return query
    if name is None:
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
    features = None if labels.features is None else labels.features[row]
    return replace(query, name=name, rule=rule, fold=fold, true=labels.targets[row], features=features)


def explain(recipe: Recipe, folds: Sequence[int], queries: Sequence[Query]) -> list[Explanation]:
    """Return for each image the mean of these folds' networks; for a training image, the network that held it
    out."""
    place = devices(1)[0].activate()
    n_answers = sum(len(folds) if query.fold is None else 1 for query in queries)
    found: list[list[np.ndarray]] = [[] for _ in queries]
    with progress("answers", n_answers) as advance:
        for model, spec, rows in _networks(recipe, folds, queries):
            for i in rows:
                query = queries[i]
                found[i].append(predict_image(recipe, model, spec, query.pixels, place, query.features))
                advance(1)
    probs = [mean_of_folds(of_image) for of_image in found]
    metric = without_code(recipe.competition.metric)
    given = [query.rule.decide(p[None], metric)[0] for query, p in zip(queries, probs)]
    listed, mapped = zip(*(labels_to_show(query, p, g) for query, p, g in zip(queries, probs, given)))
    ranges = ranges_of(recipe, queries[0])
    maps: list[list[np.ndarray]] = [[] for _ in queries]
    with progress("heat maps", n_answers) as advance:
        for model, spec, rows in _networks(recipe, folds, queries):
            for i in rows:
                maps[i] += heat_maps(model, spec, queries[i].pixels[None], [mapped[i]], place)
                advance(1)
    return [
        Explanation(query, len(of_image), p, g, order, _scaled_to_1(np.mean(of_image, 0)), ranges)
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


def ranges_of(recipe: Recipe, query: Query) -> np.ndarray | None:
    """Return (C, 2) the lowest and the highest number that the run predicted for held-out images; None where
    answers are no numbers, or oof.npz is not here."""
    path = oof_path(recipe.name)
    if query.answer != "numbers" or not path.exists():
        return None
    probs = load(path, classes_of(read_json(decision_path(recipe.name), Decision))).probs
    return np.stack([probs.min(0), probs.max(0)], axis=1)


def labels_to_show(query: Query, probs: np.ndarray, given: np.ndarray) -> tuple[list[int], list[int]]:
    """Return the labels or numbers to show, and those of them with heat maps. Wrong labels come first, then
    given ones, then others; within each, the label that is furthest above its threshold, or the most probable
    one, comes first. Numbers come in the order of their columns."""
    n_classes = len(probs)
    if query.answer == "numbers":
        return list(range(min(n_classes, N_NUMBERS))), list(range(min(n_classes, N_MAPS)))
    chosen = query.chosen(given)
    wrong = np.zeros(n_classes, bool) if query.true is None else (query.true == 1) != chosen
    if query.true is not None:
        wrong &= (query.true == 1) if query.answer == "ranking" else ~np.isnan(query.true)
    rule, nearness = query.rule, logit(probs, TINY)
    if isinstance(rule, FittedRule) and not rule.expected:
        nearness = nearness - logit(rule.thresholds, TINY)
    order = np.lexsort((-nearness, ~chosen, ~wrong)).tolist()
    with_maps = [c for c in order if chosen[c] or wrong[c] or nearness[c] > -NEAR_THRESHOLD]
    return order[: max(N_LABELS, int((chosen | wrong).sum()))], (with_maps or order)[:N_MAPS]
