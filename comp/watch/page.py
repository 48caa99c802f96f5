"""The page: one file that asks the server for news, or that has all inside and is written again."""

import time
from importlib import resources
from typing import Any

from comp.pages.page import build_page
from comp.watch.pictures import Pictures
from comp.watch.runs import RunReader

MAX_COMPARED = 10  # runs in a file besides the watched ones
SCRIPTS = ("lines.js", "watch.js", "news.js")


def live_page() -> str:
    """Return the page that a server sends."""
    return _page({"live": True})


def static_page(reader: RunReader, pictures: Pictures, *, over: bool) -> str:
    """Return the page with all inside: watched runs, and some of the others to compare with. `over`: it will
    not be written again."""
    overview = reader.overview()
    watched = [run for run in overview["runs"] if run["watched"]]
    others = [run for run in overview["runs"] if not run["watched"]][:MAX_COMPARED]
    found = {run["name"]: reader.details(run["name"]) for run in (*watched, *others)}
    details = {name: of for name, of in found.items() if of}
    shown: dict[str, dict[str, str]] = {}
    for name, of in details.items():
        for fold in of["folds"]:  # the worst images after the last epoch alone
            rows = [{**row, "worst": []} for row in fold["rows"]]
            if rows and of["watched"]:
                rows[-1] = fold["rows"][-1]
            fold["rows"] = rows
        ids = {image["id"] for fold in of["folds"] for row in fold["rows"] for image in row["worst"]}
        if ids and (worst := reader.worst(name)):
            shown[name] = pictures.encoded(worst[0], sorted(ids))
    news = {**overview, "runs": [*watched, *others]}
    content = {"live": False, "over": over, "made": time.time(), "news": news}
    return _page({**content, "details": details, "pictures": shown})


def _page(content: dict[str, Any]) -> str:
    folder = resources.files("comp.watch") / "page"
    return build_page(
        folder, "watch.html", "comp watch", content, styles=["watch.css"], scripts=SCRIPTS,
        sources="connect-src 'self'; img-src 'self' data:",
    )  # fmt: skip
