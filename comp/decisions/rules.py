"""Rules that turn probabilities into labels: what they are made of, and how one is applied."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from comp.decisions.expected_fbeta import expected_decisions
from comp.decisions.thresholds import between
from comp.errors import CompError, some

EPS = 1e-6  # probabilities are kept this far from 0 and 1 in logits that are averaged or fitted to
LEAST_SLOPE = 0.05  # of a calibration: more probable stays more probable
TINY = 1e-15  # and this far in logits that are compared
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


def logit(probs: np.ndarray, eps: float = EPS) -> np.ndarray:
    clipped = np.clip(np.asarray(probs, np.float64), eps, 1 - eps)
    return np.log(clipped) - np.log1p(-clipped)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


# --- fitting ------------------------------------------------------------------------------------------------


def drawn_thresholds(exact: np.ndarray, common: float, share: np.ndarray | float) -> np.ndarray:
    """Thresholds (C,) drawn from their own best `exact` (C,) towards the `common` one, in logits: `share` 1
    keeps them, 0 leaves the common one."""
    return sigmoid(share * logit(exact, TINY) + (1 - share) * logit(np.array(common), TINY))


def prevalence_thresholds(probs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(C,) thresholds above which lie as many probabilities as there are labels of the class, or as near to
    that as equal probabilities allow."""
    thresholds = np.empty(probs.shape[1])
    for c, n_labels in enumerate(targets.sum(0).astype(int)):
        falling = -np.sort(-probs[:, c].astype(np.float64))
        starts = np.flatnonzero(np.r_[True, falling[1:] != falling[:-1], True])  # where other values begin
        k = int(starts[np.argmin(np.abs(starts - n_labels))])
        thresholds[c] = between(falling, k)
    return thresholds


def calibration(
    probs: np.ndarray, targets: np.ndarray, *, strength: float = 10.0, steps: int = 25
) -> tuple[np.ndarray, np.ndarray]:
    """Slope and offset (C,) each of a class's logits, by logistic regression (Platt 1999) held to slope 1 and
    offset 0 with the weight of `strength` images, so that rare classes stay near what the model said."""
    x, y = logit(probs), targets.astype(float)
    slopes, offsets = np.ones(x.shape[1]), np.zeros(x.shape[1])

    def loss(slopes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        z = x * slopes + offsets
        pull = strength / 2 * ((slopes - 1) ** 2 + offsets**2)
        return (np.logaddexp(0, z) - y * z).sum(0) + pull

    now = loss(slopes, offsets)
    for _ in range(steps):
        p = sigmoid(x * slopes + offsets)
        error, weight = p - y, p * (1 - p)
        g_a, g_b = (error * x).sum(0) + strength * (slopes - 1), error.sum(0) + strength * offsets
        h_aa, h_bb = (weight * x * x).sum(0) + strength, weight.sum(0) + strength
        h_ab = (weight * x).sum(0)
        determinant = h_aa * h_bb - h_ab**2
        step_a, step_b = (h_bb * g_a - h_ab * g_b) / determinant, (h_aa * g_b - h_ab * g_a) / determinant
        held = (slopes <= LEAST_SLOPE) & (g_a > 0)  # at its bound: the offset alone
        step_a, step_b = np.where(held, 0.0, step_a), np.where(held, g_b / h_bb, step_b)
        size = np.ones(len(slopes))
        for _ in range(40):  # Newton's steps, halved where they lead up
            tried = np.maximum(slopes - size * step_a, LEAST_SLOPE), offsets - size * step_b
            value = loss(*tried)
            if (better := value <= now).all():
                break
            size = np.where(better, size, size / 2)
        gain = now - value
        slopes, offsets = (np.where(better, t, old) for t, old in zip(tried, (slopes, offsets)))
        now = np.where(better, value, now)
        if gain.max() < 1e-9 * len(x):
            break
    return slopes, offsets
