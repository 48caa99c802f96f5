"""The report as one HTML page."""

import json
from html import escape
from importlib import resources
from typing import Any


def report_page(content: dict[str, Any], stamp: dict[str, Any]) -> str:
    """Return the page: template, style and script that ship with the package, with the content inside."""
    folder = resources.files("comp.evaluation") / "page"
    scripts = ("charts.js", "tables.js", "report.js", "images.js", "labels.js", "answers.js")
    files = {name: (folder / name).read_text("utf-8") for name in ("report.html", "report.css", *scripts)}
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    parts = {
        "@STAMP@": json.dumps(stamp).replace("--", "-\\u002d"),
        "@TITLE@": escape(f"{content['name']}: {content['metric']}"),
        "@STYLE@": files["report.css"],
        "@SCRIPT@": "\n".join(files[name] for name in scripts),
        "@DATA@": data.replace("<", "\\u003c"),
    }
    text = files["report.html"]
    for mark, part in parts.items():
        text = text.replace(mark, part, 1)
    return text
