"""What a competition is and what a recipe does: typed, frozen, strict. Both are TOML files; a name means a
file that ships with the package, anything ending in .toml a file of the user's."""

import difflib
import json
import math
import re
import tomllib
import types
import typing
from pathlib import Path, PurePosixPath
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from comp.errors import CompError

PACKAGE_DIR = Path(__file__).parents[1]
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"  # names become file names
MOST_SHOWN = 200  # characters of a wrong value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]


def _without_folders(value: tuple[str, ...]) -> tuple[str, ...]:
    if found := [name for name in value if "/" in name or name in ("", ".", "..")]:
        raise ValueError(
            f"{found[0]!r}: a file's name without folders is expected; it is found in any of them"
        )
    return value


Files = Annotated[Texts, AfterValidator(_without_folders)]


def _plain(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(PurePosixPath(template.replace("\\", "/"))) for template in value)


Templates = Annotated[Texts, AfterValidator(_plain)]  # a\{id}.png and ./a//{id}.png are a/{id}.png


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LabelTable(Strict):
    """The CSV with the training labels."""

    csv: Files  # file names; the first that is there is taken
    id: str
    column: str | None = None  # of label names or indices; None: one 0/1 column a class
    separator: str = Field(" ", min_length=1)
    classes: Texts = ()  # empty: the labels that occur in the CSV, sorted
    indices: bool = False  # the column holds positions in `classes` and not names
    exclusive: tuple[tuple[str, ...], ...] = ()  # groups in which exactly one label holds
    single: bool = False  # exactly one label an image: all are one group, and `column` holds one, not split
    group: str | None = None  # a column: rows with the same value stay in one fold; an empty cell is no group
    none: str | None = Field(None, min_length=1)  # the text of no label, or without `column` its 0/1 column
    ignore: Texts = ()  # columns that are no labels, where each label has a column
    empty: bool = Field(  # whether an image may have no label at all; that is then an answer of its own
        default_factory=lambda data: data.get("none") is not None
    )

    def groups(self, classes: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        """Those of the classes of which exactly one holds."""
        return (classes,) if self.single else self.exclusive

    @model_validator(mode="after")
    def _agrees(self) -> "LabelTable":
        if self.single and (self.exclusive or self.empty):
            raise ValueError("labels.single is one group of all classes; leave out exclusive, empty and none")
        if self.none is not None and not self.empty:
            raise ValueError("labels.none stands for no label; set labels.empty = true")
        if self.ignore and self.column:
            raise ValueError("labels.ignore is for 0/1 columns; with labels.column all others are ignored")
        named = {self.id, self.group, self.none, *self.classes}
        if both := next((name for name in self.ignore if name in named), None):
            raise ValueError(f"labels.ignore holds {both!r}, which another key of labels names")
        if self.none in self.classes:
            raise ValueError(f"labels.none is {self.none!r}, which is in labels.classes; leave it out there")
        return self


def check_fields(template: str) -> str:
    """The template of a file's name, once it was found to hold {id}, and no other field than {channel}."""
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"image template {template!r}: {error}") from error
    fields = [
        f"{{{name}{'!' if how else ''}{how or ''}{':' if form else ''}{form}}}"
        for _, name, form, how in parts
    ]
    if "{id}" not in fields:
        raise ValueError(f"image template {template!r} lacks {{id}}")
    if wrong := sorted(set(fields) - {"{id}", "{channel}"}):
        raise ValueError(f"image template {template!r} holds {wrong[0]}; {{id}} and {{channel}} are known")
    return template


def _check_templates(templates: tuple[str, ...], channels: tuple[str, ...]) -> None:
    for template in templates:
        check_fields(template)
        if bool(channels) != ("{channel}" in template):
            raise ValueError(f"image template {template!r}: {{channel}} and `channels` go together")


def _from_zero(value: Any) -> Any:
    return [0, value] if isinstance(value, int | float) and not isinstance(value, bool) else value


