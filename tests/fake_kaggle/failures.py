"""Failures on demand: queued for matching requests, or random for all requests."""

import random
import re
from collections.abc import Sequence

from tests.fake_kaggle.state import Failure, State

KINDS = (
    "cut", "403", "404", "429", "500", "503", "length", "slow", "hang", "drop", "refuse", "corrupt",
    "nolength", "html",
)  # fmt: skip
TRANSIENT = tuple(kind for kind in KINDS if kind not in ("403", "404"))


class Failures(State):
    """Decide which requests fail, and how."""

    def fail(
        self,
        kind: str,
        match: str = "",
        times: int = 1,
        at: float = 0,
        after: int = 0,
        seconds: float | None = None,
    ) -> None:
        """Queue a failure for the next `times` requests whose "METHOD path" matches, after the first `after`.

        cut: close after `at` bytes of the body (uploads: after receiving so many). 403, 404, 429, 500, 503:
        respond with that status (Retry-After: `seconds`). length: Content-Length is off by `at`. slow: send
        `at` bytes per second. hang: send nothing for `seconds`, then close. drop: do the work, close without
        a response. refuse: close at once. corrupt: flip a bit of byte `at`. nolength: no Content-Length; the
        body ends with the connection (after `at` bytes if set). html: respond 200 with a page. An `at`
        between 0 and 1 is a share of the body."""
        if kind not in KINDS:
            raise ValueError(f"unknown failure {kind!r}; known: {', '.join(KINDS)}")
        with self._lock:
            self._failures.append(Failure(kind, re.compile(match), times, at, after, seconds))

    def chaos(self, seed: int, rate: float, kinds: Sequence[str] = TRANSIENT, seconds: float = 0.2) -> None:
        """Let each request fail with probability `rate`. Chance depends on the seed, the request and its
        number of repetitions, not on the order of different requests. Rate 0 turns it off."""
        with self._lock:
            self._chaos = (seed, rate, tuple(kinds), seconds) if rate > 0 else None
            self._seen.clear()

    def next_failure(self, verb: str, path: str) -> Failure | None:
        """Return the queued or random failure of this request, or None."""
        with self._lock:
            for failure in self._failures:
                if failure.times < 1 or not failure.match.search(f"{verb} {path}"):
                    continue
                if failure.after > 0:
                    failure.after -= 1
                    continue
                failure.times -= 1
                return failure
            if self._chaos is None:
                return None
            seed, rate, kinds, seconds = self._chaos
            key = f"{verb} {re.sub('^/(storage|upload)/[^/]+', lambda m: '/' + m[1], path)}"
            self._seen[key] += 1
            rng = random.Random(f"{seed}|{key}|{self._seen[key]}")
            if rng.random() >= rate:
                return None
            kind, share = rng.choice(kinds), rng.uniform(0.01, 0.99)
            at = {"length": rng.choice([-3, -1, 1, 7]), "slow": 1e6}.get(kind, share)
            return Failure(kind, at=at, seconds=seconds)
