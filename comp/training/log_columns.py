"""The held-out scores in a row of log.jsonl, and which of them `comp tune` compares."""

from dataclasses import dataclass

from comp.config.metric import Metric
from comp.user_code import is_reference


@dataclass(frozen=True)
class LogColumns:
    """The keys of a row's held-out scores. The last one is the metric itself."""

    keys: tuple[str, ...]
    title: str  # of the metric
    tuned: (
        str  # the key that trials are compared by: mAP of labels, which needs no threshold, else the metric
    )
    tuned_title: str
    sign: int  # 1 where more of it is better, else -1

    @classmethod
    def of(cls, metric: Metric, *, single: bool) -> "LogColumns":
        """Return the columns of a metric; `single`: each image has exactly one label."""
        title, sign = str(metric), 1 if metric.greater_is_better else -1
        if metric.name in ("fbeta", "accuracy"):
            keys = ("mAP", "fbeta", *(["accuracy"] if single else []))
            title = "accuracy" if single else "F-beta"
        else:
            key = "score" if is_reference(metric.name) else metric.name
            with_map = metric.kind in ("labels", "probabilities") and key != "average_precision"
            keys = ("mAP", key) if with_map else (key,)
        if metric.kind == "labels":
            return cls(("valid_loss", *keys), title, "mAP", "mAP", 1)
        return cls(("valid_loss", *keys), title, keys[-1], title, sign)

    @property
    def metric(self) -> str:
        """The key of the metric."""
        return self.keys[-1]
