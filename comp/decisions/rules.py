"""Decision rules by name, and fitted rules: applied to probabilities, and as JSON."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from comp.decisions.calibration import TINY, logit, sigmoid
from comp.decisions.expected_fbeta import expected_decisions
from comp.decisions.metrics import FBeta, most_probable
from comp.decisions.scorers import Scorer
from comp.errors import CompError, summarize

RULES = {  # simple ones first
    "0.5": "0.5 for all labels",
    "0.2": "0.2 for all labels (suits F2)",
    "global": "one threshold for all labels",
    "shrunk": "a threshold per label, shrunk towards the global one by a cross-fitted share",
    "expected": "the labels of highest expected F-beta per image, from calibrated probabilities",
    "per-class": "a threshold per label, the best on the rows that it is fitted to",
    "prevalence": "a threshold per label that gives it as often as it occurs",
    "optuna": "a threshold per label, searched by Optuna from the exact ones",
}
SINGLE_LABEL_RULES = {  # where each image has exactly one label
    "most-probable": "the most probable label",
    "shrunk": "an offset per label before that, shrunk towards 0 by a cross-fitted share",
    "per-class": "an offset per label before that, the best on the rows that it is fitted to",
}
AUTO = ("0.5", "0.2", "global", "shrunk", "expected", "per-class", "prevalence")
AUTO_LARGE = ("0.5", "0.2", "global", "per-class")
LARGE = 20_000_000  # numbers in a matrix; above it, auto leaves out the costly rules
EXTRAS = {
    "exclusive": "exactly one label of each group",
    "limits": "cross-fitted minimum and maximum of labels per image",
    "temperature": "for expected: a cross-fitted temperature of the calibrated logits",
}
REFERENCE_RULE = "shrunk"  # near the best on real matrices of every size; kept unless another rule beats it
REFERENCE_SINGLE = "most-probable"

CHUNK = 1 << 24  # numbers that are decided together

ColumnGroups = Sequence[Sequence[int]]


@dataclass(frozen=True)
class FittedRule:
    """A rule with its parameters: thresholds per label or, with `expected`, the best expected F-beta of
    calibrated probabilities. Groups and limits change these decisions afterwards."""

    thresholds: np.ndarray  # (C,)
    expected: bool = False
    slopes: np.ndarray | None = None  # (C,) calibration: logits times slope plus offset
    offsets: np.ndarray | None = None  # (C,)
    temperature: float = 1.0  # divides calibrated logits
    groups: tuple[tuple[int, ...], ...] = ()  # an image has exactly one label of each group
    min_labels: int = 0  # per image
    max_labels: int | None = None

    @property
    def n_classes(self) -> int:
        return len(self.thresholds)

    def decide(self, probs: np.ndarray, metric: Scorer) -> np.ndarray:
        """Return decisions (N, C) 0/1 for probabilities (N, C)."""
        step = max(1, CHUNK // probs.shape[1])
        if len(probs) <= step:
            return self._decide(probs, metric)
        decisions = np.empty(probs.shape, np.uint8)
        for first in range(0, len(probs), step):
            rows = slice(first, first + step)
            decisions[rows] = self._decide(probs[rows], metric)
        return decisions

    def _decide(self, probs: np.ndarray, metric: Scorer) -> np.ndarray:
        calibrated = self.calibrated(probs) if self.expected else None
        if calibrated is not None:
            assert isinstance(metric, FBeta)
            decisions = expected_decisions(calibrated, metric)
        elif self._is_plain_choice(probs):
            return most_probable(probs)
        else:
            decisions = (probs > self.thresholds).astype(np.uint8)

        def margins_of(rows: np.ndarray | slice) -> np.ndarray:
            if calibrated is not None:
                return calibrated[rows].copy()
            return logit(probs[rows], TINY) - logit(self.thresholds, TINY)

        if not self.groups:
            return self._within_limits(decisions, margins_of)
        margins = margins_of(slice(None))
        for group in self.groups:
            members = np.array(group)
            first = members[np.argmax(margins[:, members], axis=1)]
            decisions[:, members] = 0
            decisions[np.arange(len(probs)), first] = 1
        grouped = [c for group in self.groups for c in group]
        kept = decisions[:, grouped]
        margins[:, grouped] = np.where(kept, np.inf, -np.inf)  # limits leave groups as they are
        decisions = _limited(decisions, margins, self.min_labels, self.max_labels)
        decisions[:, grouped] = kept
        return decisions

    def _is_plain_choice(self, probs: np.ndarray) -> bool:
        """Return whether the most probable label is taken, for which 15,000 labels need no logits."""
        return (
            probs.dtype == np.float32
            and [list(group) for group in self.groups] == [list(range(probs.shape[1]))]
            and bool((self.thresholds == self.thresholds[0]).all() and (probs.max(1) > TINY).all())
        )

    def _within_limits(
        self, decisions: np.ndarray, margins_of: Callable[[np.ndarray], np.ndarray]
    ) -> np.ndarray:
        if not self.min_labels and self.max_labels is None:
            return decisions
        n_labels = decisions.sum(1)
        most = self.max_labels if self.max_labels is not None else decisions.shape[1]
        wrong = np.flatnonzero((n_labels < self.min_labels) | (n_labels > most))
        if len(wrong):
            decisions[wrong] = _limited(decisions[wrong], margins_of(wrong), self.min_labels, self.max_labels)
        return decisions

    def threshold_of(self, c: int) -> float | None:
        """Return the threshold of label c; None where the rule compares it with other labels."""
        compared = self.expected or any(c in group for group in self.groups)
        return None if compared else float(self.thresholds[c])

    def is_nearest(self, probs: np.ndarray, given: np.ndarray) -> bool:
        """Return whether an image (C,) was given labels although none passed its threshold."""
        at = [self.threshold_of(c) for c in np.flatnonzero(given).tolist()]
        above = [value is None or p > value for value, p in zip(at, probs[given == 1])]
        return bool(above) and not any(above)

    def calibrated(self, probs: np.ndarray) -> np.ndarray:
        """Return calibrated probabilities (N, C), or the given ones without a calibration."""
        if self.slopes is None or self.offsets is None:
            return probs
        return sigmoid((logit(probs) * self.slopes + self.offsets) / self.temperature)

    def as_json(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return the rule with labels by name. In a file it is comp.artifacts.schemas.Rule."""

        def named(values: np.ndarray | None) -> dict[str, float] | None:
            return None if values is None else dict(zip(classes, map(float, values)))

        return {
            "thresholds": named(self.thresholds),
            "expected": self.expected,
            "slopes": named(self.slopes),
            "offsets": named(self.offsets),
            "temperature": self.temperature,
            "groups": [[classes[i] for i in group] for group in self.groups],
            "min_labels": self.min_labels,
            "max_labels": self.max_labels,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], classes: Sequence[str]) -> "FittedRule":
        """Return the rule that `as_json` gave. Raise CompError unless it is of exactly these classes."""

        def values(name: str) -> np.ndarray | None:
            found = content.get(name)
            return None if found is None else np.array([found[c] for c in classes], float)

        if set(content["thresholds"]) != set(classes):
            found = summarize(content["thresholds"])
            raise CompError(
                f"decision.json has the labels {found}, not {summarize(classes)}; run `comp decide` again"
            )
        thresholds = values("thresholds")
        assert thresholds is not None
        position = {name: i for i, name in enumerate(classes)}
        groups = tuple(tuple(position[name] for name in group) for group in content.get("groups", ()))
        return cls(
            thresholds, content.get("expected", False), values("slopes"), values("offsets"),
            content.get("temperature", 1.0), groups,
            content.get("min_labels", content.get("least", 0)),  # least, most: as the first runs have them
            content.get("max_labels", content.get("most")),
        )  # fmt: skip


