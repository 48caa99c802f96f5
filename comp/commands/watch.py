"""watch: a page that shows runs while they are trained.

Reads the small files of runs/<name>/ and some images; writes nothing, or with --static runs/watch.html.
"""

import logging
import os
import time

from comp.artifacts.files import write_text
from comp.artifacts.paths import run_recipes, watch_page_path
from comp.artifacts.run_recipe import read_recipe
from comp.console import info
from comp.errors import CompError
from comp.watch.page import static_page
from comp.watch.pictures import Pictures
from comp.watch.runs import RunReader
from comp.watch.server import make_server

LOOK_SECONDS = 2.0  # between two looks of --static at the files


def run(*, names: list[str], host: str | None, port: int | None, static: bool) -> None:
    if static and (host or port is not None):
        raise CompError("--static serves nothing; leave out --host and --port")
    if port is not None and not 0 <= port < 1 << 16:
        raise CompError(f"--port {port}: a number from 0 (a free one) to 65535 is expected")
    names = _runs_of(names)
    if hasattr(os, "nice"):
        os.nice(19)  # a training on the same cores goes first
    try:
        _write_page(names) if static else _serve(names, host or "127.0.0.1", port)
    except KeyboardInterrupt:
        info("watch: ended")


def _runs_of(names: list[str]) -> list[str]:
    """Return the names of the runs. Raise CompError for a name that is neither a run's nor a recipe's."""
    begun, found = run_recipes(), []
    for name in names:
        recipe = read_recipe(name)
        alone = name if name in begun else recipe.name  # a run's folder may be a copy
        found += [member.name for member in recipe.members] or [alone]
    return found


def _serve(names: list[str], host: str, port: int | None) -> None:
    logging.getLogger("waitress").setLevel(logging.CRITICAL)
    server, address = make_server(names, host, port)
    info(f"watch: {address}")
    info("watch: the page only reads, so it may be ended (Ctrl-C) and started again at any time")
    try:
        server.run()
    finally:
        server.close()


def _write_page(names: list[str]) -> None:
    """Write the page after each epoch until all watched runs are trained."""
    reader, pictures, before = RunReader(names), Pictures(), ""
    path = watch_page_path()
    while True:
        over = reader.is_over()
        overview = reader.overview()
        now = f"{over} {[run['version'] for run in overview['runs']]} {overview['problems']}"
        if now != before:
            write_text(path, static_page(reader, pictures, over=over))
            if not before:
                info(f"watch: {path}, written again after each epoch; open it in a browser")
            before = now
        if over:
            info(f"watch: {path} is complete: all runs are trained")
            return
        time.sleep(LOOK_SECONDS)
