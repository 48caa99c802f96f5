"""Schemas of the files that commands read back, with the fields that are read; other fields are ignored.
`comp.artifacts.files.parse_json` checks a file against one of these."""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

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
    only: str | None = None
    table: str | None = None


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
    begun: Annotated[int, Field(ge=0, lt=1 << 62)] | None = None  # nanoseconds since 1970
    comp: str | None = None  # its version
    commit: str | None = None
    processor: str | None = None
    processors: Count | None = None  # GPUs or, of a CPU, threads


class WorstImage(Stored):
    """A held-out image with a high loss, in a row of log.jsonl."""

    id: str
    loss: float
    answers: list[tuple[str, float, float]]  # name, true, predicted


class Epoch(Stored):
    """A row of log.jsonl. The metric has its own key, comp.training.log_columns.LogColumns.metric."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None | dict[str, float | None]] = Field(init=False)

    epoch: int = Field(ge=1)
    size: int = Field(ge=1)
    lr: float
    loss: float
    valid_loss: float | None
    mAP: float | None = None
    fbeta: float | None = None
    accuracy: float | None = None
    images_per_second: Positive
    seconds: float = Field(ge=0)
    memory: Count
    worst: list[WorstImage] = []


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


class Finished(Stored):
    """finished.json."""

    options: dict[str, Any]
    scores: dict[str, float | None]
    by: str | None = None  # the score of best and worst
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


class FoldAuc(Stored):
    """A network in adversarial.json."""

    fold: Count
    train: Count
    test: Count
    auc: Share


class AdversarialScores(Stored):
    """adversarial.json."""

    auc: Share
    low: Share
    high: Share
    effective: Positive
    folds: list[FoldAuc] = Field(min_length=1)


class BareStep(Stored):
    """bare-step.json, which `comp bench speed` writes."""

    backbone: str
    machine: str
    at_once: int = Field(ge=1)  # networks that share a device while a run is trained
    rates: list[tuple[int, int, Positive]]  # size, batch_size, images per second of one device


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

    cross_fitted: float | None = None
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
