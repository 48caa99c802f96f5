"""The settings of an experiment: a recipe with its phases. One TOML file per recipe."""

import math
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from comp.config.answers import check_keys_of_answers, default_loss
from comp.config.augment import Augment
from comp.config.competition import Competition, check_templates
from comp.config.schema import (
    NAME_PATTERN,
    Strict,
    Templates,
    Texts,
    as_list,
    current_rule,
    run_as_table,
    table_as_list,
)
from comp.user_code import one_of


class Phase(Strict):
    """A part of training: epochs at one image size, with a learning-rate schedule of their own."""

    size: int = Field(ge=16)
    """Image size in pixels, square."""
    epochs: int = Field(ge=1)
    """Number of epochs."""
    lr: float = Field(1e-3, gt=0)
    """Highest learning rate of the head."""
    body_lr: float | None = Field(None, gt=0)
    """Highest learning rate of all other layers; unset: lr."""
    head_epochs: int = Field(0, ge=0)
    """Epochs at the start that train the head alone."""
    batch_size: int = Field(64, ge=2)
    """Images per step, over all GPUs."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches per step; more of them need less memory."""
    schedule: Annotated[str, AfterValidator(one_of("one-cycle", "cosine-restarts", "constant"))] = "one-cycle"
    """How the learning rates move: one-cycle, cosine-restarts, constant, or your own as FILE.py:NAME."""
    cycles: int = Field(1, ge=1)
    """With cosine-restarts: number of cycles."""
    warm_up: float | None = Field(None, gt=0, lt=1)
    """Share of the steps; unset: 1/4 with one-cycle, else 0."""
    loss: str | None = None
    """Loss of this phase; unset: the recipe's."""

    @model_validator(mode="after")
    def _fits(self) -> "Phase":
        if self.head_epochs > self.epochs:
            raise ValueError(f"head_epochs = {self.head_epochs} is more than epochs = {self.epochs}")
        if self.accumulate > self.batch_size // 2:
            raise ValueError(f"accumulate = {self.accumulate} leaves micro-batches of less than 2 images")
        if self.cycles > 1 and self.schedule != "cosine-restarts":
            raise ValueError('cycles needs schedule = "cosine-restarts"')
        return self


class External(Strict):
    """External data: more labelled images, for training only. Paths are searched for in the working
    directory, beside the competition's data, and where a Kaggle kernel mounts it."""

    csv: str
    """Path of the table of labels."""
    images: Templates
    """Templates of the images, such as folder/{id}.jpg."""
    id: str | None = None
    """The column of image ids; unset: labels.id."""
    column: str | None = None
    """The column of labels; unset: labels.column."""
    separator: str | None = Field(None, min_length=1)
    """What separates labels; unset: labels.separator."""


class Pseudo(Strict):
    """Pseudo-labels: test images for training only, labelled by a finished run with the same folds. A fold's
    network learns the labels that the run's network of this fold predicts, with thresholds fitted to the
    other folds. Neither network has seen the rows that the new one is scored on."""

    run: str = Field(pattern=NAME_PATTERN)
    """Name of a run that `comp decide` has finished."""
    share: float = Field(1.0, gt=0, le=1)
    """Share of the test images to use, the most confident first."""


class Space(Strict):
    """The values that `comp tune` tries for a key: a range from low to high, or a list."""

    low: int | float | None = None
    """Lowest value."""
    high: int | float | None = None
    """Highest value."""
    log: bool = False
    """Sample on a log scale."""
    choices: tuple[Any, ...] = ()
    """The values, if written as a list."""

    @model_validator(mode="before")
    @classmethod
    def _read_list(cls, value: Any) -> Any:
        if isinstance(value, list | tuple):
            if len(set(map(repr, value))) < max(2, len(value)):
                raise ValueError(f"two or more different values are expected, found {list(value)}")
            if wrong := [item for item in value if not isinstance(item, bool | int | float | str)]:
                raise ValueError(f"numbers, texts, true or false are expected, found {wrong[0]!r}")
            return {"choices": tuple(value)}
        if not isinstance(value, dict) or not {"low", "high"} <= set(value):
            raise ValueError(f"a list, or a table with low and high, is expected, found {value!r}")
        return value

    @model_validator(mode="after")
    def _check_range(self) -> "Space":
        if self.low is not None and self.high is not None:
            if not (self.low < self.high and math.isfinite(self.low) and math.isfinite(self.high)):
                raise ValueError(f"low = {self.low} is not below high = {self.high}")
            if self.log and self.low <= 0:
                raise ValueError(f"log needs low above 0, found low = {self.low}")
        return self

    @model_serializer
    def _as_written(self) -> Any:
        return list(self.choices) or {"low": self.low, "high": self.high, "log": self.log}


