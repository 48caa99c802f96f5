"""What an experiment does: a recipe with its phases. One TOML file each."""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from comp.config.augment import Augment
from comp.config.competition import Competition, _check_templates
from comp.config.schema import NAME_PATTERN, Strict, Templates, Texts, _listed, _of_run, _one


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
