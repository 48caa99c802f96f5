"""The report as one HTML page."""

from importlib import resources
from typing import Any

from comp.pages.page import build_page

SCRIPTS = (
    *("charts.js", "report.js", "corrections.js", "images.js", "viewer.js", "labels.js", "answers.js"),
    *("lab.js", "map.js", "provenance.js", "folds.js"),
    "address.js",  # the last: it restores what the others show
)


def report_page(content: dict[str, Any], stamp: dict[str, Any]) -> str:
    """Return the page: template, style and script that ship with the package, with the content inside."""
    folder = resources.files("comp.evaluation") / "page"
    title = f"{content['name']}: {content['metric']}"
    return build_page(
        folder, "report.html", title, content, styles=["report.css", "lab.css"], scripts=SCRIPTS, stamp=stamp
    )
