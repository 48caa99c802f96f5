"""Schemas of the files that commands read back, with the fields that are read; other fields are ignored.
`comp.artifacts.files.parse_json` checks a file against one of these."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from comp.config.competition import Metric
from comp.config.schema import check_fields

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Stored(BaseModel):
    """A part of a file: strict types, finite numbers."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


# --- the data -----------------------------------------------------------------------------------------------


class Place(Stored):
    """A folder of images, in a manifest."""

    folder: str
    pattern: Annotated[str, AfterValidator(check_fields)]
    files: Count
    bytes: Count
    digest: str


class Files(Stored):
    """The tables of a competition, in a manifest."""

    labels: str
    sample: str
    solution: str | None = None


class Places(Stored):
    """The folders of images, in a manifest."""

    train: list[Place]
    test: list[Place]


class Manifest(Stored):
    """manifest.json."""

    files: Files
    images: Places
    tables: dict[str, str] = {}


class Source(Stored):
    """The stamp of a manifest."""

    source: str | None = Field(None, alias="from")


class Note(Stored):
    """The note about a downloaded file: comp.kaggle.download.Fetched."""

    file: str = Field(min_length=1)
    name: str
    source: str
    bytes: Count
    sha256: str
    mtime_ns: int


class DuplicatesStamp(Stored):
    """The stamp of folds/<competition>-duplicates.csv."""

    sets: dict[str, str]


# --- a run --------------------------------------------------------------------------------------------------


class TrainedRecipe(Stored):
    """The recipe in started.json."""

    n_folds: int = Field(ge=2)


class TrainingStart(Stored):
    """started.json."""

    recipe: TrainedRecipe
    stamp: dict[str, Any]
    begun: int | None = None


class Epoch(Stored):
    """A row of log.jsonl."""

    epoch: int = Field(ge=1)
    size: int = Field(ge=1)
    lr: float
    loss: float
    valid_loss: float | None
    mAP: float | None
    fbeta: float | None
    accuracy: float | None = None
    images_per_second: Positive
    seconds: float = Field(ge=0)
    memory: Count


class PredictionStamp(Stored):
    """The stamp of a fold's predictions."""

    views: list[str] = []
    train: str = ""
    ids: str


class BlendStamp(Stored):
    """The stamp of a run's predictions: blended from its folds, or with `how` from other runs."""

    members: dict[str, str] = Field(min_length=1)  # digest of the stamps, by "fold 0" or run name
    folds: list[Count] | None = None
    how: str | None = None

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        if self.how is None and list(self.members) != [f"fold {fold}" for fold in self.folds or ()]:
            raise ValueError(f"the members are {', '.join(self.members)}, and the folds {self.folds}")
        return self


class Tensor(Stored):
    """A tensor in a safetensors header."""

    shape: list[Count]


class SafetensorsHeader(Stored):
    """The header of a safetensors file."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Tensor] = Field(init=False)

    metadata: dict[str, str] = Field({}, alias="__metadata__")


class Spec(Stored):
    """comp.models.network.ModelSpec. Unknown fields are refused, since they could change the network."""

    model_config = ConfigDict(extra="forbid")

    backbone: str
    classes: list[str] = Field(min_length=1)
    n_channels: int = Field(ge=1)
    size: int = Field(ge=1)
    mean: list[float]
    std: list[Positive]
    drop_rate: float = Field(0.0, ge=0, lt=1)
    groups: list[list[Count]] = []

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if not len(self.mean) == len(self.std) or len(self.mean) not in (0, self.n_channels):
            raise ValueError(
                f"{self.n_channels} channels have {len(self.mean)} means and {len(self.std)} std"
            )
        if any(c >= len(self.classes) for group in self.groups for c in group):
            raise ValueError(f"groups have a number beyond the {len(self.classes)} classes")
        return self


class Rule(Stored):
    """comp.decisions.rules.FittedRule."""

    thresholds: dict[str, Share] = Field(min_length=1)
    expected: bool = False
    slopes: dict[str, float] | None = None
    offsets: dict[str, float] | None = None
    temperature: Positive = 1.0
    groups: list[Annotated[list[str], Field(min_length=1)]] = []
    min_labels: Count = 0
    max_labels: Count | None = None

    @model_validator(mode="after")
    def _check_labels(self) -> Self:
        for name in ("slopes", "offsets"):
            values = getattr(self, name)
            if values is not None and values.keys() != self.thresholds.keys():
                raise ValueError(f"{name} have other labels than thresholds")
        grouped = [label for group in self.groups for label in group]
        if len(set(grouped)) < len(grouped) or not set(grouped) <= self.thresholds.keys():
            raise ValueError("groups have a label twice, or one without a threshold")
        return self


class PartRule(Rule):
    """A fitted rule with its name."""

    rule: str


class MetricSettings(Metric):
    """The metric in a decision's stamp."""

    model_config = ConfigDict(strict=True)