def _limited(
    decisions: np.ndarray, margins: np.ndarray, min_labels: int, max_labels: int | None
) -> np.ndarray:
    """Add the labels of highest margin to rows with too few, and remove those of lowest margin from rows with
    too many."""
    numbers = decisions.sum(1)
    short = np.flatnonzero(numbers < min_labels)
    if len(short):
        order = np.argsort(-(margins[short] + 1e9 * decisions[short]), axis=1)
        rows = decisions[short]
        np.put_along_axis(rows, order[:, :min_labels], 1, 1)
        decisions[short] = rows
    if max_labels is not None and len(long := np.flatnonzero(numbers > max_labels)):
        order = np.argsort(-(margins[long] + 1e9 * decisions[long]), axis=1)
        rows = decisions[long]
        np.put_along_axis(rows, order[:, max_labels:], 0, 1)
        decisions[long] = rows
    return decisions


def check_rule(rule: str, *, single: bool, grouped: bool) -> None:
    """Raise CompError unless the rule exists and suits the labels: exactly one per image (`single`), or some
    that exclude each other (`grouped`)."""
    base, *extras = rule.split("+")
    if single and rule not in SINGLE_LABEL_RULES:
        raise CompError(
            f"no rule {rule!r} for images with exactly one label; there are {', '.join(SINGLE_LABEL_RULES)}"
        )
    if not single and (base not in RULES or not set(extras) <= set(EXTRAS)):
        raise CompError(
            f"no rule {rule!r}; there are {', '.join(RULES)}, each with +{' or +'.join(EXTRAS)} if wanted"
        )
    if "exclusive" in extras and not grouped:
        raise CompError(f"the rule {rule!r} needs groups of labels that exclude each other")
    if "temperature" in extras and base != "expected":
        raise CompError(f"the rule {rule!r} uses thresholds; +temperature works only with 'expected'")


def is_single_label(targets: np.ndarray, groups: ColumnGroups) -> bool:
    """Return whether each image has exactly one label: one group holds all classes, and the targets (N, C)
    agree."""
    return [len(group) for group in groups] == [targets.shape[1]] and bool((targets.sum(1) == 1).all())


def candidates(
    rule: str, shape: tuple[int, int], average: str, with_groups: bool, single: bool = False
) -> list[str]:
    """Return the names of the rules to score for `rule`, simple ones first."""
    if rule != "auto":
        return [rule]
    if single:
        return [REFERENCE_SINGLE] if shape[0] * shape[1] > LARGE else list(SINGLE_LABEL_RULES)
    names = [
        name
        for name in (AUTO_LARGE if shape[0] * shape[1] > LARGE else AUTO)
        if (name != "expected" or average == "samples") and (name != "prevalence" or average != "samples")
    ]
    return [*names, *(f"{name}+exclusive" for name in ("global", "shrunk") if with_groups and name in names)]
