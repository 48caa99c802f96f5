"""explain: labels, probabilities and heat maps of single images, whichever they are.

Reads runs/<recipe>/fold<k>/model.safetensors, decision.json and the images, and where they are at hand labels
and folds, by which training images are known; writes a picture.
"""

import filecmp
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.cells import cell_len

from comp.artifacts.schemas import Blended
from comp.artifacts.stamps import (
    decision_path,
    digest,
    explanation_path,
    manifest_path,
    model_path,
    oof_path,
    read_stamp,
)
from comp.compute.local_jobs import devices
from comp.config.loading import Recipe
from comp.console import progress, say, table
from comp.data.decoding import Limits, decode
from comp.data.discovery import split_template
from comp.data.image_files import as_cached, as_expression, composed, look_up
from comp.data.manifest import read_manifest, read_training
from comp.data.thumbnails import as_colours
from comp.decisions.rules import TINY, Fitted, logit
from comp.errors import CompError
from comp.evaluation.results import parts_of, rules_of
from comp.models import network as models
from comp.models.gradcam import heat_maps
from comp.models.inference import predict_image
from comp.plots.style import new_figure, save, written
from comp.training.model_stamp import limits_of_model, read_decision

MOST_IMAGES = 50  # rows of a picture
N_LABELS, N_MAPS = 6, 4  # shown of an image: more labels where more are given
NEAR = 1.0  # in logits: labels this little below their threshold have a heat map as well
PICTURE = 512  # pixels: finer images are reduced
GIVEN, OTHER = "tab:blue", "silver"
TOLD = {(1, 1): " (right)", (1, 0): " (missed)", (0, 1): " (false alarm)", (0, 0): ""}


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


def run(recipe: Recipe, *, images: list[str], folds: list[int], to: str | None, force: bool) -> None:
    made = read_stamp(oof_path(recipe.name), Blended) or {}
    if recipe.members or "how" in made:
        names = ", ".join([member.name for member in recipe.members] or made["members"])
        raise CompError(f"{recipe.name} is a blend of {names}; explain takes the recipe of one of them")
    if len(images) > MOST_IMAGES:
        raise CompError(f"{len(images)} images; a picture holds {MOST_IMAGES} at most")
    folds = [fold for fold in folds if model_path(recipe.name, fold).exists()] or folds
    decision = read_decision(recipe, folds)
    classes = tuple(decision["thresholds"])
    many = f"{len(images)} images" if len(images) > 1 else images[0]
    say(f"explain: {many}, by {recipe.name}, {len(folds)} network{'s' * (len(folds) > 1)}")
    limits = limits_of_model(model_path(recipe.name, folds[0]))
    with progress("images", len(images)) as advance:
        asked = []
        for image in images:
            asked.append(known(read(Path(image), recipe, decision, limits), recipe, decision, folds))
            advance(1)
    target = Path(to) if to else explanation_path(recipe.name, asked[0].name)
    if target.suffix != ".png":
        raise CompError(f"--to {target}: a name that ends in .png is expected")
    if target.resolve() in {path.resolve() for one in asked for path in one.paths}:
        raise CompError(f"{target} would replace an image that is explained; --to names another file")
    if to and target.exists() and not force:
        raise CompError(f"{target} is there; --force replaces it, --to names another file")
    replaced = ", which replaces another" if target.exists() else ""
    answers = explain(recipe, folds, asked)
    for answer in answers:
        report(answer, classes)
    with progress("picture", 1):
        title = f"{recipe.competition.title or recipe.competition.name}, {recipe.name}"
        draw(answers, classes, title, target)
    say(f"explain: {target}{replaced}")


# --- what is asked ------------------------------------------------------------------------------------------


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


# --- what is answered ---------------------------------------------------------------------------------------


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


def report(answer: Answer, classes: tuple[str, ...]) -> None:
    say(f"{answer.asked.name}: {answer.about}")
    true, rows = answer.asked.true, []
    for c in answer.shown:
        at, p = answer.asked.rule.threshold_of(c), answer.probs[c]
        numbers = ["", ""] if at is None else [f"{at:.3f}", f"{p - at:+.3f}"]
        truth = [] if true is None else ["yes" if true[c] else "no"]
        rows.append([classes[c], "yes" if answer.given[c] else "no", *truth, f"{p:.3f}", *numbers])
    table(
        ["label", "predicted", *([] if true is None else ["true"]), "probability", "threshold", "above it"],
        rows,
    )


# --- the picture --------------------------------------------------------------------------------------------