class Images(Strict):
    """Where the images are. A template holds {id}, and {channel} where every channel is a file of its own."""

    train: Templates
    test: Templates  # several: an id is looked for in each
    channels: Texts = ()  # empty: one RGB file an image
    # of files with more than 8 bits a channel, the values that become black and white: [-1000, 3000], or 4095
    # for [0, 4095]; None: what the training images use
    range: Annotated[tuple[float, float] | None, BeforeValidator(_from_zero)] = None

    @field_validator("range")
    @classmethod
    def _ascends(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value and not (value[0] < value[1] and all(map(math.isfinite, value))):
            raise ValueError(f"black below white is expected, found {list(value)}")
        return value

    @model_serializer(mode="wrap")
    def _without_unset_range(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content = handler(self)
        if content.get("range") is None:  # as stamps have it from before there was one
            content.pop("range", None)
        return content

    @model_validator(mode="after")
    def _templates_hold_what_they_must(self) -> "Images":
        templates = (*self.train, *self.test)
        _check_templates(templates, self.channels)
        for text in (*templates, *self.channels):
            if text.startswith("/") or ".." in text.split("/"):
                raise ValueError(f"images: {text!r} leads out of the data folder; leave out .. and a first /")
        return self


class SubmissionTable(Strict):
    """The CSV that Kaggle takes, in the order and form of its sample. Unset fields are those of the
    labels."""

    sample: Files
    id: str | None = None
    column: str | None = None  # "": one 0/1 column a class, though the labels are texts
    separator: str | None = Field(None, min_length=1)
    solution: str | None = None  # a file with the test labels and a column Usage (Public, Private)


class Metric(Strict):
    """Mean F-beta as scikit-learn defines it (`fbeta_score`), or accuracy, where labels.single is true."""

    beta: float = Field(2.0, gt=0)
    average: Literal["samples", "macro", "micro", "accuracy"] = "samples"
    # what an image of no label scores where none is answered (scikit-learn's zero_division), for samples
    empty: float = Field(0.0, ge=0, le=1)

    def __str__(self) -> str:
        return "accuracy" if self.average == "accuracy" else f"{self.average} F{self.beta:g}"

    @property
    def settings(self) -> dict[str, Any]:
        """What functions of F-beta are called with. With one label and one answer an image, F-beta of any
        beta is 1 where they are the same and 0 where not: its mean over images is the accuracy."""
        if self.average == "accuracy":
            return {"beta": 1.0, "average": "samples"}
        return {"beta": self.beta, "average": self.average} | ({"empty": self.empty} if self.empty else {})

    @model_validator(mode="after")
    def _counts_images(self) -> "Metric":
        if self.empty and self.average != "samples":
            raise ValueError(
                f'metric.empty is of images: average = "samples" goes with it, not {self.average}'
            )
        return self


class Drawn(Strict):
    """A competition that is drawn from a seed instead of downloaded."""

    kind: Literal["scenes", "cells"] = "scenes"  # comp/demo.py, comp/cells.py
    n_train: int = Field(2000, ge=50)
    n_test: int = Field(1200, ge=50)
    size: int = Field(64, ge=32)
    seed: int = Field(0, ge=0)
    in_yellow: Texts = ()  # labels of cells that show in the yellow channel and not in the green one


class Competition(Strict):
    name: str = Field(pattern=NAME_PATTERN)
    title: str = ""
    slug: str | None = None  # on Kaggle
    sources: Texts = ()  # where files are looked for, in this order; empty: competitions/<slug>
    labels: LabelTable
    images: Images
    submission: SubmissionTable
    metric: Metric = Field(  # of one label an image: accuracy
        default_factory=lambda data: Metric(average="accuracy" if data["labels"].single else "samples")
    )
    drawn: Drawn | None = None

    @property
    def all_sources(self) -> tuple[str, ...]:
        return self.sources or ((f"competitions/{self.slug}",) if self.slug else ())

    @model_validator(mode="after")
    def _sources_are_addresses(self) -> "Competition":
        for source in self.all_sources:
            if not re.fullmatch(r"competitions/[\w-]+|datasets/[\w-]+/[\w-]+", source):
                raise ValueError(
                    f"source {source!r} is neither competitions/<slug> nor datasets/<owner>/<slug>, "
                    "the end of its address on Kaggle"
                )
        return self

    @model_validator(mode="after")
    def _groups_name_classes(self) -> "Competition":
        if self.labels.classes:
            for label in (label for group in self.labels.exclusive for label in group):
                if label not in self.labels.classes:
                    raise ValueError(f"labels.exclusive names {label!r}, which is not in labels.classes")
        if len(set(self.labels.classes)) < len(self.labels.classes):
            raise ValueError("labels.classes names a label twice")
        return self

    @model_validator(mode="after")
    def _metric_fits(self) -> "Competition":
        if self.metric.average == "accuracy" and not self.labels.single:
            raise ValueError(
                'metric.average = "accuracy" needs exactly one label an image: labels.single = true'
            )
        if self.metric.empty and not self.labels.empty:
            raise ValueError("metric.empty scores images without any label: set labels.empty = true")
        return self


class Phase(Strict):
    """A stretch of training at one image size, with its own cycle of learning rates."""

    size: int = Field(ge=16)  # pixels, square
    epochs: int = Field(ge=1)
    lr: float = Field(1e-3, gt=0)  # the highest of the cycle, for the head
    body_lr: float | None = Field(None, gt=0)  # for all other layers; None: as for the head
    head_epochs: int = Field(0, ge=0)  # so many epochs at the start train the head alone
    batch_size: int = Field(64, ge=2)  # of one step, over all GPUs
    accumulate: int = Field(1, ge=1)  # parts in which a batch is worked on, where memory is short
    schedule: Literal["one-cycle", "cosine-restarts", "constant"] = "one-cycle"
    cycles: int = Field(1, ge=1)  # of cosine-restarts
    warm_up: float | None = Field(None, gt=0, lt=1)  # share of the steps; None: 1/4 of one-cycle, else none
    loss: str | None = None  # another one than the recipe's, as for a finish

    @model_validator(mode="after")
    def _fits(self) -> "Phase":
        if self.head_epochs > self.epochs:
            raise ValueError(f"head_epochs = {self.head_epochs} is more than epochs = {self.epochs}")
        if self.accumulate > self.batch_size // 2:
            raise ValueError(f"accumulate = {self.accumulate} leaves parts of less than 2 images")
        if self.cycles > 1 and self.schedule != "cosine-restarts":
            raise ValueError('cycles goes with schedule = "cosine-restarts"')
        return self


class External(Strict):
    """Labelled images from elsewhere, for training only. Paths are looked for in the working directory,
    beside the competition's data, and where a kernel mounts it. Unset fields are the competition's."""

    csv: str
    images: Templates  # templates as those of the competition: folder/{id}.jpg
    id: str | None = None
    column: str | None = None
    separator: str | None = Field(None, min_length=1)


class Pseudo(Strict):
    """Test images for training only, labelled by a finished run with the same folds. A fold's network learns
    the labels that this fold's own network gives, by thresholds fitted to the other folds: neither has seen
    the rows that it will be scored on."""

    run: str = Field(pattern=NAME_PATTERN)  # the name of a recipe, decided already
    share: float = Field(1.0, gt=0, le=1)  # of the test images, those that it is surest about


def _one(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def _of_run(value: Any) -> Any:
    return {"run": value} if isinstance(value, str) else value


# Augmentation by name, each by what differs from nothing. "satellite": seen from above, small differences of
# place and light; "microscopy": turned any way, and stained more in one channel and less in another.
AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "dihedral": {"symmetry": "d4"},
    "satellite": {"symmetry": "d4", "zoom": 0.1, "shift": 0.06, "turn": 15.0, "light": 0.1},
    "microscopy": {"symmetry": "d4", "zoom": 0.15, "shift": 0.06, "turn": 45.0, "light": 0.1, "gain": 0.2},
}


class Augment(Strict):
    """What training changes about images, each with its own draw, evenly distributed: a named set, or a table
    of what differs from one. Written down as it was named."""

    extends: str = "satellite"  # one of AUGMENTATIONS
    symmetry: Literal["none", "flip_h", "flips", "d4"] = "none"  # one of these views, always drawn
    zoom: float = Field(0.0, ge=0, lt=1)  # share by which images become larger or smaller
    shift: float = Field(0.0, ge=0, lt=1)  # share of the side, each way; what is laid bare is mirrored
    turn: float = Field(0.0, ge=0, le=180)  # degrees, either way
    light: float = Field(0.0, ge=0, lt=1)  # of contrast and of brightness, share of their range, either way
    gain: float = Field(0.0, ge=0, lt=1)  # of each channel by itself, share of its values, either way
    crop: float = Field(1.0, gt=0, le=1)  # least share of the area of a random resized crop, always drawn
    p: float = Field(0.5, ge=0, le=1)  # share of images that are moved; that are lit; that have gains

    @model_validator(mode="before")
    @classmethod
    def _over_its_set(cls, value: Any) -> Any:
        value = {"extends": value} if isinstance(value, str) else value
        if not isinstance(value, dict):
            return value
        name = str(value.get("extends", cls.model_fields["extends"].default))
        if name not in AUGMENTATIONS:
            hint = _nearest(name, AUGMENTATIONS) or f"; there are {', '.join(AUGMENTATIONS)}"
            raise ValueError(f"unknown augmentation {name!r}{hint}")
        return {**AUGMENTATIONS[name], **value}

    @model_serializer
    def _by_name(self) -> str | dict[str, Any]:
        named = Augment(extends=self.extends)
        differs = {key: value for key, value in self if value != getattr(named, key)}
        return {"extends": self.extends, **differs} if differs else self.extends

    @property
    def moves(self) -> bool:
        return bool(self.zoom or self.shift or self.turn)

    @property
    def nothing(self) -> bool:
        """Whether it leaves all images as they are."""
        changes = self.moves or self.light or self.gain or self.crop < 1 or self.symmetry != "none"
        return not changes


class Space(Strict):
    """What `comp tune` tries for a key: values from low to high, or those of a list."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False  # whether each power of ten is tried as often
    choices: tuple[Any, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _a_list_is_one_too(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            if len(set(map(repr, value))) < max(2, len(value)):
                raise ValueError(f"two or more values, each once, are expected, found {list(value)}")
            if wrong := [item for item in value if not isinstance(item, bool | int | float | str)]:
                raise ValueError(f"a list of numbers or texts is expected, found {wrong[0]!r} in it")
            return {"choices": tuple(value)}
        if not isinstance(value, dict) or not {"low", "high"} <= set(value):
            raise ValueError(f"a list, or a table with low and high, is expected, found {value!r}")
        return value

    @model_validator(mode="after")
    def _is_a_range(self) -> "Space":
        if self.low is not None and self.high is not None:
            if not (self.low < self.high and math.isfinite(self.low) and math.isfinite(self.high)):
                raise ValueError(f"low = {self.low} is not below high = {self.high}")
            if self.log and self.low <= 0:
                raise ValueError(f"log goes with a low above 0, found low = {self.low}")
        return self

    @model_serializer
    def _as_written(self) -> Any:
        return list(self.choices) or {"low": self.low, "high": self.high, "log": self.log}


class Recipe(Strict):
    """One experiment. Only what differs from what it extends is written down, also of the competition: a
    table [competition] without a name changes the one of the recipe that is extended."""

    name: str = Field(pattern=NAME_PATTERN)
    competition: Competition
    seed: int = Field(42, ge=0)
    n_folds: int = Field(5, ge=2)
    backbone: str = "resnet34"  # any timm model that takes the phases' sizes
    pretrained: bool = True
    weights: str | None = (
        None  # a safetensors file, or a folder of <backbone>.safetensors; None: $COMP_WEIGHTS, timm
    )
    drop_rate: float = Field(0.0, ge=0, lt=1)
    channels: Texts = Field((), validate_default=True)  # some of images.channels, in this order; empty: all
    # by whose mean and deviation: imagenet: what the backbone was trained with; dataset: the fold's training
    # images; image: each image's own; auto: imagenet for RGB files, dataset where channels are joined
    normalize: Literal["auto", "imagenet", "dataset", "image"] = "auto"
    phases: tuple[Phase, ...] = Field(
        (
            Phase(size=128, epochs=4, body_lr=3e-4, head_epochs=1),
            Phase(size=224, epochs=6, lr=5e-4, body_lr=2e-4),
        ),
        min_length=1,
    )
    filter: Literal["none", "dehaze"] = "none"  # what is done once to each image: comp/filters.py
    augment: Augment = Augment()  # a set's name ("none", "dihedral", "satellite", "microscopy") or a table
    augment_on: Literal["device", "cpu"] = "device"  # whole batches on the device, or albumentations
    mixup: float = Field(0.0, ge=0)  # the alpha of its beta distribution; 0: none
    cutmix: float = Field(0.0, ge=0)
    # bce, focal, asymmetric, fbeta, lovasz, groups, or a sum such as "bce+fbeta"; of one label an image,
    # groups by default: the softmax cross-entropy
    loss: str = Field(default_factory=lambda data: "groups" if data["competition"].labels.single else "bce")
    class_weights: Literal["none", "inverse", "effective"] = "none"  # rare labels count more in the loss
    oversample: float = Field(0.0, ge=0, le=1)  # labels rarer than this share of images are shown more often
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    external: Annotated[tuple[External, ...], BeforeValidator(_one)] = ()
    pseudo: Annotated[Pseudo | None, BeforeValidator(_of_run)] = None
    full: bool = False  # one more network, numbered after the folds', that holds nothing out
    members: tuple["Recipe", ...] = ()  # recipes that extend this one, trained one by one and blended
    layer_decay: float = Field(1.0, gt=0, le=1)  # a layer's rate is that of the one above it times this
    weight_decay: float = Field(0.02, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.998, ge=0, lt=1)  # 0: no average of the weights
    swa_epochs: int = Field(0, ge=0)  # the model is the mean after each of so many last epochs; 0: it is not
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = False  # torch.compile: minutes at the start, faster steps after
    gradient_checkpointing: bool = False  # less memory for large inputs, steps a third slower
    # test-time views by name; d4: the 8 of the square, crops: the whole and 5 crops
    views: Texts = Field(("d4",), min_length=1)
    predict_batch_size: int = Field(256, ge=1)
    rule: str = "auto"  # how probabilities become labels: auto, or one of comp.decisions.decide.RULES
    n_trials: int = Field(30, ge=1)  # Optuna trials a search in `decide`
    track: Annotated[  # where log.jsonl's epochs are shown as well
        tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...], BeforeValidator(_listed)
    ] = ()
    tune: dict[str, Space] = {}  # by key, such as "phases.0.lr": what `comp tune` tries

    @model_validator(mode="after")
    def _filters_fit_the_channels(self) -> "Recipe":
        if self.filter != "none" and self.channels:
            raise ValueError(
                f"filter = {self.filter!r} is for RGB images; those of {self.competition.name} have the "
                f"channels {', '.join(self.competition.images.channels)}"
            )
        return self

    @model_validator(mode="after")
    def _another_run_labels(self) -> "Recipe":
        if self.pseudo and self.pseudo.run == self.name:
            raise ValueError("pseudo names the recipe itself; give this one another name than its teacher's")
        return self

    @model_validator(mode="after")
    def _external_images_are_as_the_competitions(self) -> "Recipe":
        for external in self.external:
            _check_templates(external.images, self.competition.images.channels)
        return self

    @model_validator(mode="after")
    def _swa_fits(self) -> "Recipe":
        if self.swa_epochs > (n := self.phases[-1].epochs):
            raise ValueError(
                f"swa_epochs = {self.swa_epochs} is more than the last phase's epochs = {n}; "
                "weights of another phase don't belong in the mean"
            )
        return self

    @field_validator("channels")
    @classmethod
    def _those_of_the_competition(cls, channels: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "competition" not in info.data:  # it is an error of its own
            return channels
        known = info.data["competition"].images.channels
        if channels and not known:
            raise ValueError("its images are RGB files, of which all channels are used; leave it out")
        if unknown := [channel for channel in channels if channel not in known]:
            raise ValueError(f"the images have no {unknown[0]!r}; they have {', '.join(known)}")
        if len(set(channels)) < len(channels):
            raise ValueError(f"a channel is named twice in {', '.join(channels)}")
        return channels or known

    @model_validator(mode="after")
    def _backbones_know_three_channels(self) -> "Recipe":
        if self.normalize == "imagenet" and self.n_channels != 3:
            raise ValueError(
                f'normalize = "imagenet" knows 3 channels, not {self.n_channels}; use "dataset" or "image"'
            )
        return self

    @property
    def n_channels(self) -> int:
        return len(self.channels) or 3

    @property
    def n_networks(self) -> int:
        return self.n_folds + self.full

    @property
    def finest(self) -> int:
        """The largest of the phases' sizes, in pixels."""
        return max(phase.size for phase in self.phases)


# --- reading ------------------------------------------------------------------------------------------------


def shipped(kind: Literal["recipes", "competitions"]) -> dict[str, Path]:
    return {path.stem: path for path in sorted((PACKAGE_DIR / kind).glob("*.toml"))}


def load_competition(name: str, relative_to: Path = Path()) -> Competition:
    """A competition by name, or by the path of its TOML file."""
    path = _find(name, "competitions", relative_to)
    return _validated(Competition, {"name": path.stem, **_read_toml(path)}, path)


def load_recipe(name: str, overrides: typing.Sequence[str] = ()) -> Recipe:
    """A recipe by name or path, with `key.path=value` overrides applied. The path of a competition's TOML
    file means: that competition with the default recipe.

    Raises CompError for an unknown name, key or value.
    """
    path = _find(name, "recipes", Path())
    content = _read_extended(path, seen=())
    if "competition" not in content:
        raise CompError(
            f"{path}: no competition; write competition = NAME or FILE.toml, or extend another recipe"
        )
    content = {"name": path.stem, **content}
    for override in overrides:
        _apply(override, content)
    if isinstance(content["competition"], str):
        content["competition"] = load_competition(content["competition"]).model_dump(mode="json")
    if content.get("members"):
        content["members"] = _members(content, path)
    return _validated(Recipe, content, f"{path} with --set" if overrides else path)


def _members(content: dict[str, Any], path: Path) -> list[dict[str, Any]]:
    """The content of each member's recipe: the whole one's, with what the member says laid over it. Its name
    is the whole one's and its own, or its backbone."""
    listed = content["members"]
    if not isinstance(listed, list) or len(listed) < 2 or not all(isinstance(m, dict) for m in listed):
        raise CompError(f"{path}: members is {listed!r}; two tables [[members]] or more are expected")
    base = {key: value for key, value in content.items() if key != "members"}
    answer = []
    for number, member in enumerate(listed):
        for key in ("competition", "n_folds", "seed", "full", "members"):
            if member.get(key, base.get(key)) != base.get(key):
                raise CompError(f"{path}: members.{number}.{key} differs; members have one {key}")
        both = _merged(base, member)
        own = member.get("name") or both.get("backbone", Recipe.model_fields["backbone"].default)
        both["name"] = own if own.startswith(f"{base['name']}-") else f"{base['name']}-{own}"
        answer.append(both)
    names = [member["name"] for member in answer]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise CompError(f"{path}: two members are {twice}; give each a name of its own")
    return answer


def with_values(recipe: Recipe, values: typing.Mapping[str, Any]) -> Recipe:
    """The recipe with dotted keys set, as --set does it. Raises CompError for an unknown key or value."""
    content = recipe.model_dump(mode="json")
    for key, value in values.items():
        _apply(f"{key}={_toml(value)}", content, "[tune]")
    return _validated(Recipe, content, "[tune]")


def toml_text(recipe: Recipe) -> str:
    """A recipe that extends nothing, with its competition inside, as `load_recipe` reads it back."""
    content = recipe.model_dump(mode="json", exclude_none=True)
    return "".join(f"{key} = {_toml(value)}\n" for key, value in content.items())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        keys = {key: key if re.fullmatch(r"[\w-]+", key, re.ASCII) else _toml(key) for key in value}
        return "{ " + ", ".join(f"{keys[key]} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        rows = [_toml(item) for item in value]
        tables = any(isinstance(item, dict) for item in value)
        return "[\n" + "".join(f"  {row},\n" for row in rows) + "]" if tables else f"[{', '.join(rows)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _find(name: str, kind: Literal["recipes", "competitions"], relative_to: Path) -> Path:
    if name.endswith(".toml"):
        path = relative_to / name
        if not path.is_file():
            raise CompError(f"{path}: no such file")
        return path
    names = shipped(kind)
    if name not in names:
        hint = _nearest(name, names)
        raise CompError(
            f"no {kind[:-1]} {name!r}{hint}; there are {', '.join(names)}, or give a TOML file by path"
        )
    return names[name]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CompError(f"{path} is not TOML: {error}") from error


def _read_extended(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    """A recipe's keys over those of what it extends; tables are merged, lists replaced."""
    if path.resolve() in seen:
        raise CompError(f"{path} extends itself")
    content = _read_toml(path)
    if "labels" in content and "images" in content:  # a competition: the default recipe, on it
        return {"name": content.get("name", path.stem), "competition": str(path)}
    if isinstance(content.get("competition"), str) and content["competition"].endswith(".toml"):
        content["competition"] = str(path.parent / content["competition"])
    if isinstance(content.get("weights"), str) and not Path(content["weights"]).is_absolute():
        content["weights"] = str(path.parent / content["weights"])
    parent = content.pop("extends", None)
    if parent is None:
        return content
    if not isinstance(parent, str):
        raise CompError(f"{path}: extends is {parent!r}; one recipe's name or file is expected")
    base = _read_extended(_find(parent, "recipes", path.parent), (*seen, path.resolve()))
    base.pop("name", None)
    own = content.get("competition")
    if isinstance(own, dict) and "name" not in own and isinstance(base.get("competition"), str):
        base["competition"] = _written(base["competition"])  # what differs from it
    return _merged(base, content)


def _written(competition: str) -> dict[str, Any]:
    """What a competition's file says, without what follows from it: that may change with what it says."""
    return load_competition(competition).model_dump(mode="json", exclude_unset=True)


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in over.items():
        under = _as_table(base.get(key)) if key == "augment" else base.get(key)
        both[key] = _merged(under, value) if isinstance(value, dict) and isinstance(under, dict) else value
    return both


def _as_table(augment: Any) -> Any:
    """An augmentation that is a name, as the table that more keys can join."""
    return {"extends": augment} if isinstance(augment, str) else augment


def _apply(override: str, content: dict[str, Any], option: str = "--set") -> None:
    """Set `a.0.b=value` in `content`; the value is TOML, or else text. `option` is where it stands."""
    dotted, equals, text = override.partition("=")
    if not equals:
        raise CompError(f"{option} {override}: expected KEY=VALUE, for example phases.0.epochs=2")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = dotted.strip().split(".")
    place: Any = content
    if parents and parents[0] == "competition" and isinstance(content["competition"], str):
        content["competition"] = _written(content["competition"])
    if parents and parents[0] == "augment":
        content["augment"] = _as_table(content.get("augment", {}))
    if parents and parents[0] == "phases" and "phases" not in content:
        content["phases"] = [phase.model_dump() for phase in Recipe.model_fields["phases"].default]
    for key in parents:
        if isinstance(place, list | tuple):
            if not key.isdigit() or int(key) >= len(place):
                raise CompError(
                    f"{option} {override}: there is no {dotted!r} (a list of {len(place)}, counted from 0)"
                )
            place = place[int(key)]
        else:
            place = place.setdefault(key, {})
        if not isinstance(place, dict | list | tuple):
            raise CompError(f"{option} {override}: {key!r} is a value and holds no keys")
    if isinstance(place, list):
        if not last.isdigit() or int(last) >= len(place):
            raise CompError(
                f"{option} {override}: there is no {dotted!r} (a list of {len(place)}, counted from 0)"
            )
        place[int(last)] = value
    else:
        place[last] = value


def _validated(model: type[BaseModel], content: dict[str, Any], path: Path | str) -> Any:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = _keys_at(model, first["loc"][:-1])
            hint = _nearest(str(first["loc"][-1]), known) or f"; known are {', '.join(known)}"
            raise CompError(f"{path}: unknown key {where!r}{hint}") from error
        raise CompError(f"{path}: {problem(error)}") from error


def problem(error: ValidationError) -> str:
    """The first thing that a value lacks, and where."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        return f"{where!r} is missing"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    found = (
        ""
        if first["type"] in ("value_error", "json_invalid")
        else f", found {shortened(repr(first['input']))}"
    )
    return f"{f'{where!r}: ' if where else ''}{message}{found}"


def shortened(text: str) -> str:
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def _keys_at(model: type[BaseModel], location: tuple[str | int, ...]) -> list[str]:
    """The keys that the table at `location` may have."""
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    return next((found for arg in typing.get_args(annotation) if (found := _model_in(arg))), None)


def _nearest(name: str, known: typing.Iterable[str]) -> str:
    match = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f"; did you mean {match[0]!r}?" if match else ""