class DecisionStamp(Stored):
    """The stamp of decision.json."""

    oof: str
    labels: str
    folds: str
    metric: MetricSettings


class Scores(Stored):
    """The scores in decision.json."""

    default: float
    in_sample: float
    cross_fitted: float


class Decision(PartRule):
    """decision.json."""

    metric: str
    by_fold: dict[str, PartRule] = {}
    by_fifth: dict[str, PartRule] = {}
    thresholds_by_fold: dict[str, Annotated[list[Share], Field(min_length=1)]] | None = None
    scores: Scores
    stamp: DecisionStamp

    @model_validator(mode="after")
    def _check_parts(self) -> Self:
        labels = self.thresholds.keys()
        for name in ("by_fold", "by_fifth"):
            for part, rule in getattr(self, name).items():
                if rule.thresholds.keys() != labels:
                    raise ValueError(f"{name}.{part} has other labels than thresholds")
        if self.thresholds_by_fold is not None and self.thresholds_by_fold.keys() != labels:
            raise ValueError("thresholds_by_fold have other labels than thresholds")
        return self


class Finished(Stored):
    """finished.json."""

    options: dict[str, Any]
    scores: dict[str, float | None]
    best: dict[str, float]
    worst: dict[str, float]
    seconds: float
    files: dict[str, list[int] | None]


class RangeTest(Stored):
    """find-lr-<phase>.json."""

    fold: Count
    phase: Count
    suggested: Positive
    lowest: Positive
    rates: list[Positive] = Field(min_length=1)
    smooth: list[float]

    @model_validator(mode="after")
    def _check_losses(self) -> Self:
        if len(self.smooth) != len(self.rates):
            raise ValueError(f"smooth has {len(self.smooth)} losses for {len(self.rates)} rates")
        return self


class KeptTrial(Stored):
    """What a study keeps of a trial of `comp tune`."""

    folder: str | None = None
    at: str | None = None
    step: Count = 0
    losses: Count = 0
    steps: list[Count]
    scores: list[float]


class TrickScores(Stored):
    """The scores of one training of `comp bench tricks`."""

    score: float
    mAP: float
    log_loss: float


# --- other services ----------------------------------------------------------------------------------------


class SubmissionScores(Stored):
    """The scores in submissions/<name>.json."""

    cross_fitted: float
    public: float | None = None
    private: float | None = None


class Submitted(Stored):
    """submissions/<name>.json."""

    scores: SubmissionScores
    time: str
    sha256: str | None = None


class TrackedRows(Stored):
    """tracked-<tracker>.json."""

    run: str
    rows: Count


class Pushed(Stored):
    """kernel-<kind>-pushed.json. Other keys are names of datasets, with the hashes of their files."""

    kernel: str | None = Field(None, pattern=r"^[\w-]+/[\w-]+$")
    version: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _check_version(self) -> Self:
        if (self.kernel is None) != (self.version is None):
            raise ValueError("kernel and version need each other")
        return self


class User(Stored):
    """kaggle.json."""

    username: str | None = None
