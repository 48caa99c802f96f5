"""The metric of a competition, and the kind of answer that it scores."""

from typing import Any, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from comp.config.schema import Strict, did_you_mean
from comp.user_code import is_reference

Answer = Literal["labels", "grades", "probabilities", "ranking", "numbers"]
"""labels: 0/1 per class; grades: one of ordered classes; probabilities: of each class; ranking: the likeliest
classes in order; numbers: one or several per image, in the targets' unit."""

ANSWERS: dict[str, Answer] = {  # by metric
    "fbeta": "labels",
    "accuracy": "labels",
    "balanced_accuracy": "labels",
    "quadratic_kappa": "grades",
    "roc_auc": "probabilities",
    "average_precision": "probabilities",
    "log_loss": "probabilities",
    "probabilistic_fbeta": "probabilities",
    "map_at_k": "ranking",
    "top_k_error": "ranking",
    "rmse": "numbers",
    "mae": "numbers",
    "r2": "numbers",
    "within": "numbers",
}
SMALLER_IS_BETTER = ("log_loss", "top_k_error", "rmse", "mae")
NEEDS_ONE_LABEL = ("accuracy", "balanced_accuracy", "quadratic_kappa")
USES = {  # the metrics that read a key
    "beta": ("fbeta", "probabilistic_fbeta"),
    "average": ("fbeta", "roc_auc", "average_precision"),
    "zero_division": ("fbeta",),
    "weights": ("roc_auc", "average_precision", "log_loss"),
    "k": ("map_at_k", "top_k_error"),
    "tolerance": ("within",),
}


class Metric(Strict):
    """The score of the leaderboard. Its name says what an answer is: labels, a grade, probabilities, a
    ranking or numbers."""

    name: str = "fbeta"
    """fbeta (mean F-beta as in scikit-learn's `fbeta_score`), accuracy, balanced_accuracy, quadratic_kappa
    (ordered classes), roc_auc, average_precision, log_loss, probabilistic_fbeta, map_at_k, top_k_error, rmse,
    mae, r2, within, or your own as FILE.py:NAME."""
    beta: float = Field(2.0, gt=0)
    """With fbeta and probabilistic_fbeta: the weight of recall against precision."""
    average: Literal["samples", "macro", "micro"] = Field(
        default_factory=lambda data: "samples" if data.get("name") == "fbeta" else "macro"
    )
    """How fbeta (samples, macro, micro), roc_auc and average_precision (macro, micro) are averaged.
    Default: samples with fbeta, else macro."""
    zero_division: float = Field(0.0, ge=0, le=1)
    """With fbeta of samples: the score of an image with no true and no predicted label."""
    weights: dict[str, float] = {}
    """With roc_auc, average_precision and log_loss: labels that count more or less than 1, such as
    { any = 2 }."""
    k: int = Field(5, ge=1)
    """With map_at_k and top_k_error: how many labels an answer ranks."""
    tolerance: float = Field(1.0, ge=0)
    """With within: the largest difference that counts as right."""
    answer: Answer | None = Field(default=None, validate_default=True)
    """With a metric of your own, what it scores: labels, grades, probabilities, ranking or numbers."""
    greater_is_better: bool = Field(
        default_factory=lambda data: data.get("name") not in SMALLER_IS_BETTER,
    )
    """With a metric of your own: false if it is a loss. Default: true."""

    def __str__(self) -> str:
        """Return the metric as people write it."""
        weighted = "weighted " if self.weights else ""
        texts = {
            "fbeta": f"{self.average} F{self.beta:g}",
            "balanced_accuracy": "balanced accuracy",
            "quadratic_kappa": "quadratic kappa",
            "roc_auc": f"{weighted or ('micro ' if self.average == 'micro' else '')}ROC AUC",
            "average_precision": f"{weighted}{'micro AP' if self.average == 'micro' else 'mAP'}",
            "log_loss": f"{weighted}log loss",
            "probabilistic_fbeta": f"probabilistic F{self.beta:g}",
            "map_at_k": f"MAP@{self.k}",
            "top_k_error": f"top-{self.k} error",
            "rmse": "RMSE",
            "mae": "MAE",
            "r2": "R²",
            "within": f"share within {self.tolerance:g}",
        }
        return texts.get(self.name, self.name.rpartition(":")[2])

    @property
    def kind(self) -> Answer:
        """What an answer is."""
        return self.answer or ANSWERS[self.name]

    def count(self, n: int) -> str:
        """Return a number of columns of the answer as people say it, such as "5 grades"."""
        one, several = ("class", "classes") if self.noun == "classes" else (self.noun[:-1], self.noun)
        return f"{n:,} {one if n == 1 else several}"

    @property
    def noun(self) -> str:
        """What the answer's columns are called."""
        return self.kind if self.kind in ("labels", "grades", "numbers") else "classes"

    @property
    def stamp(self) -> dict[str, Any]:
        """Return the metric as stamps hold it."""
        if self.name == "accuracy":
            return {"beta": 1.0, "average": "samples"}
        if self.name == "fbeta":
            empty = {"empty": self.zero_division} if self.zero_division else {}
            return {"beta": self.beta, "average": self.average, **empty}
        return self.model_dump(mode="json")

    @model_serializer(mode="wrap")
    def _without_unread_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content = handler(self)
        own = is_reference(self.name)
        kept = {key for key, names in USES.items() if self.name in names}
        kept |= {"answer", "greater_is_better"} if own else set()
        kept |= set() if self.name == "fbeta" else {"name"}
        return {key: value for key, value in content.items() if key in kept and value != {}}

    @model_validator(mode="before")
    @classmethod
    def _read_old_keys(cls, value: Any) -> Any:
        """Read `empty`, the name that zero_division has in stamps and had in files, and accuracy as an
        average."""
        if not isinstance(value, dict):
            return value
        value = dict(value)
        if "empty" in value and "zero_division" not in value:
            value["zero_division"] = value.pop("empty")
        if value.get("average") == "accuracy" and value.get("name", "accuracy") == "accuracy":
            del value["average"]
            value["name"] = "accuracy"
        return value

    @model_validator(mode="after")
    def _check_keys(self) -> "Metric":
        own = is_reference(self.name)
        if not own and self.name not in ANSWERS:
            known = ", ".join(ANSWERS)
            raise ValueError(
                f"metric.name = {self.name!r} is unknown{did_you_mean(self.name, ANSWERS)}; there are "
                f"{known}, and your own as FILE.py:NAME"
            )
        if own and self.answer is None:
            raise ValueError(f"metric.answer is not set; one of {', '.join(get_args(Answer))} is expected")
        given = self.model_fields_set
        if not own:
            for key in ("answer", "greater_is_better"):
                if key in given and getattr(self, key) is not None:
                    raise ValueError(f"metric.{key} is for a metric of your own; {self.name} has its own")
        for key, names in USES.items():
            if key in given and self.name not in names:
                raise ValueError(f"metric.{key} goes with {', '.join(names)}, not with {self.name}")
        if self.zero_division and self.average != "samples":
            raise ValueError(f'metric.zero_division needs average = "samples"; average is "{self.average}"')
        if self.average == "samples" and self.name != "fbeta" and "average" in given:
            raise ValueError(f'{self.name} has no metric.average = "samples"; use "macro" or "micro"')
        if wrong := [name for name, weight in self.weights.items() if weight < 0]:
            raise ValueError(f"metric.weights of {wrong[0]!r} is below 0")
        if self.weights and self.average == "micro":
            raise ValueError('metric.weights needs average = "macro"')
        return self
