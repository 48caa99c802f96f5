"""Decision rules by name, and a fitted rule: applied to probabilities, and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from comp.decisions.calibration import TINY, logit, sigmoid
from comp.decisions.expected_fbeta import expected_decisions
from comp.errors import CompError, some

RULES = {  # simple ones first
    "0.5": "0.5 for all labels",
    "0.2": "0.2 for all labels, which suits F2",
    "global": "one threshold for all labels",
    "drawn": "a threshold a label, drawn towards the global one as far as held-out folds like it",
    "expected": "the labels of highest expected F-beta of each image, from calibrated probabilities",
    "per-class": "a threshold a label, the best on the rows that it is fitted on",
    "prevalence": "a threshold a label that gives it as often as it is there",
    "optuna": "a threshold a label, searched by Optuna from the exact ones on",
}
OF_ONE = {  # where each image has exactly one label
    "most-probable": "the most probable label",
    "drawn": "the same after an offset a label, drawn towards none as far as held-out folds like it",
    "per-class": "the same after an offset a label, the best on the rows that it is fitted on",
}
AUTO = ("0.5", "0.2", "global", "drawn", "expected", "per-class", "prevalence")
AUTO_LARGE = ("0.5", "0.2", "global", "per-class")
LARGE = 20_000_000  # numbers in a matrix, beyond which the costly rules are left out of auto
EXTRAS = {
    "exclusive": "exactly one label of each group",
    "limits": "no fewer and no more labels an image than held-out folds like",
    "temperature": "of expected: probabilities as bold or timid as held-out folds like them",
}
STEADY = "drawn"  # on real matrices of every size the best or near it; kept unless another is surely better
STEADY_OF_ONE = "most-probable"

Groups = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Fitted:
    """A rule with its parameters. `thresholds` rule, or, with `expected`, the best expected F-beta of
    calibrated probabilities; the other fields are laid over that."""

    thresholds: np.ndarray  # (C,)
    expected: bool = False
    slopes: np.ndarray | None = None  # (C,) calibration: logits times slope plus offset
    offsets: np.ndarray | None = None  # (C,)
    temperature: float = 1.0  # by which calibrated logits are divided
    groups: tuple[tuple[int, ...], ...] = ()  # in each exactly one label holds
    least: int = 0  # labels an image
    most: int | None = None

    def decide(self, probs: np.ndarray, *, beta: float, empty: float = 0.0) -> np.ndarray:
        """(N, C) 0/1 for probabilities (N, C)."""
        if self.expected:
            calibrated = self.calibrated(probs)
            decisions, margins = expected_decisions(calibrated, beta=beta, empty=empty), calibrated.copy()
        else:
            decisions, margins = (probs > self.thresholds).astype(np.uint8), None
        if self.groups or self.least or self.most is not None:
            if margins is None:
                margins = logit(probs, TINY) - logit(self.thresholds, TINY)
            for group in self.groups:
                members = np.array(group)
                first = members[np.argmax(margins[:, members], axis=1)]
                decisions[:, members] = 0
                decisions[np.arange(len(probs)), first] = 1
            grouped = [c for group in self.groups for c in group]
            kept = decisions[:, grouped]
            margins[:, grouped] = np.where(kept, np.inf, -np.inf)  # limits leave groups as they are
            decisions = _limited(decisions, margins, self.least, self.most)
            decisions[:, grouped] = kept
        return decisions

    def threshold_of(self, c: int) -> float | None:
        """Above which label c is given; None where it is compared with other labels."""
        compared = self.expected or any(c in group for group in self.groups)
        return None if compared else float(self.thresholds[c])

    def is_nearest(self, probs: np.ndarray, given: np.ndarray) -> bool:
        """Whether the labels that an image (C,) is given are the nearest ones, as none is above its
        threshold."""
        at = [self.threshold_of(c) for c in np.flatnonzero(given).tolist()]
        above = [value is None or p > value for value, p in zip(at, probs[given == 1])]
        return bool(above) and not any(above)

    def calibrated(self, probs: np.ndarray) -> np.ndarray:
        if self.slopes is None or self.offsets is None:
            return probs
        return sigmoid((logit(probs) * self.slopes + self.offsets) / self.temperature)

    def as_json(self, classes: Sequence[str]) -> dict[str, Any]:
        def named(values: np.ndarray | None) -> dict[str, float] | None:
            return None if values is None else dict(zip(classes, map(float, values)))

        return {
            "thresholds": named(self.thresholds),
            "expected": self.expected,
            "slopes": named(self.slopes),
            "offsets": named(self.offsets),
            "temperature": self.temperature,
            "groups": [[classes[i] for i in group] for group in self.groups],
            "least": self.least,
            "most": self.most,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any], classes: Sequence[str]) -> "Fitted":
        """From what `as_json` gave, of exactly these classes; in a file: comp.artifacts.schemas.Rule."""

        def values(name: str) -> np.ndarray | None:
            found = content.get(name)
            return None if found is None else np.array([found[c] for c in classes], float)

        if set(content["thresholds"]) != set(classes):
            found = some(content["thresholds"])
            raise CompError(f"decision.json is of the labels {found}, not of {some(classes)}; decide again")
        thresholds = values("thresholds")
        assert thresholds is not None
        position = {name: i for i, name in enumerate(classes)}
        groups = tuple(tuple(position[name] for name in group) for group in content.get("groups", ()))
        return cls(
            thresholds, content.get("expected", False), values("slopes"), values("offsets"),
            content.get("temperature", 1.0), groups, content.get("least", 0), content.get("most"),
        )  # fmt: skip

    def over(self, **changes: Any) -> "Fitted":
        return replace(self, **changes)


def _limited(decisions: np.ndarray, margins: np.ndarray, least: int, most: int | None) -> np.ndarray:
    """At least and at most so many labels a row: the nearest are added, the furthest removed."""
    numbers = decisions.sum(1)
    short = np.flatnonzero(numbers < least)
    if len(short):
        order = np.argsort(-(margins[short] + 1e9 * decisions[short]), axis=1)
        rows = decisions[short]
        np.put_along_axis(rows, order[:, :least], 1, 1)
        decisions[short] = rows
    if most is not None and len(long := np.flatnonzero(numbers > most)):
        order = np.argsort(-(margins[long] + 1e9 * decisions[long]), axis=1)
        rows = decisions[long]
        np.put_along_axis(rows, order[:, most:], 0, 1)
        decisions[long] = rows
    return decisions


def decide_by_fold(
    rules: Mapping[str, Fitted], probs: np.ndarray, folds: np.ndarray, *, beta: float, empty: float = 0.0
) -> np.ndarray:
    """(N, C) 0/1 for probabilities (N, C) of these folds (N,), each by its own rule."""
    decisions = np.zeros(probs.shape, np.uint8)
    for fold, rule in rules.items():
        part = folds.astype(str) == fold
        decisions[part] = rule.decide(probs[part], beta=beta, empty=empty)
    return decisions


# --- fitting ------------------------------------------------------------------------------------------------


def check_rule(rule: str, *, single: bool, grouped: bool) -> None:
    """Raise CompError unless the rule is known, and suits images of exactly one label (`single`) or labels of
    which some exclude each other (`grouped`)."""
    base, *extras = rule.split("+")
    if single and rule not in OF_ONE:
        raise CompError(
            f"no rule {rule!r} where each image has exactly one label; there are {', '.join(OF_ONE)}"
        )
    if not single and (base not in RULES or not set(extras) <= set(EXTRAS)):
        raise CompError(
            f"no rule {rule!r}; there are {', '.join(RULES)}, each with +{' or +'.join(EXTRAS)} if wanted"
        )
    if "exclusive" in extras and not grouped:
        raise CompError(f"the rule {rule!r} needs groups of labels that exclude each other")
    if "temperature" in extras and base != "expected":
        raise CompError(f"the rule {rule!r} has thresholds; a temperature suits 'expected'")


def is_single(targets: np.ndarray, groups: Groups) -> bool:
    """Whether each image has exactly one label: one group holds all classes, and the targets (N, C) agree."""
    return [len(group) for group in groups] == [targets.shape[1]] and bool((targets.sum(1) == 1).all())


def candidates(
    rule: str, shape: tuple[int, int], average: str, with_groups: bool, single: bool = False
) -> list[str]:
    """The rules to weigh for `rule`, by simplicity."""
    if rule != "auto":
        return [rule]
    if single:
        return [STEADY_OF_ONE] if shape[0] * shape[1] > LARGE else list(OF_ONE)
    names = [
        name
        for name in (AUTO_LARGE if shape[0] * shape[1] > LARGE else AUTO)
        if (name != "expected" or average == "samples") and (name != "prevalence" or average != "samples")
    ]
    return [*names, *(f"{name}+exclusive" for name in ("global", "drawn") if with_groups and name in names)]
