"""Serve the sample competitions from the command line."""

import argparse
import contextlib
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from tests import fake_kaggle
from tests.fake_kaggle.failures import KINDS
from tests.fake_kaggle.fake import FakeKaggle
from tests.fake_kaggle.samples import PLANET, SHARED, hpa, old_planet, planet


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve Planet, its mirror and the protein atlas until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.fake_kaggle", description=fake_kaggle.__doc__)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--data", type=Path, default=SHARED, help="folder with planet32 and hpa")
    parser.add_argument("--images", type=int, help="training images of Planet (default: all)")
    parser.add_argument("--proteins", type=int, default=40, help="training images of the atlas")
    parser.add_argument("--old", action="store_true", help="Planet with archives, as before December 2019")
    parser.add_argument("--folder", type=Path, help="folder of uploads and runs (default: temporary)")
    parser.add_argument("--score-after", type=float, default=0.5, metavar="SECONDS")
    parser.add_argument("--ready-after", type=float, default=0.5, metavar="SECONDS")
    parser.add_argument("--layout", choices=("new", "flat"), default="new", help="of kernels' inputs")
    parser.add_argument("--rules", action="store_true", help="Planet's rules are not accepted yet")
    parser.add_argument("--daily-limit", type=int, default=5)
    parser.add_argument("--chaos", metavar="SEED:RATE", help="let each request fail with this probability")
    parser.add_argument(
        "--fail", action="append", default=[], metavar="KIND:REGEX[:AT]", help=f"one of {', '.join(KINDS)}"
    )
    options = parser.parse_args(arguments)
    failures = []
    for text in options.fail:
        if (match := re.fullmatch(r"(\w+):(.*?)(?::(-?[\d.]+))?", text)) is None or match[1] not in KINDS:
            parser.error(f"--fail {text}: expected KIND:REGEX[:AT], KIND one of {', '.join(KINDS)}")
        failures.append((match[1], match[2], float(match[3] or 0)))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    with contextlib.ExitStack() as stack, contextlib.suppress(KeyboardInterrupt):
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            kaggle = stack.enter_context(FakeKaggle(folder, options.port))
        except OSError as error:
            parser.error(f"cannot listen on port {options.port}: {error.strerror}; choose another --port")
        kaggle.score_after, kaggle.ready_after = options.score_after, options.ready_after
        kaggle.mount_layout = options.layout
        (old_planet if options.old else planet)(kaggle, options.data, options.images)
        hpa(kaggle, options.data, options.proteins, max(1, options.proteins // 2))
        for competition in kaggle.competitions.values():
            competition.daily_limit = options.daily_limit
        kaggle.competitions[PLANET].accepted = not options.rules
        for kind, match_text, at in failures:
            kaggle.fail(kind, match_text, at=at)
        if options.chaos:
            seed, _, rate = options.chaos.partition(":")
            kaggle.chaos(int(seed), float(rate))
        user, key = next(iter(kaggle.users.items()))
        print(f"export COMP_KAGGLE_ENDPOINT={kaggle.url} KAGGLE_USERNAME={user} KAGGLE_KEY={key}")
        print("Ctrl-C stops it", file=sys.stderr, flush=True)
        sys.stdout.flush()
        threading.Event().wait()


if __name__ == "__main__":
    main()