def check_keys_for_rgb(recipe: "Recipe") -> None:
    """Raise ValueError where a key is only for RGB images, and the recipe's have channels of their own."""
    for key, value in (("filter", "dehaze"), ("decode", "gpu")):
        if getattr(recipe, key) == value and recipe.channels:
            raise ValueError(
                f"{key} = {value!r} needs RGB images; {recipe.competition.name} has the channels "
                f"{', '.join(recipe.competition.images.channel_names)}"
            )


class Recipe(Strict):
    """One experiment. A recipe that extends another holds only what differs. A table [competition] without a
    name changes keys of the extended recipe's competition."""

    name: str = Field(pattern=NAME_PATTERN)
    """Names runs/<name>/; default: the file's name."""
    competition: Competition
    """Name, path of a TOML file, or table."""
    seed: int = Field(42, ge=0)
    """Seed of folds, weights, batches and augmentation."""
    n_folds: int = Field(5, ge=2)
    """Folds, and networks."""
    backbone: str = "resnet34"
    """A timm model that supports the phases' sizes, or your own as FILE.py:NAME."""
    pretrained: bool = True
    """Start from pretrained weights."""
    weights: str | None = None
    """A safetensors file, or a folder with <backbone>.safetensors; unset: $COMP_WEIGHTS, or timm's
    download."""
    drop_rate: float = Field(0.0, ge=0, lt=1)
    """Dropout before the head."""
    channels: Texts = Field((), validate_default=True)
    """Which of images.channels, or of images.bands as texts, in order; empty: all."""
    normalize: Literal["auto", "imagenet", "dataset", "image"] = "auto"
    """Where mean and std come from. imagenet: the backbone's; dataset: the fold's training images; image:
    each image itself; auto: imagenet for RGB files, else dataset."""
    phases: tuple[Phase, ...] = Field(
        (
            Phase(size=128, epochs=4, body_lr=3e-4, head_epochs=1),
            Phase(size=224, epochs=6, lr=5e-4, body_lr=2e-4),
        ),
        min_length=1,
    )
    """The phases of training, in order."""
    cache: Literal["each", "largest"] = "each"
    """The resized images on disk: each size; or only the largest, from which the device makes the others, so
    less space is used and more is read."""
    filter: Annotated[str, AfterValidator(one_of("none", "dehaze"))] = "none"
    """Applied once to each image: none, dehaze, or your own as FILE.py:NAME."""
    decode: Literal["cpu", "gpu"] = "cpu"
    """What decodes images, once: cpu; or gpu, where nvJPEG decodes JPEGs of at least twice the largest size.
    Its pixels differ by rounding, so its models are others, and new images need such a GPU too."""
    augment: Augment = Augment()
    """A named set (none, dihedral, satellite, microscopy), a table, or albumentations of your own:
    FILE.py:NAME or a YAML or JSON file."""
    augment_on: Literal["device", "cpu"] = Field("device", validate_default=True)
    """Batches on the device, or albumentations; your own pipelines are always on the CPU."""
    mixup: float = Field(0.0, ge=0)
    """Alpha of mixup's beta distribution; 0: off."""
    cutmix: float = Field(0.0, ge=0)
    """Alpha of cutmix's beta distribution; 0: off."""
    loss: str = Field(default_factory=lambda data: default_loss(data["competition"]))
    """One of bce, focal, asymmetric, fbeta, lovasz, groups, emd (ordered classes), arcface, mse, mae, huber
    and FILE.py:NAME, or a sum such as "bce+fbeta". Default: bce; with labels.single groups (softmax
    cross-entropy); of grades emd; of numbers mse."""
    margin: float = Field(0.3, ge=0, lt=1.5)
    """With arcface: the angle in radians that true classes are moved away by."""
    scale: float = Field(30.0, gt=0)
    """With arcface: what cosines are multiplied by."""
    y_range: tuple[float, float] | None = None
    """Of numbers: the lowest and the highest that a network answers; unset: no limit."""
    class_weights: Literal["none", "inverse", "effective"] = "none"
    """Weight rare labels more in the loss."""
    oversample: float = Field(0.0, ge=0, le=1)
    """Show labels rarer than this share of images more often."""
    balanced: bool = False
    """Show each class equally often, where an image has exactly one label."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Move targets from 0 and 1 towards each other."""
    external: Annotated[tuple[External, ...], BeforeValidator(table_as_list)] = ()
    """More labelled images, for training only."""
    pseudo: Annotated[Pseudo | None, BeforeValidator(run_as_table)] = None
    """Pseudo-labels: the name of the run that gives them, or a table."""
    full: bool = False
    """Train one more network, on all folds; its number follows the last fold's."""
    members: tuple["Recipe", ...] = ()
    """Recipes that extend this one: trained in turn, then blended."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Each layer's rate, as a share of the next one's; 1: equal."""
    weight_decay: float = Field(0.02, ge=0)
    """Weight decay of AdamW."""
    clip_norm: float = Field(1.0, gt=0)
    """Largest norm of the gradients."""
    ema_decay: float = Field(0.998, ge=0, lt=1)
    """EMA: decay of the averaged weights per step; 0: off."""
    swa_epochs: int = Field(0, ge=0)
    """SWA: average the weights of the last n epochs; 0: off."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the computation (AMP); auto: bf16, or fp16 where the GPU has no bf16. fp32 is TF32 on new
    GPUs."""
    deterministic: bool = False
    """On a GPU the same bits each time, except where torch warns; slower. A CPU does so anyway."""
    compile: Literal[False, True, "reduce-overhead"] = False
    """Use torch.compile: minutes at the start, faster steps afterwards. reduce-overhead: as CUDA graphs too,
    where launches take longer than the arithmetic (small images on a fast GPU)."""
    gradient_checkpointing: bool = False
    """Less memory for large inputs; steps are a third slower."""
    views: Texts = Field(("d4",), min_length=1)
    """Test-time views (TTA) by name. d4: the 8 symmetries of the square; crops: the whole image and 5
    crops; FILE.py:NAME: your own."""
    predict_batch_size: int = Field(256, ge=1)
    """Images per batch of prediction."""
    rule: Annotated[str, AfterValidator(current_rule)] = "auto"
    """How probabilities become labels: auto, or a rule that `comp decide --help` names."""
    n_trials: int = Field(30, ge=1)
    """Optuna trials per search of `comp decide`."""
    track: Annotated[
        tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...], BeforeValidator(as_list)
    ] = ()
    """Experiment trackers that get the epochs of log.jsonl."""
    tune: dict[str, Space] = {}
    """What `comp tune` tries, by key, such as "phases.0.lr"."""
    code: dict[str, str] = {}
    """The texts of the files that other keys name as FILE.py:NAME. Never write it: comp fills it in."""

    @model_validator(mode="after")
    def _check_keys(self) -> "Recipe":
        check_keys_for_rgb(self)
        check_keys_of_answers(self)
        return self

    @field_validator("augment_on")
    @classmethod
    def _own_pipeline_on_cpu(cls, place: str, info: ValidationInfo) -> str:
        augment = info.data.get("augment")
        return "cpu" if augment and augment.own else place

    @model_validator(mode="after")
    def _check_pseudo(self) -> "Recipe":
        if self.pseudo and self.pseudo.run == self.name:
            raise ValueError("pseudo names the recipe itself; give this recipe another name")
        return self

    @model_validator(mode="after")
    def _check_external(self) -> "Recipe":
        for external in self.external:
            check_templates(external.images, self.competition.images.channels)
        return self

    @model_validator(mode="after")
    def _check_swa(self) -> "Recipe":
        if self.swa_epochs > (n := self.phases[-1].epochs):
            raise ValueError(
                f"swa_epochs = {self.swa_epochs} is more than the last phase's epochs = {n}; "
                "SWA averages weights of one phase"
            )
        return self

    @field_validator("channels")
    @classmethod
    def _check_channels(cls, channels: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "competition" not in info.data:  # reported as an error of its own
            return channels
        known = info.data["competition"].images.channel_names
        if channels and not known:
            raise ValueError("the images are RGB files, and all their channels are used; remove this key")
        if unknown := [channel for channel in channels if channel not in known]:
            raise ValueError(f"the images have no channel {unknown[0]!r}; they have {', '.join(known)}")
        if len(set(channels)) < len(channels):
            raise ValueError(f"a channel occurs twice in {', '.join(channels)}")
        return channels or known

    @model_validator(mode="after")
    def _check_normalize(self) -> "Recipe":
        if self.normalize == "imagenet" and self.n_channels != 3:
            raise ValueError(
                f'normalize = "imagenet" needs 3 channels, not {self.n_channels}; use "dataset" or "image"'
            )
        return self

    @property
    def n_channels(self) -> int:
        """Channels of the networks' input."""
        return len(self.channels) or 3

    @property
    def bands(self) -> tuple[int, ...]:
        """The bands of each file that are the channels, counted from 1; empty: files have no other bands."""
        return tuple(map(int, self.channels)) if self.competition.images.bands else ()

    @property
    def n_networks(self) -> int:
        """Networks to train: one per fold, and with `full` one more."""
        return self.n_folds + self.full

    @property
    def cached_sizes(self) -> dict[int, int]:
        """By phase size the size of the cached images that it reads, in pixels."""
        sizes = sorted({phase.size for phase in self.phases})
        return {size: self.max_size if self.cache == "largest" else size for size in sizes}

    @property
    def max_size(self) -> int:
        """The largest of the phases' sizes, in pixels."""
        return max(phase.size for phase in self.phases)