def draw(answers: Sequence[Answer], classes: tuple[str, ...], title: str, path: Path) -> None:
    """A row an image: it, the probabilities of its labels, and the heat maps of the first of them."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    side, gap, head, bars_at, maps_at = 2.3, 0.12, 0.8, 4.8, 7.3  # inches, as all places here
    width = maps_at + N_MAPS * (side + gap) + gap
    heights = [max(side, 0.38 * len(answer.shown)) for answer in answers]
    height = 1.1 + sum(heights) + len(answers) * (head + 0.45)
    figure = new_figure(figsize=(width, height))

    def panel(left: float, top: float, wide: float, high: float) -> Any:
        return figure.add_axes((left / width, (top - high) / height, wide / width, high / height))

    def text(left: float, top: float, what: str, **settings: Any) -> Any:
        return figure.text(left / width, top / height, what, va="center", **{"fontsize": 13, **settings})

    text(0.2, height - 0.3, written(title, 200), fontsize=15)
    handles: list[Any] = [Patch(color=GIVEN, label="predicted"), Patch(color=OTHER, label="not predicted")]
    if any(answer.asked.rule.threshold_of(c) is not None for answer in answers for c in answer.shown):
        handles.append(Line2D([], [], color="black", linewidth=2.5, label="threshold"))
    legend = panel(0.2, height - 0.5, maps_at, 0.5)
    legend.legend(handles=handles, loc="center left", ncols=3, fontsize=13, frameon=False, borderaxespad=0)
    text(maps_at, height - 0.75, "heat maps: evidence for the label, none")
    scale = panel(maps_at + 3.7, height - 0.65, 2.2, 0.2)
    scale.imshow(heat(np.linspace(0, 1, 256)[None], np.full((8, 256, 3), 150, np.uint8)), aspect="auto")
    text(maps_at + 6, height - 0.75, "most in this image")
    bare, top = [legend, scale], height - 1.1
    for answer, high in zip(answers, heights):
        text(0.2, top - 0.2, f"{written(answer.asked.name)}: {answer.about}", fontsize=14)
        top -= head
        image = picture(answer.asked)
        panels = [panel(0.2, top, side, side)]
        panels[0].imshow(image)
        draw_bars(panel(bars_at, top, 1.9, high), answer, classes)
        for k, (c, cells) in enumerate(zip(answer.shown, answer.maps)):
            panels.append(panel(maps_at + k * (side + gap), top, side, side))
            panels[-1].imshow(heat(cells, image))
            label = f"{written(classes[c], 36)} {answer.probs[c]:.2f}" + ("" if cells.any() else ": none")
            colour = "black" if answer.given[c] else "gray"
            panels[-1].set_title(label, fontsize=min(13, 320 / cell_len(label)), color=colour)
        bare += panels
        top -= high + 0.45
    for axes in bare:
        axes.axis("off")
    save(figure, path, dpi=100)


def draw_bars(panel: Any, answer: Answer, classes: tuple[str, ...]) -> None:
    true = answer.asked.true
    for y, c in enumerate(answer.shown):
        p, at = float(answer.probs[c]), answer.asked.rule.threshold_of(c)
        panel.barh(y, p, height=0.6, color=GIVEN if answer.given[c] else OTHER)
        beyond = p
        if at is not None:
            panel.plot([at, at], [y - 0.4, y + 0.4], color="black", linewidth=2.5)
            beyond = at if p < at < p + 0.3 else p
        panel.text(beyond + 0.03, y, f"{p:.2f}", va="center", fontsize=12)
    told = ["" if true is None else TOLD[true[c], answer.given[c]] for c in answer.shown]
    names = [written(classes[c], 36) + text for c, text in zip(answer.shown, told)]
    size = min(13, 300 / max(map(cell_len, names)))
    panel.set_yticks(range(len(names)), names, fontsize=size)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.set_xlim(0, 1.2)
    panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"], fontsize=12)
    panel.set_title("probability", fontsize=13)
    panel.spines[["top", "right"]].set_visible(False)


def picture(asked: Asked) -> np.ndarray:
    """(h, w, 3) uint8 to look at."""
    import cv2

    joined = len(asked.paths) > 1
    image = as_colours(decode(asked.paths, joined=joined, finest=PICTURE, limits=asked.limits))
    scale = min(1.0, PICTURE / max(image.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def heat(cells: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(h, w, 3) 0 … 1: a heat map 0 … 1 of some cells over an image (h, w, 3) uint8 in grey."""
    import cv2
    from matplotlib import colormaps

    height, width = image.shape[:2]
    strength = cv2.resize(cells.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    grey = image.mean(-1, keepdims=True) / 255
    share = 0.75 * strength[..., None]
    return grey * (1 - share) + colormaps["turbo"](strength)[..., :3] * share
