"""Failures on demand: queued for certain requests, or drawn by chance for any."""

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
    """Which requests fail, and how."""

    def fail(
        self,
        kind: str,
        match: str = "",
        times: int = 1,
        at: float = 0,
        after: int = 0,
        seconds: float | None = None,
    ) -> None:
        """Queue a failure for the next `times` requests whose "METHOD path" matches, past the first `after`.

        cut: `at` bytes of the body, then the end (of an upload: that many are taken). 403, 404, 429, 500,
        503: that status (Retry-After: `seconds`). length: Content-Length off by `at`. slow: `at` bytes a
        second. hang: nothing for `seconds`, then the end. drop: the work is done, no answer comes. refuse:
        closed before anything. corrupt: the byte `at` is flipped. nolength: no Content-Length, the body ends
        with the connection (cut after `at` bytes if set). html: 200 with a page. An `at` between 0 and 1 is a
        share of the body."""
        if kind not in KINDS:
            raise ValueError(f"unknown failure {kind!r}; known: {', '.join(KINDS)}")
        with self._lock:
            self._failures.append(Failure(kind, re.compile(match), times, at, after, seconds))

    def chaos(self, seed: int, rate: float, kinds: Sequence[str] = TRANSIENT, seconds: float = 0.2) -> None:
        """Let each request fail with probability `rate`, drawn from the seed, the request's kind and name and
        how often it came: the order of different requests doesn't matter. Rate 0 ends it."""
        with self._lock:
            self._chaos = (seed, rate, tuple(kinds), seconds) if rate > 0 else None
            self._seen.clear()

    def next_failure(self, verb: str, path: str) -> Failure | None:
        """The failure for this request, if one waits or chaos draws one."""
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
